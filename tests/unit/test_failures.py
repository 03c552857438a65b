"""The restart budget: what it logs, and how it ends a run."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

import r1ray.failures as failures_module
from r1ray.failures import RestartBudget, ResultLost, TrainersLost, WorkerDied, WorkerFailed, WorkerUnresponsive


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(failures_module.time, "sleep", slept.append)
    return slept


def budget(limit: int) -> tuple[RestartBudget, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return RestartBudget(limit, event=lambda kind, **fields: events.append({"kind": kind, **fields})), events


def test_every_restart_within_the_budget_is_an_event() -> None:
    restarts, events = budget(2)
    restarts.spend({"rollout-1": WorkerDied("rollout-1 died")})
    restarts.spend({"policy": TrainersLost("policy-0 did not answer")})
    assert events == [
        {"kind": "worker_restarted", "worker": "rollout-1", "reason": "rollout-1 died"},
        {"kind": "worker_restarted", "worker": "policy", "reason": "policy-0 did not answer"},
    ]
    with pytest.raises(
        WorkerUnresponsive,
        match=r"reward-0 did not answer \(giving up after 2 restarts without a new step: cluster.max_restarts=2",
    ):
        restarts.spend({"reward-0": WorkerUnresponsive("reward-0 did not answer")})
    assert len(events) == 2


def test_workers_lost_together_use_one_restart() -> None:
    restarts, events = budget(1)
    restarts.spend({f"rollout-{index}": WorkerDied("its node is gone") for index in range(8)})
    assert [event["worker"] for event in events] == [f"rollout-{index}" for index in range(8)]


@pytest.mark.parametrize("error", [WorkerDied, WorkerUnresponsive, WorkerFailed, ResultLost, TrainersLost])
def test_the_error_beyond_the_budget_keeps_its_class(error: type[Exception]) -> None:
    restarts, events = budget(0)
    with pytest.raises(error, match="rollout-0 is gone") as raised:
        restarts.spend({"rollout-0": error("rollout-0 is gone")})
    assert raised.type is error and not events


def starts(*ends: Exception | None) -> Callable[[Collection[str]], dict[str, Exception]]:
    """A start function that ends like this, call by call."""
    left = list(ends)

    def start(_: Collection[str]) -> dict[str, Exception]:
        if end := left.pop(0):
            raise end
        return {}

    return start


def test_a_failed_start_is_repeated_and_logged_with_its_own_reason() -> None:
    restarts, events = budget(3)
    ends = starts(WorkerUnresponsive("not up in 9 s"), WorkerFailed("no such node"), None)
    restarts.restart({"policy": TrainersLost("policy-0 died")}, ends)
    assert [event["reason"] for event in events] == ["policy-0 died", "not up in 9 s", "no such node"]


def test_starts_that_keep_failing_end_with_the_budget() -> None:
    restarts, _ = budget(2)
    with pytest.raises(WorkerDied, match=r"died again \(giving up after 2 restarts"):
        restarts.restart({"rollout-0": WorkerUnresponsive("no answer")}, starts(*[WorkerDied("died again")] * 3))


def test_pauses_between_starts_grow_to_a_minute(pauses: list[float]) -> None:
    restarts, _ = budget(9)
    restarts.restart({"rollout-0": WorkerDied("died")}, starts(*[WorkerFailed("no node")] * 8, None))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_new_step_refills_the_budget_and_a_repeated_one_does_not() -> None:
    restarts, _ = budget(1)
    for step in (1, 2, 3):
        restarts.begin_step(step)
        restarts.spend({"reward-0": WorkerDied("reward-0 died")})
    restarts.begin_step(2)
    with pytest.raises(TrainersLost):
        restarts.spend({"policy": TrainersLost("policy-0 died")})


def test_an_error_that_is_no_worker_failure_is_raised_at_once() -> None:
    restarts, events = budget(9)
    with pytest.raises(AssertionError):
        restarts.restart(
            {"rollout-0": WorkerUnresponsive("no answer")}, starts(AssertionError("not made by spawn"), None)
        )
    assert len(events) == 1
