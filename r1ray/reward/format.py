"""Format reward of R1-Zero (arXiv 2501.12948, 2.2.2): reasoning in think tags, then the answer in answer tags, nothing else.

Stricter than the public regular expressions, which accept a doubled `<think>` and text after `</answer>`.
"""

import re

from r1ray.reward.base import PartScore, per_completion
from r1ray.types import Problem

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
LAYOUT = re.compile(r"\s*<think>(.*)</think>\s*<answer>.*</answer>\s*", re.DOTALL)


@per_completion
def format_reward(problem: Problem, text: str) -> PartScore:
    """1 if every tag stands exactly once, in order, with some reasoning and nothing but space around the two blocks; else 0."""
    once = all(text.count(tag) == 1 for tag in TAGS)
    match = LAYOUT.fullmatch(text) if once else None
    good = match is not None and bool(match[1].strip())
    return PartScore(value=float(good), status="ok" if good else "wrong_answer")
