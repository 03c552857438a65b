"""Injuries on purpose: what `fault=` may say, and that each is inflicted once."""

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
def test_what_is_no_fault_is_refused_with_what_can_be_written(text: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    assert BAD[text] in str(error.value) and repr(text) in str(error.value)


class World:
    """Timers that go off at once; actors and a process that write down how they are hurt."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.hurt: list[str] = []
        self.waited: list[float] = []

    def timer(self, seconds: float, function: Callable[..., None], args: list[Any]) -> Any:
        self.waited.append(seconds)
        return SimpleNamespace(start=lambda: function(*args))

    def group(self, role: str) -> Any:
        def handle(index: int) -> Any:
            return SimpleNamespace(
                inject_fault=SimpleNamespace(remote=lambda action: self.hurt.append(f"{role}-{index} {action}"))
            )

        return SimpleNamespace(handles=[handle(0), handle(1)], starting=set())

    def faults(self, *wanted: str, stage: str = "rl", roles: tuple[str, ...] = ("rollout", "policy")) -> Faults:
        return Faults(wanted, stage=stage, groups={role: self.group(role) for role in roles}, run=self.run)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(RunDir(tmp_path))
    monkeypatch.setattr(faults_module.threading, "Timer", made.timer)
    monkeypatch.setattr(faults_module.os, "kill", lambda pid, number: made.hurt.append(f"driver {number.name}"))
    return made


def steps(faults: Faults, last: int) -> None:
    for step in range(1, last + 1):
        faults.begin_step(step)


def test_each_is_hurt_at_its_step_after_its_seconds(world: World) -> None:
    faults = world.faults("rollout-1:fail@2+0.5", "policy:kill@2", "rollout:stop@3")
    faults.begin_step(1)
    assert not world.hurt
    faults.begin_step(2)
    assert world.hurt == ["rollout-1 fail", "policy-0 kill"] and world.waited == [0.5, 0]
    faults.begin_step(3)
    assert world.hurt[2:] == ["rollout-0 stop"]


def test_the_worker_that_is_there_when_the_time_comes_is_hurt(world: World) -> None:
    groups = {"rollout": world.group("rollout")}
    faults = Faults(["rollout:kill@1"], stage="rl", groups=groups, run=world.run)
    groups["rollout"].handles[0] = world.group("replaced").handles[0]
    faults.begin_step(1)
    assert world.hurt == ["replaced-0 kill"]


def test_a_worker_that_is_being_started_again_is_not_hurt_before_it_is_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"rollout": world.group("rollout")}
    groups["rollout"].starting.add(0)

    def later(seconds: float) -> None:
        assert seconds > 0 and not world.hurt
        groups["rollout"].starting.clear()

    monkeypatch.setattr(faults_module.time, "sleep", later)
    Faults(["rollout:kill@1"], stage="rl", groups=groups, run=world.run).begin_step(1)
    assert world.hurt == ["rollout-0 kill"]


def test_a_step_that_is_made_again_hurts_nobody_again(world: World) -> None:
    faults = world.faults("rollout:kill@2")
    steps(faults, 3)
    steps(faults, 3)
    assert world.hurt == ["rollout-0 kill"]


def test_a_run_that_goes_on_hurts_only_whom_it_has_not_yet(world: World) -> None:
    wanted = ("rollout:kill@2", "rollout-0:kill@3", "rollout:stop@2")
    steps(world.faults(*wanted), 2)
    assert world.hurt == ["rollout-0 kill", "rollout-0 stop"]
    steps(world.faults(*wanted), 3)
    assert world.hurt[2:] == ["rollout-0 kill"]


def test_the_deed_is_written_down_before_it_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(
        faults_module.os, "kill", lambda pid, number: known.append(world.run.read_events("fault_injected"))
    )
    steps(world.faults("driver:kill@1"), 1)
    assert [(event["stage"], event["fault"]) for event in known[0]] == [("rl", "driver-0:kill@1+0")]


def test_each_stage_has_its_own(world: World) -> None:
    steps(world.faults("policy:kill@1", stage="sft"), 1)
    steps(world.faults("policy:kill@1", stage="rl"), 1)
    assert world.hurt == ["policy-0 kill"] * 2


def test_a_role_that_the_stage_has_not_is_left_out(world: World) -> None:
    steps(world.faults("rollout:kill@1", "reference:kill@1", "policy:kill@1", roles=("policy",)), 2)
    assert world.hurt == ["policy-0 kill"]
    assert len(world.run.read_events("fault_injected")) == 1, "another stage may still have it"


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("term", signal.SIGTERM)])
def test_the_driver_hurts_itself(world: World, action: str, number: signal.Signals) -> None:
    steps(world.faults(f"driver:{action}@1"), 1)
    assert world.hurt == [f"driver {number.name}"]


def test_every_action_of_the_driver_has_a_signal() -> None:
    assert set(ACTIONS["driver"]) == set(faults_module.DRIVER_SIGNALS)
