"""REINFORCE++ (Hu, arXiv 2501.03262), without and with a group baseline, and Logic-RL's setting of it (arXiv 2502.14768).

    r_t   = [t is the last] r_i - beta log( pi_old(o_t) / pi_ref(o_t) )
    G_t   = r_t + gamma G_{t+1}
    A_t   = (G_t - mean) / sqrt(var + eps)              over all tokens of the step
    loss  = mean over tokens of -min(rho A_t, clip(rho, 1 - 0.2, 1 + 0.2) A_t)

The baseline variant subtracts the group's mean from r_i first, so that a completion is compared with the others of its problem.

Our choices: `std_ddof` and `adv_eps` set how the variance is computed (verl: 1 and 1e-8; OpenRLHF: population variance with a
floor of 1e-8).
Logic-RL has the KL as a k3 term of the loss: `kl_in: loss` (conf/algo/logic_rl.yaml); OpenRLHF's script of the baseline variant
as a k2 term. Where all returns are equal (all rewards equal, or one completion left, without KL in the reward) every advantage is
exactly 0 and the update is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from r1ray import plugin
from r1ray.algo import ops
from r1ray.algo.base import State
from r1ray.algo.policy import GroupArgs, PolicyGradient, groups_of, reward_of
from r1ray.algo.returns import reward_to_go, whiten
from r1ray.config.base import Fraction
from r1ray.types import Floats, Sample


class ReinforceArgs(plugin.Args):
    gamma: Fraction = 1.0
    """Discount of a token's return; 1 in every recipe."""


class ReinforceBaselineArgs(GroupArgs, ReinforceArgs):
    """With the mean of the group as the baseline."""


@dataclass(frozen=True, kw_only=True)
class ReinforcePP(PolicyGradient):
    """A token is compared with all tokens of the step."""

    Args: ClassVar[type[plugin.Args]] = ReinforceArgs

    args: ReinforceArgs = ReinforceArgs()  # noqa: RUF009 - frozen

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """reward-to-go, whitened over the step's tokens"""
        masks = [sample.mask_T for sample in samples]
        rewards = self.token_rewards(samples, state, self._outcomes(samples))
        returns = [reward_to_go(r_T, mask_T, gamma=self.args.gamma) for r_T, mask_T in zip(rewards, masks, strict=True)]
        return whiten(returns, masks, ddof=self.cfg.std_ddof, eps=self.cfg.adv_eps)

    def _outcomes(self, samples: Sequence[Sample]) -> list[float]:
        return [reward_of(sample) for sample in samples]


@dataclass(frozen=True, kw_only=True)
class ReinforcePPBaseline(ReinforcePP):
    """The group mean is subtracted from the outcome before a token is compared with all tokens of the step."""

    Args: ClassVar[type[plugin.Args]] = ReinforceBaselineArgs

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """reward-to-go of r - group mean, whitened over the step's tokens"""
        return super()._advantages(samples, state)

    def _outcomes(self, samples: Sequence[Sample]) -> list[float]:
        outcomes_N = np.array(super()._outcomes(samples), np.float64)
        for members in groups_of(samples):
            outcomes_N[members] = ops.normalise_group(
                outcomes_N[members].tolist(), std_ddof=self.cfg.std_ddof, eps=0.0, scale_by_std=False
            )
        return outcomes_N.tolist()
