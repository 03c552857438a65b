"""A penalty for completions that mix languages, or prose and code (SRPO, arXiv 2504.14286).

SRPO publishes neither its rule nor its weight; this rule is ours. The words of the reasoning are counted as by `language`, and code
is a fenced block in a completion to a problem that asks for no program.
"""

from typing import Annotated

from pydantic import Field

from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.cases import PROGRAM_VERIFIERS
from r1ray.reward.language import share_of
from r1ray.types import Problem

FENCE = "```"


class MixedArgs(Args):
    max_foreign: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The share of the words that may be of another language."""


@per_completion
@arguments(MixedArgs)
def mixed(problem: Problem, text: str, args: MixedArgs) -> ComponentScore:
    """-1 when more than `max_foreign` of the words are of another language, or there is code that was not asked for; else 0."""
    share = share_of(problem, text)
    foreign = share is not None and share < 1 - args.max_foreign
    coded = FENCE in text and problem.verifier not in PROGRAM_VERIFIERS
    bad = foreign or coded
    return ComponentScore(value=-1.0 if bad else 0.0, status="wrong_answer" if bad else "ok")
