"""Something for a completion that gives an answer at all: TinyZero's 0.1 for an answer that is wrong or not even an equation (its
repository). With weight 0.1, beside an accuracy of weight 0.9, a right completion earns 1, a wrong one 0.1 and one without answer
0.
"""

from collections.abc import Sequence

from r1ray.reward.accuracy import answer_of
from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.types import Completion, Problem


def answered(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[ComponentScore]:
    """1 if a final answer can be read, as the problem's source says, else 0."""
    found_G = [answer_of(problem, completion) is not None for completion in completions_G]
    return [ComponentScore(value=float(found), status="ok" if found else "wrong_answer") for found in found_G]
