"""Multiple choice: the letter of an option. `payload` is {"answers": ["B"]}."""

import re

from r1ray.reward.base import ComponentScore, correct_or_incorrect
from r1ray.reward.math.extract import final_answer
from r1ray.reward.math.typography import WRAPPER, normalise
from r1ray.types import Problem

MAX_LENGTH = 2000
OPTION = re.compile(
    r"\W*(?:(?:the\s+)?(?:option|choice|answer)\s+(?:is\s+)?|选项\s*)?\(?([A-Za-z])(?:\W*|[).:．。：](.*))",  # noqa: RUF001  Chinese punctuation
    re.IGNORECASE | re.DOTALL,
)
ANOTHER = re.compile(r"\W*(?:(?:or|and|或|和)\W*[A-Z](?![A-Za-z])|\([A-Z]\)|[A-Z][).])|[A-Z]$")
"""Text after the letter that names another option too: `(A) or (B)`, `A.B`. Such an answer has no letter."""


def chosen(text: str) -> str | None:
    """The letter in the final answer of a completion (`math.extract.final_answer`), alone or before the option's text.

    Example: `chosen("<think>2 > 1</think> <answer>(b) two</answer>")` is "B".
    """
    answer = final_answer(text)
    return None if answer is None else letter_of(answer)


def letter_of(answer: str) -> str | None:
    """Example: `letter_of("(b) two")` is "B"."""
    match = OPTION.fullmatch(WRAPPER.sub(r"\1", normalise(answer))) if len(answer) <= MAX_LENGTH else None
    return match[1].upper() if match and not ANOTHER.match(match[2] or "") else None


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 for the letter of a correct option, else 0."""
    letters = {str(letter).strip().upper() for letter in problem.payload["answers"]}
    return correct_or_incorrect(letter_of(answer) in letters)
