"""Reference workers after a failure: all are restarted with the model that was in use, and the call is repeated."""

from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.actors.group import ActorGroup
from r1ray.actors.reference_group import ReferenceGroup
from r1ray.failures import RestartBudget, WorkerDied, WorkerFailed, WorkerUnresponsive

BATCH: Any = SimpleNamespace(rows=("rows 0", "rows 1"))
GLOO = "reference-0 failed in 'compute log-probs': RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer"


class World:
    """Two workers that return their model and their rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, max_restarts: int = 20) -> None:
        self.models = ["first", "first"]
        self.did: list[str] = []
        self.fails: dict[str, list[Exception]] = {}
        """{method: the errors of its next calls}."""
        self.dead: dict[str, WorkerDied] = {}
        self.actors = ActorGroup("reference", [self.handle(0), self.handle(1)])
        monkeypatch.setattr(self.actors, "gather", self.gather)
        monkeypatch.setattr(self.actors, "restart_all", self.restart_all)
        monkeypatch.setattr(self.actors, "unhealthy", lambda *, timeout_s: self.dead)
        self.group = ReferenceGroup(
            self.actors,
            initial_path="first",
            max_tokens=64,
            timeout_s=600,
            start_timeout_s=9,
            restarts=RestartBudget(max_restarts, event=lambda kind, **f: self.did.append(f"{kind} {f['worker']}")),
        )

    def handle(self, index: int) -> Any:
        def load(path: str) -> Any:
            return "load", lambda: self.models.__setitem__(index, path)

        def compute_logprobs_or_values(rows: str) -> Any:
            return "compute_logprobs_or_values", lambda: f"{rows} by {self.models[index]}"

        return SimpleNamespace(
            load=SimpleNamespace(remote=load),
            compute_logprobs_or_values=SimpleNamespace(remote=compute_logprobs_or_values),
        )

    def gather(self, refs: list[Any], *, what: str, timeout_s: float, key: str) -> list[Any]:
        method = refs[0][0]
        self.did.append(method)
        if failures := self.fails.get(method):
            raise failures.pop(0)
        return [call() for _, call in refs]

    def restart_all(self, *, timeout_s: float) -> dict[str, Exception]:
        self.did.append("restart all")
        self.dead.clear()
        self.models = ["first", "first"]
        return {}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_each_worker_gets_its_rows(world: World) -> None:
    assert world.group.compute_logprobs_or_values(BATCH) == ["rows 0 by first", "rows 1 by first"]


def test_loaded_model_is_not_loaded_again(world: World) -> None:
    for path in ("first", "second", "second", "first"):
        world.group.load(path)
    assert world.did == ["load", "load"] and world.models == ["first", "first"]


@pytest.mark.parametrize("error", [WorkerDied("reference-1 died"), WorkerUnresponsive("reference-1 did not answer")])
def test_failure_restarts_all_workers_and_repeats_the_call(world: World, error: Exception) -> None:
    world.fails["compute_logprobs_or_values"] = [error]
    assert world.group.compute_logprobs_or_values(BATCH) == ["rows 0 by first", "rows 1 by first"]
    assert world.did == [
        "compute_logprobs_or_values",
        "worker_restarted reference",
        "restart all",
        "compute_logprobs_or_values",
    ]


def test_restarted_workers_load_the_model_that_was_in_use(world: World) -> None:
    world.group.load("second")
    world.fails["compute_logprobs_or_values"] = [WorkerDied("reference-1 died")]
    assert world.group.compute_logprobs_or_values(BATCH) == ["rows 0 by second", "rows 1 by second"]


def test_failure_during_loading_ends_with_the_new_model(world: World) -> None:
    world.fails["load"] = [WorkerDied("reference-1 died"), WorkerDied("reference-0 died")]
    world.group.load("second")
    assert world.models == ["second", "second"]
    assert world.did.count("restart all") == 2


def test_error_about_a_lost_peer_counts_as_a_failure(world: World) -> None:
    """With ZeRO-3 they compute together: surviving workers raise errors before the death is known."""
    world.fails["compute_logprobs_or_values"] = [WorkerFailed(GLOO)]
    world.dead["reference-1"] = WorkerDied("reference-1 died")
    assert world.group.compute_logprobs_or_values(BATCH) == ["rows 0 by first", "rows 1 by first"]


def test_number_of_restarts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, max_restarts=2)
    world.fails["compute_logprobs_or_values"] = [WorkerDied("reference-1 died")] * 9
    with pytest.raises(WorkerDied, match="giving up after 2 restarts"):
        world.group.compute_logprobs_or_values(BATCH)
    assert world.did.count("restart all") == 2


def test_other_worker_errors_are_raised(world: World) -> None:
    world.fails["compute_logprobs_or_values"] = [WorkerFailed("reference-0 failed in 'compute log-probs': no memory")]
    with pytest.raises(WorkerFailed, match="no memory"):
        world.group.compute_logprobs_or_values(BATCH)
    assert world.did == ["compute_logprobs_or_values"]
