"""The budget of restarts: what it tells, and how it ends a run."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

import r1ray.failures as restarts_module
from r1ray.failures import RestartBudget, ResultLost, TrainersLost, WorkerDied, WorkerFailed, WorkerUnresponsive


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(restarts_module.time, "sleep", slept.append)
    return slept


def budget(limit: int) -> tuple[RestartBudget, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return RestartBudget(limit, event=lambda kind, **fields: events.append({"kind": kind, **fields})), events


def test_every_restart_is_an_event_until_there_is_none_left() -> None:
    restarts, events = budget(2)
    restarts.spend({"rollout-1": WorkerDied("rollout-1 died")})
    restarts.spend({"policy": TrainersLost("policy-0 is late")})
    assert events == [
        {"kind": "worker_restarted", "worker": "rollout-1", "reason": "rollout-1 died"},
        {"kind": "worker_restarted", "worker": "policy", "reason": "policy-0 is late"},
    ]
    with pytest.raises(
        WorkerUnresponsive,
        match=r"reward-0 is late \(giving up after 2 restarts without a new step: cluster.max_restarts=2",
    ):
        restarts.spend({"reward-0": WorkerUnresponsive("reward-0 is late")})
    assert len(events) == 2


def test_those_lost_together_are_one_restart() -> None:
    restarts, events = budget(1)
    restarts.spend({f"rollout-{index}": WorkerDied("its node is gone") for index in range(8)})
    assert [event["worker"] for event in events] == [f"rollout-{index}" for index in range(8)]


@pytest.mark.parametrize("error", [WorkerDied, WorkerUnresponsive, WorkerFailed, ResultLost, TrainersLost])
def test_the_last_loss_is_raised_as_what_it_was(error: type[Exception]) -> None:
    restarts, events = budget(0)
    with pytest.raises(error, match="rollout-0 is gone") as raised:
        restarts.spend({"rollout-0": error("rollout-0 is gone")})
    assert raised.type is error and not events


def starts(*ends: Exception | None) -> Callable[[Collection[str]], dict[str, Exception]]:
    """A start that ends like this, one time after the other."""
    left = list(ends)

    def start(_: Collection[str]) -> dict[str, Exception]:
        if end := left.pop(0):
            raise end
        return {}

    return start


def test_a_start_that_fails_is_made_again_with_its_own_reason() -> None:
    restarts, events = budget(3)
    ends = starts(WorkerUnresponsive("not up in 9 s"), WorkerFailed("no such node"), None)
    restarts.restart({"policy": TrainersLost("policy-0 died")}, ends)
    assert [event["reason"] for event in events] == ["policy-0 died", "not up in 9 s", "no such node"]


def test_starts_that_go_on_failing_end_with_the_budget() -> None:
    restarts, _ = budget(2)
    with pytest.raises(WorkerDied, match=r"died again \(giving up after 2 restarts"):
        restarts.restart({"rollout-0": WorkerUnresponsive("late")}, starts(*[WorkerDied("died again")] * 3))


def test_pauses_between_starts_grow_to_a_minute(pauses: list[float]) -> None:
    restarts, _ = budget(9)
    restarts.restart({"rollout-0": WorkerDied("died")}, starts(*[WorkerFailed("no node")] * 8, None))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_step_never_reached_before_fills_the_budget_and_one_made_again_does_not() -> None:
    restarts, _ = budget(1)
    for step in (1, 2, 3):
        restarts.begin_step(step)
        restarts.spend({"reward-0": WorkerDied("reward-0 died")})
    restarts.begin_step(2)
    with pytest.raises(TrainersLost):
        restarts.spend({"policy": TrainersLost("policy-0 died")})


def test_an_error_that_is_no_workers_ends_a_start_at_once() -> None:
    restarts, events = budget(9)
    with pytest.raises(AssertionError):
        restarts.restart({"rollout-0": WorkerUnresponsive("late")}, starts(AssertionError("not made by spawn"), None))
    assert len(events) == 1
