"""Reasoning steps reward (Open-R1): how many markers of step-by-step reasoning a completion has; three earn the full reward."""

import re

from r1ray.reward.base import ComponentScore, per_completion
from r1ray.types import Problem

STEP = re.compile(r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,")
"""Open-R1's pattern, in which a number and a full stop count at the very beginning only."""
ENOUGH = 3


@per_completion
def reasoning_steps(problem: Problem, text: str) -> ComponentScore:
    """min(1, markers / 3)."""
    return ComponentScore(value=min(1.0, len(STEP.findall(text)) / ENOUGH))
