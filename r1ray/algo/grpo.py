"""GRPO as DeepSeek-R1 uses it: DeepSeekMath, arXiv 2402.03300 eq. 3-4; DeepSeek-R1, arXiv 2501.12948 eq. 1-3.

    A_i     = (r_i - mean r) / std r                                     over the G completions of one prompt
    J_i,t   = min(rho A_i, clip(rho, 1 - low, 1 + high) A_i)             rho = pi(o_t) / pi_old(o_t)
    loss    = mean_i mean_t [ -J_i,t + beta k3(pi || pi_ref) ]

Our deviations and choices:
- the ratio is per token, as in all public code (R1's equation writes it per output);
- std_ddof, adv_eps, scale_by_std, std_over, clip_low, clip_high, dual_clip, the KL estimator and the aggregation are configurable:
  papers and code disagree on each (defaults and sources: conf/algo/grpo.yaml);
- pi_old is the trainer's policy before the first update of the pass, not the engine's log-probs, which are compared
  with it in `mismatch/kl` and `mismatch/logprob_gap/max`;
- an unusable completion is masked and is not in the baseline; one that is masked for being truncated stays in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1ray.algo import ops
from r1ray.algo.base import State
from r1ray.algo.policy import PolicyGradient, groups_of, spread
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class Grpo(PolicyGradient):
    """A completion is compared with the other completions of its prompt."""

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """(r - group mean) / group std"""
        rewards_N, advantages_N = self.rewards(samples, state), np.zeros(len(samples))
        groups = groups_of(samples)
        std = self._batch_std(rewards_N[[i for members in groups for i in members]])
        for members in groups:
            advantages_N[members] = ops.normalise_group(
                rewards_N[members].tolist(),
                std_ddof=self.cfg.std_ddof,
                eps=self.cfg.adv_eps,
                scale_by_std=self.cfg.scale_by_std,
                std=std,
            )
        return spread(samples, advantages_N)

    def _batch_std(self, rewards_N: NDArray[np.float64]) -> float | None:
        """The deviation of the step's usable rewards; None where each group is divided by its own."""
        if self.cfg.std_over == "group" or len(rewards_N) < 2:
            return None
        return float(rewards_N.std(ddof=self.cfg.std_ddof))
