"""The rollout and reward workers as the collector and the evaluator see them: submit, wait, result. Every wait has an end."""

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
    deadline: float

    @property
    def name(self) -> str:
        return f"{self.group.role}-{self.index}"


class RayWorkers:
    """`r1ray.collect.Workers` over actors. A call goes to the worker with the fewest unfinished ones.

    Completions travel from the engine to the reward worker by reference: the driver never copies them in between.
    """

    def __init__(self, rollouts: ActorGroup, rewards: ActorGroup, *, cfg: Config) -> None:
        self._rollouts, self._rewards = rollouts, rewards
        self._rollout_timeout_s, self._reward_timeout_s = cfg.rollout.timeout_s, cfg.reward.timeout_s
        self._calls: dict[Any, _Call] = {}
        self._load = {group.role: [0] * len(group) for group in (rollouts, rewards)}
        self._count = 0

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Any:
        call = self._next(self._rollouts, what=f"generate {problem.id}", seconds=self._rollout_timeout_s)
        self._count += 1
        ref = call.group.handles[call.index].generate.remote(
            request_id=f"{self._count}", prompt_ids_T=problem.prompt_ids_T, seeds=list(seeds), sampling=sampling
        )
        self._calls[ref] = call
        return ref

    def score(self, problem: Problem, completions: Any, context: RewardContext) -> Any:
        # A score waits for its replies first, so its time starts where theirs must have ended.
        seconds = self._rollout_timeout_s + self._reward_timeout_s
        call = self._next(self._rewards, what=f"score {problem.id}", seconds=seconds)
        ref = call.group.handles[call.index].score.remote(problem, completions, context)
        self._calls[ref] = call
        return ref

    def wait(self, refs: Sequence[Any]) -> list[Any]:
        first = min(refs, key=lambda ref: self._calls[ref].deadline)
        seconds = self._calls[first].deadline - time.monotonic()
        ready, _ = ray.wait(list(refs), num_returns=1, timeout=max(0.0, seconds))
        if not ready:
            call = self._calls[first]
            late = sorted({c.name for ref in refs if (c := self._calls[ref]).group is call.group})
            raise WorkerLate(
                f"{call.name} did not finish '{call.what}' in time; unfinished calls on: {', '.join(late)}"
            )
        # The call above returns with the first; this one takes along what else has become ready.
        return ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]

    def result(self, ref: Any) -> Any:
        call = self._calls.pop(ref)
        self._load[call.group.role][call.index] -= 1
        return result_of(ref, name=call.name, what=call.what)

    def _next(self, group: ActorGroup, *, what: str, seconds: float) -> _Call:
        load = self._load[group.role]
        index = load.index(min(load))
        load[index] += 1
        return _Call(group=group, index=index, what=what, deadline=time.monotonic() + seconds)
