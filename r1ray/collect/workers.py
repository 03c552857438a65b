"""The rollout and reward workers as the collector and the evaluator see them; `r1ray.actors.workers.RayWorkers` implements them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from r1ray.engine.base import SamplingSpec
from r1ray.reward.base import RewardContext
from r1ray.types import Problem

Ref = Any
"""A pending result: a call on a Ray actor in a run, any hashable value in a test."""


class Workers(Protocol):
    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Ref:
        """Sample one completion per seed; the result is a tuple of Completion."""
        ...

    def score(
        self, problem: Problem, completions: Ref, context: RewardContext, *, avoid_worker_of: Ref | None = None
    ) -> Ref:
        """Score the completions of a `generate`, finished or not; the result is a tuple of Score.

        Args:
            avoid_worker_of: an earlier scoring that failed; its worker is avoided if there is another one.
        """
        ...

    def wait(self, refs: Sequence[Ref], *, until: Callable[[], bool] = ...) -> Sequence[Ref]:
        """Block until at least one of `refs` is ready and return those that are; return none as soon as `until()` is true.

        Raises an error that names the worker which timed out.
        """
        ...

    def result(self, ref: Ref) -> Any:
        """The result of a ref that is ready; raises an error that names the worker which failed."""
        ...

    def sleep(self) -> None:
        """Nothing is generated until the next `generate`: engines may free their memory (rollout.sleep)."""
        ...
