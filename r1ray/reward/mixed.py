"""A penalty for completions that mix languages, or prose and code (SRPO, arXiv 2504.14286).

Neither SRPO's rule nor its weight is published; this one is ours: the words of the reasoning are counted as by `language`, and code
is a fenced block in a completion to a problem that asks for no program.
"""

from collections.abc import Sequence

from r1ray.reward.base import ComponentScore, RewardContext, response_text
from r1ray.reward.code.cases import OF_PROGRAMS
from r1ray.reward.language import share_of
from r1ray.types import Completion, Problem

FENCE = "```"


def mixed(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, *, max_foreign: float = 0.05
) -> list[ComponentScore]:
    """-1 when more than `max_foreign` of the words are of another language or there is code that nobody asked for, else 0."""
    if not 0 <= max_foreign < 1:
        raise ValueError(f"max_foreign={max_foreign} has to be from 0 to below 1: a share of the words")
    return [_penalty(problem, response_text(problem, completion), max_foreign) for completion in completions_G]


def _penalty(problem: Problem, text: str, max_foreign: float) -> ComponentScore:
    share = share_of(problem, text)
    foreign = share is not None and share < 1 - max_foreign
    coded = FENCE in text and problem.verifier not in OF_PROGRAMS
    bad = foreign or coded
    return ComponentScore(value=-1.0 if bad else 0.0, status="wrong_answer" if bad else "ok")
