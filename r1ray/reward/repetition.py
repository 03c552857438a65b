"""Repetition penalty (Demystifying Long CoT, arXiv 2502.03373, 4.3; the form is Open-R1's): the share of n-grams that are not new.

    (1 - different n-grams / n-grams) * max_penalty

Counted over token ids, as TRL does, or over words: what stands between spaces, in lower case, and every Chinese character, kana or
syllable by itself (Open-R1 segments Chinese with a dictionary and refuses other languages).
"""

import re
from collections.abc import Hashable, Sequence
from typing import Literal

from r1ray.reward.base import RewardContext, response_text
from r1ray.reward.text import IDEOGRAPHS
from r1ray.types import Completion, Problem

WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]+")


def repetition(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    n: int = 3,
    max_penalty: float = -1.0,
    of: Literal["tokens", "words"] = "tokens",
) -> list[float]:
    """Between max_penalty and 0; 0 for a completion of fewer than n units."""
    if max_penalty > 0 or n < 1 or of not in ("tokens", "words"):
        raise ValueError(f"max_penalty={max_penalty} must not be above 0, n={n} not below 1, of={of} tokens or words")
    return [
        penalty(
            completion.token_ids_T.tolist() if of == "tokens" else words(response_text(problem, completion)),
            n=n,
            max_penalty=max_penalty,
        )
        for completion in completions_G
    ]


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
