"""Times of day and ratios, which are both written with colons. A time is exact: 8:20 is not 4:10, though 8:20 is 4:10 as a ratio.

Two texts with two digits after each colon are times. One such text and another ratio are ratios, unless a ratio is not
written so: `7:05`, or `12:30` for 2:5 as a gold.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

TIME = re.compile(
    r"([0-9]{1,2}) ?: ?([0-5][0-9])(?: ?: ?([0-5][0-9]))?\s*(?:\\text\s*\{)?\s*(?:([apAP])\.? ?[mM]\.?)?\s*\}?\.?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """`9:30 p.m.` is Clock(parts=(9, 30, 0), half="p")."""

    parts: tuple[int, int, int]
    half: str


def clock(text: str) -> Clock | None:
    match = TIME.fullmatch(text)
    if not match:
        return None
    return Clock(parts=(int(match[1]), int(match[2]), int(match[3] or 0)), half=(match[4] or "").lower())


def same_clock(answer: Clock, gold: Clock) -> bool:
    """The half of the day may be missing; without one the gold is no time after noon."""
    return answer.parts == gold.parts and (answer.half in ("", gold.half) or (not gold.half and answer.half == "a"))


def is_surely_time(time: Clock | None, *, is_gold: bool) -> bool:
    if time is None:
        return False
    hours, minutes, _ = time.parts
    return bool(time.half) or minutes < 10 or (is_gold and gcd(hours, minutes) > 1)


def proportions(text: str) -> list[str]:
    """The ratios of neighbours: `1:2:3` is ["(1):(2)", "(2):(3)"]; [] for a text without a colon."""
    terms = [term.strip() for term in text.split(":")]
    return [f"({a}):({b})" for a, b in pairwise(terms)]
