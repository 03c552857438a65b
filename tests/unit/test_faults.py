"""Fault injection: the syntax of `fault=`, and that each fault is injected once."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.run.directory import RunDir
from r1ray.run.fault import ACTIONS, Fault, parse
from r1ray.stages import faults as faults_module
from r1ray.stages.faults import Faults

GOOD = {
    "rollout:kill@3": Fault(role="rollout", index=0, action="kill", step=3, seconds=0),
    "rollout-1:kill_in_sync@3": Fault(role="rollout", index=1, action="kill_in_sync", step=3, seconds=0),
    "policy-12:stop@50+0.4": Fault(role="policy", index=12, action="stop", step=50, seconds=0.4),
    "driver:term@1+2": Fault(role="driver", index=0, action="term", step=1, seconds=2),
}
BAD = {
    "": "is not <role>",
    "rollout": "is not <role>",
    "rollout:kill": "is not <role>",
    "rollout:kill@": "is not <role>",
    "rollout:kill@-1": "is not <role>",
    "rollout:kill@2.5": "is not <role>",
    "rollout:kill@2+": "is not <role>",
    "rollout-:kill@2": "is not <role>",
    "rollout:kill@2,rollout:kill@3": "is not <role>",
    " rollout:kill@2": "is not <role>",
    "engine:kill@2": "no role is called 'engine'; roles: rollout, reward, judge, reference, policy, critic, prm, driver",
    "driver:stop@2": "driver has no action 'stop'; actions: kill, term",
    "reward:fail@2": "reward has no action 'fail'; actions: kill, stop",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_fault_is_read(text: str) -> None:
    assert parse(text) == GOOD[text]
    assert parse(str(parse(text))) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_fault_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    assert BAD[text] in str(error.value) and repr(text) in str(error.value)


class World:
    """Timers that fire at once; actors and a process that record the faults they get."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.injected: list[str] = []
        self.delays: list[float] = []

    def timer(self, seconds: float, function: Callable[..., None], args: list[Any]) -> Any:
        self.delays.append(seconds)
        return SimpleNamespace(start=lambda: function(*args))

    def group(self, role: str) -> Any:
        def handle(index: int) -> Any:
            return SimpleNamespace(
                inject_fault=SimpleNamespace(remote=lambda action: self.injected.append(f"{role}-{index} {action}"))
            )

        return SimpleNamespace(handles=[handle(0), handle(1)], starting=set())

    def faults(self, *wanted: str, stage: str = "rl", roles: tuple[str, ...] = ("rollout", "policy")) -> Faults:
        return Faults(wanted, stage=stage, groups={role: self.group(role) for role in roles}, run=self.run)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(RunDir(tmp_path))
    monkeypatch.setattr(faults_module.threading, "Timer", made.timer)
    monkeypatch.setattr(faults_module.os, "kill", lambda pid, number: made.injected.append(f"driver {number.name}"))
    return made


def steps(faults: Faults, last: int) -> None:
    for step in range(1, last + 1):
        faults.begin_step(step)


def test_each_fault_is_injected_at_its_step_after_its_delay(world: World) -> None:
    faults = world.faults("rollout-1:fail@2+0.5", "policy:kill@2", "rollout:stop@3")
    faults.begin_step(1)
    assert not world.injected
    faults.begin_step(2)
    assert world.injected == ["rollout-1 fail", "policy-0 kill"] and world.delays == [0.5, 0]
    faults.begin_step(3)
    assert world.injected[2:] == ["rollout-0 stop"]


def test_the_fault_hits_the_worker_that_is_there_at_that_time(world: World) -> None:
    groups = {"rollout": world.group("rollout")}
    faults = Faults(["rollout:kill@1"], stage="rl", groups=groups, run=world.run)
    groups["rollout"].handles[0] = world.group("replaced").handles[0]
    faults.begin_step(1)
    assert world.injected == ["replaced-0 kill"]


def test_a_restarting_worker_gets_its_fault_once_it_is_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"rollout": world.group("rollout")}
    groups["rollout"].starting.add(0)

    def later(seconds: float) -> None:
        assert seconds > 0 and not world.injected
        groups["rollout"].starting.clear()

    monkeypatch.setattr(faults_module.time, "sleep", later)
    Faults(["rollout:kill@1"], stage="rl", groups=groups, run=world.run).begin_step(1)
    assert world.injected == ["rollout-0 kill"]


def test_a_repeated_step_injects_nothing_again(world: World) -> None:
    faults = world.faults("rollout:kill@2")
    steps(faults, 3)
    steps(faults, 3)
    assert world.injected == ["rollout-0 kill"]


def test_a_resumed_run_injects_only_what_it_has_not_yet(world: World) -> None:
    wanted = ("rollout:kill@2", "rollout-0:kill@3", "rollout:stop@2")
    steps(world.faults(*wanted), 2)
    assert world.injected == ["rollout-0 kill", "rollout-0 stop"]
    steps(world.faults(*wanted), 3)
    assert world.injected[2:] == ["rollout-0 kill"]


def test_a_fault_is_logged_before_it_is_injected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(
        faults_module.os, "kill", lambda pid, number: known.append(world.run.read_events("fault_injected"))
    )
    steps(world.faults("driver:kill@1"), 1)
    assert [(event["stage"], event["fault"]) for event in known[0]] == [("rl", "driver-0:kill@1+0")]


def test_each_stage_has_its_own_faults(world: World) -> None:
    steps(world.faults("policy:kill@1", stage="sft"), 1)
    steps(world.faults("policy:kill@1", stage="rl"), 1)
    assert world.injected == ["policy-0 kill"] * 2


def test_faults_of_roles_that_the_stage_lacks_are_left_out(world: World) -> None:
    steps(world.faults("rollout:kill@1", "reference:kill@1", "policy:kill@1", roles=("policy",)), 2)
    assert world.injected == ["policy-0 kill"]
    assert len(world.run.read_events("fault_injected")) == 1, "another stage may have the role"


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("term", signal.SIGTERM)])
def test_the_driver_injects_faults_into_itself(world: World, action: str, number: signal.Signals) -> None:
    steps(world.faults(f"driver:{action}@1"), 1)
    assert world.injected == [f"driver {number.name}"]


def test_every_action_of_the_driver_has_a_signal() -> None:
    assert set(ACTIONS["driver"]) == set(faults_module.DRIVER_SIGNALS)
