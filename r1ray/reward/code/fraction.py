"""The share of the tests that a program passes (Open-R1), of all or of the first few.

verl's rule for PRIME uses the first ten. With a threshold the reward is 1 above it and else 0; Open-R1's binary reward has 0.99.
Open-R1 accepts output with fewer lines than expected; here the number of lines must agree.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from r1ray.config.base import PositiveInt
from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.problem_tests import program_score, share_passed
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Problem


class FractionArgs(Args):
    num_tests: PositiveInt | None = None
    """Only the first so many; null: all."""
    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    """1 for a larger share and else 0; null: the share itself."""


@per_completion
@arguments(FractionArgs)
def code_fraction(problem: Problem, text: str, args: FractionArgs) -> ComponentScore:
    """Between 0 and 1; 0 without a program; None for a problem without tests. Correct if all of these tests are passed."""

    def score_fn(found: Sequence[Verdict]) -> float:
        return cut(share_passed(found), threshold=args.threshold)

    return program_score(problem, text, score_fn, num_tests=args.num_tests)


def cut(share: float, *, threshold: float | None) -> float:
    """Example: `cut(0.75, threshold=0.99)` is 0.0, `cut(0.75, threshold=None)` is 0.75."""
    return share if threshold is None else float(share > threshold)
