"""CISPO, clipped importance-sampling weight (MiniMax-M1, arXiv 2506.13585 eq. 4-5).

    loss  = mean over tokens of -sg( clip(rho, 1 - low, 1 + high) ) A_i log pi(o_t)           sg: no gradient; A as GRPO's

The weight is clipped, not the update: a token far from the old policy keeps a gradient, where PPO's clip would remove it. The
paper has no lower bound and tunes only the upper one, without giving its value: clip_low 1 is no bound (a ratio is positive),
clip_high 4 is the weight of at most 5 that ScaleRL (arXiv 2510.13786) and TRL use. `dual_clip` is not read.
"""

from dataclasses import dataclass

from r1ray.algo import ops
from r1ray.algo.base import LossInput
from r1ray.algo.grpo import Grpo


@dataclass(frozen=True, kw_only=True)
class Cispo(Grpo):
    """GRPO with a clipped weight instead of a clipped objective."""

    def _surrogate(self, row: LossInput) -> ops.Surrogate:
        """sg(clip(r, 1 - low, 1 + high)) A log pi"""
        ratio_L = ops.ratio(row.logprobs_L.detach() - row.old_logprobs_L)
        weight_L = ratio_L.clamp(1 - self.cfg.clip_low, 1 + self.cfg.clip_high)
        return ops.Surrogate(
            objective_L=weight_L * row.advantages_L * row.logprobs_L,
            ratio_L=ratio_L,
            clipped_L=(weight_L != ratio_L).to(ratio_L.dtype),
        )
