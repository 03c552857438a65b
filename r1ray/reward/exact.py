"""Exact answers: the same text, apart from white space. `payload` is {"answers": [...]}."""

from r1ray.reward.base import ComponentScore, correct_or_incorrect
from r1ray.types import Problem


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 if the answer is one of the problem's, in the same upper and lower case, else 0."""
    correct = " ".join(answer.split()) in {" ".join(str(gold).split()) for gold in problem.payload["answers"]}
    return correct_or_incorrect(correct)
