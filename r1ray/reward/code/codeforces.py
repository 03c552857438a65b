"""Codeforces scoring (Open-R1): every test or nothing, the share of tests, or both.

pass_fail       1 if every test is passed, else 0
partial         share of tests passed
weighted_sum    pass_fail + 0.1 * partial
-1 without a program, -0.1 for one that does not compile
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.reward.code.tested import all_passed, per_program, share_passed
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Completion, Problem

NO_PROGRAM, NOT_COMPILED = -1.0, -0.1
PARTIAL_WEIGHT = 0.1
MODES: Mapping[str, Callable[[Sequence[Verdict]], float]] = {
    "pass_fail": all_passed,
    "partial": share_passed,
    "weighted_sum": lambda found: all_passed(found) + PARTIAL_WEIGHT * share_passed(found),
}


def codeforces(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    mode: Literal["pass_fail", "partial", "weighted_sum"] = "weighted_sum",
) -> list[ComponentScore]:
    """Between -1 and 1.1; None for a problem without tests."""
    if mode not in MODES:
        raise ValueError(f"mode={mode} has to be one of {', '.join(MODES)}")
    if not problem.payload.get("tests"):
        return [ComponentScore(value=None)] * len(completions_G)

    def worth(found: Sequence[Verdict]) -> float:
        return NOT_COMPILED if found[0].status == "compile_error" else MODES[mode](found)

    return per_program(problem, completions_G, worth, no_program=NO_PROGRAM)
