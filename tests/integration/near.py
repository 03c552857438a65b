"""When two computations of one gradient count as equal, for unit and integration tests of shared rows."""

from collections.abc import Mapping

import numpy as np

EXACT = 1e-5
"""float32: ranks add in another order, which gives differences of at most 2e-6."""
BF16 = 0.03
"""bfloat16 keeps 8 bits. Here most roundings of a shared row equal those of the whole row, and differences are at most 0.0044: each
rank's summand of a gradient is rounded by up to 0.004 of its value before the summands are added. Other kernels may also round the
gradients of activations at other points. That gave at most 0.016, measured with these gradients scaled by 1.003; the tolerance is
twice as much."""
CANCELLED = 3e-7
"""Relative to the norm of all gradients together: what rounding in float32 leaves where large terms cancel (queries and keys of a
sequence of two tokens), at most 5e-8, and 1.2e-7 with the oldest instruction set (ATEN_CPU_CAPABILITY=default)."""


def assert_near(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *, tolerance: float) -> None:
    """Compare the gradient of every parameter to within `tolerance` of its own norm, however small that is."""
    assert ours.keys() == theirs.keys()
    norms = {name: np.linalg.norm(grad) for name, grad in theirs.items()}
    rounding = CANCELLED * np.linalg.norm(list(norms.values()))
    for name, norm in norms.items():
        error = np.linalg.norm(ours[name] - theirs[name])
        assert error <= tolerance * norm + rounding, f"the gradient of {name}, of norm {norm}, is off by {error}"
