"""Exact answers: the same text, but for space. `payload` is {"answers": [...]}."""

from r1ray.reward.base import ComponentScore, correct_or_incorrect
from r1ray.types import Problem


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 if the answer is one of the problem's, upper and lower case told apart, else 0."""
    correct = " ".join(answer.split()) in {" ".join(str(gold).split()) for gold in problem.payload["answers"]}
    return correct_or_incorrect(correct)
