"""The errors that the driver makes of Ray's errors."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

import r1ray.actors.group as group_module
from r1ray.actors.group import ActorGroup, result_of
from r1ray.actors.start import wait_until_ready
from r1ray.failures import WorkerDied, WorkerUnresponsive
from r1ray.run import stop
from r1ray.run.phases import phase

OUT_OF_MEMORY = """6 worker(s) were killed due to the node running low on memory. 5.5 GB used
Object store memory usage: [- objects spillable: 0
Top 10 memory users: PID"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError(OUT_OF_MEMORY), "rollout-1 was killed during 'generate': 6 worker(s) were killed due to the "
         "node running low on memory. 5.5 GB used"),
        (RayActorError(), "rollout-1 died during 'generate': The actor experienced an error before finishing this task."),
    ],
)  # fmt: skip
def test_a_death_is_reported_in_one_line(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> None:
        raise error

    monkeypatch.setattr(group_module.ray, "get", fails)
    with pytest.raises(WorkerDied) as raised:
        result_of("ref", name="rollout-1", what="generate")
    assert str(raised.value) == message


def test_unhealthy_are_dead_and_unresponsive_workers_and_those_whose_engine_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: dict[str, Any] = {
        "rollout-0": {"ended": None},
        "rollout-1": WorkerDied("rollout-1 died"),
        "rollout-2": {"ended": "bad kernel"},
        "rollout-3": WorkerUnresponsive("rollout-3 did not answer"),
        "rollout-4": {"ended": None},
    }

    def gather(refs: list[str], names: list[str], **_: Any) -> list[Any]:
        assert refs == [f"heartbeat of {names[0]}"]
        if isinstance(answer := answers[names[0]], Exception):
            raise answer
        return [answer]

    monkeypatch.setattr(group_module, "gather", gather)
    handles = [
        SimpleNamespace(heartbeat=SimpleNamespace(remote=lambda name=name: f"heartbeat of {name}")) for name in answers
    ]
    found = ActorGroup("rollout", handles).unhealthy(timeout_s=1)  # type: ignore[arg-type]
    assert {name: str(why) for name, why in found.items()} == {
        "rollout-1": "rollout-1 died",
        "rollout-2": "rollout-2: bad kernel",
        "rollout-3": "rollout-3 did not finish 'heartbeat' within 1 s",
    }
    assert isinstance(found["rollout-2"], WorkerDied)


def test_each_role_is_announced_once_when_all_its_workers_are_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they become ready, not when the slowest one is."""
    order = ["reward-1", "rollout-0", "reward-0", "rollout-1"]
    monkeypatch.setattr(
        group_module.ray, "wait", lambda pending, **_: ([n := order.pop(0)], [p for p in pending if p != n])
    )

    def get(name: str) -> None:
        seen.append(capsys.readouterr().out)

    seen: list[str] = []
    monkeypatch.setattr(group_module.ray, "get", get)
    handles = {
        role: [SimpleNamespace(ping=SimpleNamespace(remote=lambda n=f"{role}-{i}": n)) for i in (0, 1)]
        for role in ("rollout", "reward")
    }
    groups = {role: ActorGroup(role, own) for role, own in handles.items()}  # type: ignore[arg-type]
    engine = SimpleNamespace(start_timeout_s=9.0)
    wait_until_ready(groups, SimpleNamespace(rollout=engine, trainer=engine))  # type: ignore[arg-type]
    seen.append(capsys.readouterr().out)
    assert seen == ["", "", "", "r1ray: 2 reward workers ready after 0 s\n", "r1ray: 2 engines ready after 0 s\n"]


@pytest.mark.usefixtures("signals_as_before")
def test_a_start_ends_when_the_run_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines may take minutes to start."""
    waited: list[float] = []

    def wait(pending: list[str], *, timeout: float, **_: object) -> tuple[list[str], list[str]]:
        waited.append(timeout)
        if len(waited) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        assert len(waited) < 5
        return [], pending

    stop.install_handler()
    monkeypatch.setattr(group_module.ray, "wait", wait)
    handle = SimpleNamespace(ping=SimpleNamespace(remote=lambda: "ping"))
    groups = {"rollout": ActorGroup("rollout", [handle])}  # type: ignore[list-item]
    engine = SimpleNamespace(start_timeout_s=900.0)
    with pytest.raises(stop.Stopped, match="SIGTERM"):
        wait_until_ready(groups, SimpleNamespace(rollout=engine, trainer=engine))  # type: ignore[arg-type]
    assert waited == [group_module.CHECK_S] * 3


def test_a_phase_has_its_seconds_unless_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError), phase("starting Ray"):
        raise OSError
    with phase("loading data"):
        pass
    lines = ["r1ray: starting Ray", "r1ray: loading data", "r1ray: loading data took 0.0 s"]
    assert capsys.readouterr().out.splitlines() == lines
