"""Knights and knaves (Logic-RL, arXiv 2502.14768): the role of every person, each stated once. `payload` is {"answers": [text]}.

An answer is "(1) Ann is a knight (2) Bob is a knave"; only names and roles are compared.
"""

import re

from r1ray.reward.base import ComponentScore, correct_or_incorrect, per_completion
from r1ray.reward.format import fits_soft
from r1ray.reward.text import last_answer
from r1ray.types import Problem

ROLE = re.compile(r"\b(?:knight|knave)\b")
STATED = re.compile(r"(\w+) is an? (knight|knave)\b")
CORRECT, INCORRECT, UNREADABLE = 2.0, -1.5, -2.0


def roles(answer: str) -> dict[str, str] | None:
    """{name: role} in lower case; None unless every role in the text belongs to a name, and no name has two.

    Example: `roles("(1) Ann is a knight (2) Bob is a knave")` is {"ann": "knight", "bob": "knave"}.
    """
    answer = " ".join(answer.lower().split())
    stated = STATED.findall(answer)
    found = dict(stated)
    return found if found and len(found) == len(stated) == len(ROLE.findall(answer)) else None


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 if the answer has exactly the names and roles of the problem's answer, else 0."""
    found = roles(answer)
    correct = found is not None and found in [roles(gold) for gold in problem.payload["answers"]]
    return correct_or_incorrect(correct)


@per_completion
def logic_rl(problem: Problem, text: str) -> ComponentScore:
    """Format (1 or -1) plus answer (2, -1.5 if incorrect, -2 if it cannot be read or the format is bad): from -3 to 3."""
    answer = last_answer(text)
    if not fits_soft(text) or answer is None:
        return ComponentScore(value=-1.0 + UNREADABLE, status="wrong_answer", correct=False)
    if roles(answer) is None:
        return ComponentScore(value=1.0 + UNREADABLE, status="wrong_answer", correct=False)
    score = verify(problem, answer)
    return ComponentScore(
        value=1.0 + (CORRECT if score.correct else INCORRECT), status=score.status, correct=score.correct
    )
