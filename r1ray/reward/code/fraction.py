"""The share of its tests that a program passes (Open-R1), of all or of the first few.

verl's rule for PRIME looks at ten. With a threshold it is 1 above and 0 up to it; Open-R1's binary reward has 0.99.
Open-R1's own lets a program pass that prints fewer lines than expected; here as many have to be there.
"""

from collections.abc import Sequence

from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.reward.code.tested import per_program, share_passed
from r1ray.types import Completion, Problem


def code_fraction(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    num_tests: int | None = None,
    threshold: float | None = None,
) -> list[ComponentScore]:
    """Between 0 and 1; 0 without a program; None for a problem without tests. Correct if all of these tests are passed."""
    if (num_tests is not None and num_tests < 1) or (threshold is not None and not 0 <= threshold < 1):
        raise ValueError(f"num_tests={num_tests} has to be at least 1, threshold={threshold} from 0 to below 1")
    if not problem.payload.get("tests"):
        return [ComponentScore(value=None)] * len(completions_G)
    return per_program(
        problem, completions_G, lambda found: cut(share_passed(found), threshold=threshold), num_tests=num_tests
    )


def cut(share: float, *, threshold: float | None) -> float:
    """Example: `cut(0.75, threshold=0.99)` is 0.0, `cut(0.75, threshold=None)` is 0.75."""
    return share if threshold is None else float(share > threshold)
