"""A reward for giving an answer at all: TinyZero's 0.1 for an answer that is incorrect or not even an equation (its repository).
With weight 0.1, next to an accuracy of weight 0.9, a correct completion earns 1, an incorrect one 0.1 and one without answer 0.
"""

from r1ray.reward.accuracy import answer_in
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.types import Problem


@per_completion
def answered(problem: Problem, text: str) -> ComponentScore:
    """1 if a final answer can be read, as the problem's source says, else 0."""
    found = answer_in(problem, text) is not None
    return ComponentScore(value=float(found), status="ok" if found else "wrong_answer")
