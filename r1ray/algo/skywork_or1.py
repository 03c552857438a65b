"""Skywork-OR1 (He et al., arXiv 2505.22312, and its public scripts): GRPO with adaptive entropy and without equal groups.

    A_i   = (r_i - mean r) / std r
    loss  = mean over tokens of [ -J_i,t - eta H_t ]           no KL
    eta   up by 1e-4 a step while the entropy is below 0.2, else down, in [0, 5e-3]; the bonus is on only below the target

Groups whose rewards are all equal are removed and NOT replaced: the update is smaller. They are removed here, after sampling,
and not by the group filter, which refills. Their tokens are masked, so they count in no denominator and no entropy; a
step with only such groups makes no update.

Our deviations: the coefficient of a step follows the entropy of the step before; a batch need not be a multiple of the ranks. The
scripts' KL in the reward has no effect, because they start no reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from r1ray.algo.base import State
from r1ray.algo.grpo import Grpo
from r1ray.algo.policy import groups_of, reward_of
from r1ray.types import Sample


@dataclass(frozen=True, kw_only=True)
class SkyworkOr1(Grpo):
    """GRPO over the groups whose rewards differ."""

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """equal groups removed, no refill"""
        out = super().advantages(samples, state)
        for members in groups_of(samples):
            if len({reward_of(samples[i]) for i in members}) == 1:
                for i in members:
                    out[i] = replace(out[i], mask_T=np.zeros_like(out[i].mask_T))
        return out
