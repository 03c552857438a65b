"""CISPO, clipped importance-sampling weight (MiniMax-M1, arXiv 2506.13585 eq. 4-5).

    loss  = mean over tokens of -sg( clip(rho, 1 - low, 1 + high) ) A_i log pi(o_t)           sg: no gradient; A as GRPO's

The weight is clipped, not the update: a token far from the old policy keeps a gradient, where PPO's clip would remove it. The
paper has no lower bound and tunes only the upper one, without giving its value. Here clip_low 1 means no lower bound (a ratio is
positive), and clip_high 4 limits the weight to 1 + 4 = 5, as ScaleRL (arXiv 2510.13786) and TRL do. `dual_clip` is not read.
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
