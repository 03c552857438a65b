"""Repetition penalty (Demystifying Long CoT, arXiv 2502.03373, 4.3; the form is Open-R1's): the share of n-grams that are not new.

    (1 - different n-grams / n-grams) * max_penalty

Counted over token ids, as TRL does, or over words: what stands between spaces, in lower case, and every Chinese character, kana or
syllable by itself (Open-R1 segments Chinese with a dictionary and refuses other languages).
"""

import re
from collections.abc import Hashable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from r1ray.config.base import PositiveInt
from r1ray.plugin import Args, arguments
from r1ray.reward.base import RewardContext, response_text
from r1ray.reward.text import IDEOGRAPHS
from r1ray.types import Completion, Problem

WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]+")


class RepetitionArgs(Args):
    n: PositiveInt = 3
    """Units in an n-gram."""
    max_penalty: Annotated[float, Field(le=0)] = -1.0
    of: Literal["tokens", "words"] = "tokens"


@arguments(RepetitionArgs)
def repetition(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, args: RepetitionArgs
) -> list[float]:
    """Between max_penalty and 0; 0 for a completion of fewer than n units."""
    units_G = [
        completion.token_ids_T.tolist() if args.of == "tokens" else words(response_text(problem, completion))
        for completion in completions_G
    ]
    return [penalty(units, n=args.n, max_penalty=args.max_penalty) for units in units_G]


def penalty(units: Sequence[Hashable], *, n: int, max_penalty: float) -> float:
    """Example: of 5 times the same unit, `n=2`, all 4 pairs are one: three quarters of max_penalty."""
    total = len(units) - n + 1
    if total < 1:
        return 0.0
    different = len({tuple(units[start : start + n]) for start in range(total)})
    return (1 - different / total) * max_penalty


def words(text: str) -> list[str]:
    """Example: `words("We add 我们加")` is ["we", "add", "我", "们", "加"]."""
    return WORD.findall(text.lower())
