"""Exact answers: the same text, but for space. `payload` is {"answers": [...]}."""

from r1ray.reward.base import PartScore, right_or_wrong
from r1ray.types import Problem


def judge(problem: Problem, answer: str) -> PartScore:
    """1 if the answer is one of the problem's, upper and lower case told apart, else 0."""
    right = " ".join(answer.split()) in {" ".join(str(gold).split()) for gold in problem.payload["answers"]}
    return right_or_wrong(right)
