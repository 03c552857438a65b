"""What a reward is: `score(problem, completions_G, context) -> PartScore_G`, pure; a helper lifts a per-completion function.

A part that does not apply to a problem returns value None with status "ok" for the whole group. A part that applies and failed for
a reason that is not the reply's (a judge, a sandbox, a model) returns value None with status "sandbox_error": the sample becomes
unusable, is retried elsewhere, then masked; it is never scored 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Protocol

from r1ray.types import Completion, Problem, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PartScore:
    """One part's word on one completion. `correct` only where the part can tell (accuracy); None elsewhere."""

    value: float | None
    status: Status = "ok"
    correct: bool | None = None


def right_or_wrong(right: bool) -> PartScore:
    """1 and correct, or 0 and wrong: what a verifier says of an answer."""
    return PartScore(value=float(right), status="ok" if right else "wrong_answer", correct=right)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """What a reward may know besides the problem and the replies."""

    step: int
    seed: int
    """hash(run seed, problem id, epoch, attempt): for rewards that draw (a coin-flip control); reply k uses seed + k."""
    max_response_length: int
    correct_G: Sequence[bool | None] = ()
    """By the problem's accuracy part, for rewards that shape what it says; empty where there is no such part."""


class Reward(Protocol):
    def __call__(
        self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext
    ) -> list[PartScore]: ...


def reply_text(problem: Problem, completion: Completion) -> str:
    """What rewards judge: the template's prefill + the text."""
    return problem.prefill + completion.text


def per_completion(score: Callable[[Problem, str], PartScore]) -> Reward:
    """Lift a function of (problem, reply text) to a group."""

    @wraps(score)
    def group_score(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[PartScore]:
        return [score(problem, reply_text(problem, completion)) for completion in completions_G]

    return group_score
