"""GSPO, group sequence policy optimisation (Zheng et al., arXiv 2507.18071 eq. 5-7).

    s_i   = ( pi(o_i) / pi_old(o_i) )^(1 / T_i) = exp( mean_t log rho_t )          one ratio a completion, the geometric mean
    J_i   = min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i)                        A as GRPO's
    loss  = mean_i -J_i

A completion is clipped whole. All its tokens have the same J_i, so their mean, which `seq_mean_token_mean` takes first, is J_i
itself. With any other aggregation completions would weigh by their length. T_i counts the tokens trained on. No KL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from r1ray import plugin
from r1ray.algo import ops
from r1ray.algo.base import LossInput
from r1ray.algo.grpo import Grpo
from r1ray.algo.policy import GroupArgs
from r1ray.mistakes import Finding

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class GspoArgs(GroupArgs):
    """No arguments, but a note about the aggregation."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        yield from super().check(view, key, owner)
        if owner.aggregation != "seq_mean_token_mean":
            yield (
                f"algo.aggregation={owner.aggregation} with {owner.name}, whose loss is the same at every token of a completion: "
                "completions are weighted by their length (with seq_mean_token_mean equally, as in the paper)"
            )


@dataclass(frozen=True, kw_only=True)
class Gspo(Grpo):
    """GRPO with the ratio of the whole completion."""

    Args: ClassVar[type[plugin.Args]] = GspoArgs

    def _surrogate(self, row: LossInput) -> ops.Surrogate:
        """min(s A, clip(s, 1 - low, 1 + high) A), s the geometric mean of the completion's ratios"""
        lengths_L = ops.sums_of_sequences(row.mask_L, row.segment_L).clamp(min=1)
        log_ratio_L = ops.sums_of_sequences(row.logprobs_L - row.old_logprobs_L, row.segment_L) / lengths_L
        return ops.clipped_surrogate(
            ops.masked(log_ratio_L, row.mask_L),
            row.advantages_L,
            clip_low=self.cfg.clip_low,
            clip_high=self.cfg.clip_high,
            dual_clip=self.cfg.dual_clip,
        )
