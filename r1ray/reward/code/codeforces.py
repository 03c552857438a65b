"""Codeforces scoring (Open-R1): all tests or nothing, the share of tests, or both.

pass_fail       1 if every test is passed, else 0
partial         share of tests passed
weighted_sum    pass_fail + 0.1 * partial
-1 without a program, -0.1 for one that does not compile
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.problem_tests import all_passed, program_score, share_passed
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Problem

NO_PROGRAM, NOT_COMPILED = -1.0, -0.1
PARTIAL_WEIGHT = 0.1
MODES: Mapping[str, Callable[[Sequence[Verdict]], float]] = {
    "pass_fail": all_passed,
    "partial": share_passed,
    "weighted_sum": lambda found: all_passed(found) + PARTIAL_WEIGHT * share_passed(found),
}


class CodeforcesArgs(Args):
    mode: Literal["pass_fail", "partial", "weighted_sum"] = "weighted_sum"


@per_completion
@arguments(CodeforcesArgs)
def codeforces(problem: Problem, text: str, args: CodeforcesArgs) -> ComponentScore:
    """Between -1 and 1.1; None for a problem without tests."""

    def score_fn(found: Sequence[Verdict]) -> float:
        return NOT_COMPILED if found[0].status == "compile_error" else MODES[args.mode](found)

    return program_score(problem, text, score_fn, no_program=NO_PROGRAM)
