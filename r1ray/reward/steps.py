"""Reasoning steps reward (Open-R1): signs that a completion goes step by step, three of which are enough."""

import re

from r1ray.reward.base import ComponentScore, per_completion
from r1ray.types import Problem

STEP = re.compile(r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,")
"""As Open-R1 has it, where a number and a full stop count at the very beginning only."""
ENOUGH = 3


@per_completion
def reasoning_steps(problem: Problem, text: str) -> ComponentScore:
    """min(1, signs / 3)."""
    return ComponentScore(value=min(1.0, len(STEP.findall(text)) / ENOUGH))
