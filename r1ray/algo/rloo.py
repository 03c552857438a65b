"""RLOO, REINFORCE with a leave-one-out baseline (Ahmadian et al., "Back to basics", arXiv 2402.14740; Kool et al. 2019).

    R_i   = r_i - beta sum_t log( pi_old(o_t) / pi_ref(o_t) )           the whole completion is one action
    A_i   = R_i - mean of R_j over the other completions j
    loss  = mean_i sum_t [ -A_i log pi(o_t) ]

Our deviations and choices:
- the surrogate is PPO's: its gradient at the first update is that of the loss above, and with more updates per step it is clipped;
- there is no division by the deviation (`scale_by_std`, `std_ddof` and `adv_eps` are not read);
- a completion that is alone in its group has no baseline: its advantage is 0, and the update is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.algo.base import State
from r1ray.algo.policy import PolicyGradient, groups_of, spread
from r1ray.algo.returns import leave_one_out
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class Rloo(PolicyGradient):
    """A completion is compared with the mean of the others."""

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """r - mean of the others"""
        rewards_N, advantages_N = self.rewards(samples, state), np.zeros(len(samples))
        for members in groups_of(samples):
            advantages_N[members] = leave_one_out(rewards_N[members].tolist())
        return spread(samples, advantages_N)
