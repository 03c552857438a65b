"""Workers that are late, dead or broken, and what becomes of their calls. Ray and the clock are faked."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from r1ray.actors import workers
from r1ray.actors.group import ActorGroup, WorkerDied, WorkerFailed
from r1ray.actors.workers import RayWorkers
from r1ray.engine.base import EngineFailed

PROBLEM: Any = SimpleNamespace(id="p", prompt_ids_T=np.array([1], np.int32))


class World:
    """Engines answer one call after the other, each after `seconds`; time passes only in `wait`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready_at: dict[str, float] = {}
        self.calls: list[tuple[str, str]] = []
        self.fate: dict[str, Exception] = {}
        """Actors whose calls all fail, and how."""
        self.events: list[str] = []

    def actor(self, name: str, seconds: float) -> Any:
        def method(kind: str) -> Any:
            def remote(**arguments: Any) -> str:
                ref = f"{name}/{kind}/{len(self.calls)}"
                before = (
                    [ref for ref in self.ready_at if ref.startswith(f"{name}/generate")] if kind == "generate" else []
                )
                replies = [arguments["completions_G"]] if "completions_G" in arguments else []
                begin = max([self.now, *(self.ready_at[one] for one in (*before, *replies))])
                self.ready_at[ref] = begin + (seconds if kind in ("generate", "score") else 0)
                self.calls.append((name, kind))
                if replies and self.fate_of(replies[0]):
                    self.fate[ref] = self.fate_of(replies[0])  # type: ignore[assignment]
                return ref

            return SimpleNamespace(remote=remote)

        methods = {kind: method(kind) for kind in ("generate", "score", "hold", "release")}
        return SimpleNamespace(name=name, _actor_id=name.encode(), **methods)

    def fate_of(self, ref: str) -> Exception | None:
        return self.fate.get(ref) or self.fate.get(ref.split("/")[0])

    def wait(self, refs: Sequence[str], *, num_returns: int, timeout: float | None) -> tuple[list[str], list[str]]:
        times = sorted(self.ready_at[ref] for ref in refs)
        end = times[num_returns - 1] if timeout is None else min(times[num_returns - 1], self.now + timeout)
        self.now = max(self.now, end)
        ready = [ref for ref in refs if self.ready_at[ref] <= self.now][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def result_of(self, ref: str, **_: Any) -> str:
        assert self.ready_at[ref] <= self.now, "fetched before it was ready: in a run that blocks without an end"
        if error := self.fate_of(ref):
            raise error
        return ref

    def restart(self, group: ActorGroup, index: int, **_: Any) -> None:
        self.now += 30  # longer than any timeout here: what others did meanwhile was not seen
        group.handles[index] = self.actor(f"{group.handles[index].name}'", 0.5)

    def died(self, name: str) -> WorkerDied:
        return WorkerDied(f"{name} died", actor_id=name.encode().hex())


class TaskError(Exception):
    """As Ray's, of a call on rollout-0."""

    cause = EngineFailed("bad kernel")
    actor_id = b"rollout-0".hex()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(workers, "ray", made)
    monkeypatch.setattr(workers.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(workers, "result_of", made.result_of)
    monkeypatch.setattr(ActorGroup, "gather", lambda self, refs, **_: list(refs))
    monkeypatch.setattr(ActorGroup, "restart", lambda self, index, **_: made.restart(self, index))
    return made


def pool(world: World, rollout_s: Sequence[float], reward_s: float = 0.0, *, deterministic: bool = False) -> RayWorkers:
    cfg: Any = SimpleNamespace(
        rollout=SimpleNamespace(timeout_s=2, start_timeout_s=9),
        reward=SimpleNamespace(timeout_s=1),
        deterministic=deterministic,
    )
    return RayWorkers(
        ActorGroup("rollout", [world.actor(f"rollout-{i}", seconds) for i, seconds in enumerate(rollout_s)]),
        ActorGroup("reward", [world.actor("reward-0", reward_s)]),
        cfg=cfg,
        event=lambda kind, **fields: world.events.append(f"{kind} {fields['worker']}: {fields['reason']}"),
        served=lambda: world.events.append("weights"),
    )


def submit(made: RayWorkers, count: int) -> list[Any]:
    refs = []
    for _ in range(count):
        replies = made.generate(PROBLEM, seeds=[1], sampling=None)  # type: ignore[arg-type]
        refs += [replies, made.score(PROBLEM, replies, None)]  # type: ignore[arg-type]
    return refs


def drain(made: RayWorkers, calls: list[Any]) -> list[str]:
    """The results, in the order in which they came."""
    results: list[str] = []
    while calls:
        for call in made.wait(calls):
            calls.remove(call)
            results.append(made.result(call))
    return results


def test_a_long_queue_makes_nobody_late(world: World) -> None:
    made = pool(world, [1.0])
    drain(made, submit(made, 20))
    assert world.now == 120.0 and not world.events


def test_a_worker_that_finishes_nothing_is_replaced_and_its_calls_are_made_again(world: World) -> None:
    made = pool(world, [0.5, 1000.0])
    results = drain(made, submit(made, 6))
    assert len(results) == 12 and len({name for name in results if "rollout-1'" in name}) == 3
    complaint, weights = world.events
    assert complaint == (
        "worker_restarted rollout-1: rollout-1 finished nothing for 2 s (rollout.timeout_s) while it had 'generate p' to do"
    )
    assert weights == "weights", "the new engine is given what the others serve"


def test_a_dead_engine_is_replaced_once_and_the_reward_worker_is_not_blamed(world: World) -> None:
    made = pool(world, [1.0, 0.5])
    calls = submit(made, 6)
    world.fate["rollout-1"] = world.died("rollout-1")
    for call in calls:  # Ray hands the death on to the calls that wait for those replies
        if call.after is not None and call.after.index == 1:
            world.fate[call.ref] = world.died("rollout-1")
    results = drain(made, calls)
    assert len(results) == 12 and sum("rollout-1'" in name for name in results) == 3
    assert world.events == ["worker_restarted rollout-1: rollout-1 died", "weights"]


def test_a_dead_reward_worker_is_replaced(world: World) -> None:
    made = pool(world, [0.5])
    calls = submit(made, 3)
    world.fate["reward-0"] = world.died("reward-0")
    assert sum("reward-0'" in name for name in drain(made, calls)) == 3
    assert world.events == ["worker_restarted reward-0: reward-0 died"]


def test_an_engine_that_ended_in_a_living_worker_counts_as_dead(world: World) -> None:
    made = pool(world, [0.5])
    calls = submit(made, 2)
    failed = WorkerFailed("rollout-0 failed in 'generate p': engine failed")
    failed.__cause__ = TaskError()
    world.fate["rollout-0"] = failed
    assert sum("rollout-0'" in name for name in drain(made, calls)) == 2


def test_a_call_that_raises_is_not_made_again(world: World) -> None:
    made = pool(world, [0.5])
    calls = submit(made, 1)
    world.fate["reward-0"] = WorkerFailed("reward-0 failed in 'score p': ValueError: no verifier")
    with pytest.raises(WorkerFailed, match="no verifier"):
        drain(made, calls)
    assert not world.events


def test_restarts_have_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pool(world, [0.5])
    monkeypatch.setattr(ActorGroup, "restart", lambda self, index, **_: None)  # it comes back, and dies again
    world.fate["rollout-0"] = world.died("rollout-0")
    with pytest.raises(WorkerDied, match="20 workers have been restarted before"):
        drain(made, submit(made, 1))


def test_the_time_of_a_score_starts_with_its_replies(world: World) -> None:
    made = pool(world, [1.9], reward_s=0.9)
    drain(made, submit(made, 3))
    assert not world.events
    slow = pool(world, [1.9], reward_s=1.5)
    drain(slow, submit(slow, 1))
    assert "reward-0 finished nothing for 1 s (reward.timeout_s)" in world.events[0]


def test_deterministic_takes_turns_and_waits_for_all(world: World) -> None:
    made = pool(world, [0.1, 0.7], deterministic=True)
    refs = submit(made, 4)
    assert [name for name, kind in world.calls if kind == "generate"] == ["rollout-0", "rollout-1"] * 2
    assert [kind for _, kind in world.calls[:2]] == ["hold", "hold"]
    assert made.wait(refs) == refs
    assert [kind for _, kind in world.calls[-2:]] == ["release", "release"]
