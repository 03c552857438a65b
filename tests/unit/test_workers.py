"""Who is late: a worker that finishes nothing, not one whose queue is long. Ray and the clock are faked."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from r1ray.actors import workers
from r1ray.actors.group import ActorGroup, WorkerLate
from r1ray.actors.workers import RayWorkers

PROBLEM: Any = SimpleNamespace(id="p", prompt_ids_T=np.array([1], np.int32))


class World:
    """Actors answer one call after the other, each after `seconds`; time passes only in `wait`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready_at: dict[str, float] = {}
        self.calls: list[tuple[str, str]] = []

    def actor(self, name: str, seconds: float) -> Any:
        def method(kind: str) -> Any:
            def remote(*args: Any, **kwargs: Any) -> str:
                ref = f"{name}/{kind}/{len(self.calls)}"
                before = [ref for ref in self.ready_at if ref.startswith(f"{name}/{kind}")]
                begin = max(
                    [self.now, *(self.ready_at[one] for one in [*before, *(a for a in args if isinstance(a, str))])]
                )
                self.ready_at[ref] = begin + (seconds if kind in ("generate", "score") else 0)
                self.calls.append((name, kind))
                return ref

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(**{kind: method(kind) for kind in ("generate", "score", "hold", "release")})

    def wait(self, refs: Sequence[str], *, num_returns: int, timeout: float | None) -> tuple[list[str], list[str]]:
        times = sorted(self.ready_at[ref] for ref in refs)
        end = times[num_returns - 1] if timeout is None else min(times[num_returns - 1], self.now + timeout)
        self.now = max(self.now, end)
        ready = [ref for ref in refs if self.ready_at[ref] <= self.now][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, refs: Any) -> Any:
        return refs


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(workers, "ray", made)
    monkeypatch.setattr(workers.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(workers, "result_of", lambda ref, **_: ref)
    monkeypatch.setattr(ActorGroup, "gather", lambda self, refs, **_: list(refs))
    return made


def pool(world: World, rollout_s: Sequence[float], reward_s: float = 0.0, *, deterministic: bool = False) -> RayWorkers:
    cfg: Any = SimpleNamespace(
        rollout=SimpleNamespace(timeout_s=2), reward=SimpleNamespace(timeout_s=1), deterministic=deterministic
    )
    rollouts = ActorGroup("rollout", [world.actor(f"rollout-{i}", seconds) for i, seconds in enumerate(rollout_s)])
    return RayWorkers(rollouts, ActorGroup("reward", [world.actor("reward-0", reward_s)]), cfg=cfg)


def submit(made: RayWorkers, count: int) -> list[Any]:
    refs = []
    for _ in range(count):
        replies = made.generate(PROBLEM, seeds=[1], sampling=None)  # type: ignore[arg-type]
        refs += [replies, made.score(PROBLEM, replies, None)]  # type: ignore[arg-type]
    return refs


def drain(made: RayWorkers, refs: list[Any]) -> None:
    while refs:
        for ref in made.wait(refs):
            refs.remove(ref)
            made.result(ref)


def test_a_long_queue_makes_nobody_late(world: World) -> None:
    made = pool(world, [1.0])
    drain(made, submit(made, 20))
    assert world.now == 120.0


def test_a_worker_that_finishes_nothing_is_named_though_others_go_on(world: World) -> None:
    made = pool(world, [0.5, 1000.0])
    with pytest.raises(
        WorkerLate, match=r"rollout-1 finished nothing for 2 s \(rollout.timeout_s\).*'generate p'.*late: rollout-1$"
    ):
        drain(made, submit(made, 20))


def test_the_time_of_a_score_starts_with_its_replies(world: World) -> None:
    made = pool(world, [1.9], reward_s=0.9)
    drain(made, submit(made, 3))
    slow = pool(world, [1.9], reward_s=1.5)
    with pytest.raises(WorkerLate, match=r"reward-0 finished nothing for 1 s \(reward.timeout_s\)"):
        drain(slow, submit(slow, 1))


def test_deterministic_takes_turns_and_waits_for_all(world: World) -> None:
    made = pool(world, [0.1, 0.7], deterministic=True)
    refs = submit(made, 4)
    assert [name for name, kind in world.calls if kind == "generate"] == ["rollout-0", "rollout-1"] * 2
    assert [kind for _, kind in world.calls[:2]] == ["hold", "hold"]
    assert made.wait(refs) == refs
    assert [kind for _, kind in world.calls[-2:]] == ["release", "release"]
