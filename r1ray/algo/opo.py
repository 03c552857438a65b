"""OPO, on-policy RL with the optimal reward baseline (Hao et al., arXiv 2505.23585).

    b     = sum_i T_i r_i / sum_i T_i                 over the G completions of one prompt; T_i tokens of completion i
    A_i   = r_i - b
    loss  = mean_i sum_t [ -A_i log pi(o_t) ]         one update per step: exactly on-policy, no KL, no entropy bonus

b minimises the variance of the gradient if the squared norm of a completion's gradient is proportional to its length.

Our deviations and choices:
- the surrogate is PPO's: its gradient in the one update of a step is that of the loss above;
- T_i counts the tokens trained on, so a masked completion, which has no gradient, is not in the baseline;
- there is no division by the deviation (`scale_by_std`, `std_over`, `std_ddof` and `adv_eps` are not read);
- a completion that is alone in its group has advantage 0, and the update is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.algo.base import State
from r1ray.algo.policy import PolicyGradient, groups_of, spread
from r1ray.algo.returns import length_weighted
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class Opo(PolicyGradient):
    """A completion is compared with the mean of its group, in which long completions count more."""

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """r - length-weighted group mean"""
        rewards_N, advantages_N = self.rewards(samples, state), np.zeros(len(samples))
        lengths_N = np.array([np.count_nonzero(sample.mask_T) for sample in samples])
        for members in groups_of(samples):
            advantages_N[members] = length_weighted(rewards_N[members].tolist(), lengths_N[members].tolist())
        return spread(samples, advantages_N)
