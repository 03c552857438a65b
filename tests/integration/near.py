"""When two computations of one gradient count as the same; what unit and integration tests of shared rows ask."""

from collections.abc import Mapping

import numpy as np

EXACT = 1e-5
"""float32: ranks add in another order, which gave differences of 2e-6 at most."""
BF16 = 0.03
"""bfloat16 keeps 8 bits. Here most roundings of a shared row are those of the whole row, and differences are 0.0044 at most: each
rank's part of a gradient is rounded by up to 0.004 of itself before the parts are added. Other kernels may round the activations'
gradients elsewhere too. That gave 0.016 at most, measured with them scaled by 1.003; this is twice as much."""
CANCELLED = 3e-7
"""Of the norm of all gradients together: what rounding in float32 leaves where large terms add up to 0 (queries and keys of a
sequence of two tokens), 5e-8 at most, and 1.2e-7 with the oldest instruction set (ATEN_CPU_CAPABILITY=default)."""


def assert_near(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *, tolerance: float) -> None:
    """Every parameter's gradient to `tolerance` of its own norm, however small that is."""
    assert ours.keys() == theirs.keys()
    norms = {name: np.linalg.norm(grad) for name, grad in theirs.items()}
    rounding = CANCELLED * np.linalg.norm(list(norms.values()))
    for name, norm in norms.items():
        error = np.linalg.norm(ours[name] - theirs[name])
        assert error <= tolerance * norm + rounding, f"the gradient of {name}, of norm {norm}, is off by {error}"
