"""The rollout and reward workers as the collector and the evaluator see them: submit, wait, result. Every wait has an end."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from r1ray.actors.group import ActorGroup, WorkerLate, result_of
from r1ray.config import Config
from r1ray.engine.base import SamplingSpec
from r1ray.reward.base import RewardContext
from r1ray.types import Problem


@dataclass(slots=True)
class _Call:
    group: ActorGroup
    index: int
    what: str
    made: float
    after: "_Call | None" = None
    """Of a score: the call whose replies it waits for."""
    done: float | None = None
    """When it was seen to be ready."""

    @property
    def name(self) -> str:
        return f"{self.group.role}-{self.index}"


class RayWorkers:
    """`r1ray.collect.Workers` over actors. A call goes to the worker with the fewest unfinished ones.

    Completions travel from the engine to the reward worker by reference: the driver never copies them in between.

    A worker is late when it has had something to do and has finished nothing for the role's timeout: calls queue up in a worker, so
    how long one of them has waited says nothing.

    With `deterministic=true` nothing depends on which worker is faster: problems go to the engines in turn, all calls made before
    a `wait` are admitted together, and `wait` returns when all of its calls are ready.
    """

    def __init__(self, rollouts: ActorGroup, rewards: ActorGroup, *, cfg: Config) -> None:
        self._rollouts, self._rewards = rollouts, rewards
        self._timeout_s = {rollouts.role: cfg.rollout.timeout_s, rewards.role: cfg.reward.timeout_s}
        self._calls: dict[Any, _Call] = {}
        self._deterministic = cfg.deterministic
        self._held: list[int] | None = None
        """Calls held at each engine until `wait`; None when nothing is held."""
        self._load = {group.role: [0] * len(group) for group in (rollouts, rewards)}
        self._answered = {group.role: [0.0] * len(group) for group in (rollouts, rewards)}
        """When each worker last finished something."""
        self._count = 0

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Any:
        turn = self._hold() if self._deterministic else None
        call = self._next(self._rollouts, what=f"generate {problem.id}", index=turn)
        self._count += 1
        ref = call.group.handles[call.index].generate.remote(
            request_id=f"{self._count:09d}", prompt_ids_T=problem.prompt_ids_T, seeds=list(seeds), sampling=sampling
        )
        self._calls[ref] = call
        return ref

    def score(self, problem: Problem, completions: Any, context: RewardContext) -> Any:
        call = self._next(self._rewards, what=f"score {problem.id}")
        call.after = self._calls.get(completions)
        ref = call.group.handles[call.index].score.remote(problem, completions, context)
        self._calls[ref] = call
        return ref

    def wait(self, refs: Sequence[Any]) -> list[Any]:
        if self._held is not None:
            self._release(self._held)
        while True:
            ready, pending = ray.wait(list(refs), num_returns=len(refs), timeout=0)
            self._note([self._calls[ref] for ref in ready])
            if ready and not (pending and self._deterministic):
                return ready
            calls = [self._calls[ref] for ref in pending]
            seconds = min(map(self._due, calls)) - time.monotonic()
            if seconds <= 0:
                raise WorkerLate(self._complaint(calls))
            ray.wait(pending, num_returns=1, timeout=None if math.isinf(seconds) else seconds)

    def result(self, ref: Any) -> Any:
        call = self._calls.pop(ref)
        self._load[call.group.role][call.index] -= 1
        return result_of(ref, name=call.name, what=call.what)

    def _next(self, group: ActorGroup, *, what: str, index: int | None = None) -> _Call:
        load = self._load[group.role]
        index = load.index(min(load)) if index is None else index
        load[index] += 1
        return _Call(group=group, index=index, what=what, made=time.monotonic())

    def _note(self, ready: Sequence[_Call]) -> None:
        now = time.monotonic()
        for call in ready:
            if call.done is None:
                call.done = self._answered[call.group.role][call.index] = now

    def _due(self, call: _Call) -> float:
        """When its worker is late; never while it waits for another worker's replies, who is late first."""
        if call.after is not None and call.after.done is None:
            return math.inf
        could_begin = call.made if call.after is None else call.after.done
        return max(could_begin or 0.0, self._answered[call.group.role][call.index]) + self._timeout_s[call.group.role]

    def _complaint(self, calls: Sequence[_Call]) -> str:
        first = min(calls, key=self._due)
        late = sorted(
            {call.name for call in calls if call.group is first.group and self._due(call) <= self._due(first)}
        )
        seconds = self._timeout_s[first.group.role]
        return (
            f"{first.name} finished nothing for {seconds:.0f} s ({first.group.role}.timeout_s) while it had '{first.what}' to do; "
            f"late: {', '.join(late)}"
        )

    def _hold(self) -> int:
        """The engine whose turn it is; before the first call since the last `wait`, all engines are told to hold."""
        if self._held is None:
            self._held = [0] * len(self._rollouts)
            self._on_engines([handle.hold.remote() for handle in self._rollouts.handles], what="hold")
        index = sum(self._held) % len(self._held)
        self._held[index] += 1
        return index

    def _release(self, held: list[int]) -> None:
        self._held = None
        calls = zip(self._rollouts.handles, held, strict=True)
        self._on_engines([handle.release.remote(num_calls=num) for handle, num in calls], what="release")

    def _on_engines(self, refs: list[Any], *, what: str) -> None:
        self._rollouts.gather(refs, what=what, timeout_s=self._timeout_s[self._rollouts.role])
