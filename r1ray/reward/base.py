"""What a reward is: `score(problem, completions_G, context) -> ComponentScore_G`, pure; a helper lifts a per-completion function.

A component that does not apply to a problem returns value None with status "ok" for the whole group. A component that applies and
failed for a reason that is not the completion's (a judge, a sandbox, a model) returns value None with status "sandbox_error": the
sample becomes unusable, is retried elsewhere, then masked; it is never scored 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Protocol

from r1ray.types import Completion, Problem, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentScore:
    """One component's word on one completion. `correct` only where the component can tell (accuracy); None elsewhere."""

    value: float | None
    status: Status = "ok"
    correct: bool | None = None


def correct_or_incorrect(correct: bool) -> ComponentScore:
    """The score that a verifier gives an answer: 1 when it is correct, else 0."""
    return ComponentScore(value=float(correct), status="ok" if correct else "wrong_answer", correct=correct)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """What a reward may know besides the problem and the completions."""

    step: int
    seed: int
    """hash(run seed, problem id, epoch, attempt): for rewards that draw (a coin-flip control); completion k uses seed + k."""
    max_response_length: int
    correct_G: Sequence[bool | None] = ()
    """By the problem's accuracy component, for rewards that shape what it says; empty where there is no such component."""


class Reward(Protocol):
    def __call__(
        self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext
    ) -> list[ComponentScore]: ...


def response_text(problem: Problem, completion: Completion) -> str:
    """What rewards judge: the template's prefill + the text."""
    return problem.prefill + completion.text


def per_completion(score: Callable[[Problem, str], ComponentScore]) -> Reward:
    """Lift a function of (problem, completion text) to a group."""

    @wraps(score)
    def group_score(
        problem: Problem, completions_G: Sequence[Completion], context: RewardContext
    ) -> list[ComponentScore]:
        return [score(problem, response_text(problem, completion)) for completion in completions_G]

    return group_score
