"""MiMo's easy pool (arXiv 2505.07608, 3.3): solved problems leave the stream, but are still drawn now and then.

A problem whose completions were all correct moves to the pool, and the stream skips it; each draw comes from the pool with
probability 0.1. So nearly all completions are spent on unsolved problems, and the model does not forget the solved ones. A problem
of the pool whose completions are no longer all correct moves back to the stream. When every problem is in the pool, all draws come
from it.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1ray.config.base import Fraction
from r1ray.data.curriculum.base import Curriculum
from r1ray.data.stream import ProblemStream
from r1ray.plugin import Args
from r1ray.types import Group, Problem


class EasyPoolArgs(Args):
    probability: Fraction = 0.1
    """Of a draw from the pool, once it has problems."""


class EasyPool(Curriculum):
    """Metrics: `curriculum/pool_size`, problems in the pool; `curriculum/pool_draws`, groups of this step that came from it."""

    name = "easy_pool"
    Args = EasyPoolArgs

    def __init__(self, stream: ProblemStream, args: EasyPoolArgs) -> None:
        super().__init__(stream, args)
        self._probability = args.probability
        self._pool: dict[str, None] = {}
        """Ids, in the order in which they were added."""
        self._drawn: dict[str, int] = {}
        """{id: how often it was drawn from the pool}; the epochs of these draws are -1, -2, ..."""

    def draw(self, number: int) -> tuple[Problem, int]:
        # Seeded by the draw's number alone, so that no generator state has to be saved.
        rng = np.random.default_rng((self.stream.seed, zlib.crc32(b"easy_pool"), number))
        from_pool = rng.random() < self._probability or len(self._pool) == len(self.problems)
        if not self._pool or not from_pool:
            return self.skip(lambda problem: problem.id in self._pool)
        name = list(self._pool)[rng.integers(len(self._pool))]
        self._drawn[name] = self._drawn.get(name, 0) + 1
        return self.problems[name], -self._drawn[name]

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        for group in groups:
            if group.solve_rate == 1:
                self._pool[group.problem.id] = None
            elif group.solve_rate is not None:
                self._pool.pop(group.problem.id, None)
        from_pool = sum(group.epoch < 0 for group in groups)
        return {"curriculum/pool_size": float(len(self._pool)), "curriculum/pool_draws": float(from_pool)}

    def get_state(self) -> dict[str, Any]:
        return {"pool": list(self._pool), "drawn": dict(self._drawn)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._pool = dict.fromkeys(state.get("pool", ()))
        self._drawn = dict(state.get("drawn", {}))
