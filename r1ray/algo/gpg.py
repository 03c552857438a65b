"""GPG, group policy gradient (Chu et al., arXiv 2504.02546: its objective and "accurate gradient estimation").

    A_i   = alpha (r_i - mean r) / F_norm                           F_norm = 1; with `scale_by_std` the group's deviation
    loss  = mean over tokens of -A_i log pi(o_t)                    no ratio, no clip, no KL, no reference, no critic
    alpha = B / (B - M)                                             B completions of the step, M of them in groups of equal rewards

alpha compensates for groups without a gradient. Paper and verl disagree on it: `alpha: paper` is the above, `alpha: verl` is B /
(number of completions whose reward is not 0). With
`drop_equal`, sampling continues until a share `min_share` of the step's groups has unequal rewards (0.6 in the paper's best row);
groups with equal rewards fill the remainder of the step.

Our choices: only usable completions count in B and M. If every group has equal rewards, every advantage is
exactly 0 and alpha does not matter. Several minibatches per step are off-policy without a correction; clip_low, clip_high and
`dual_clip` are not read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from r1ray import plugin
from r1ray.algo import ops
from r1ray.algo.base import LossInput, State
from r1ray.algo.policy import GroupArgs, PolicyGradient, groups_of, spread
from r1ray.mistakes import Finding
from r1ray.types import Floats, Sample

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class GpgArgs(GroupArgs):
    alpha: Literal["paper", "verl"] = "paper"

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        yield from super().check(view, key, owner)
        if owner.num_minibatches > 1:
            yield (
                f"algo.num_minibatches={owner.num_minibatches} with {owner.name}, which has no ratio: all but the first update "
                "of a step are off-policy and nothing corrects for it"
            )


@dataclass(frozen=True, kw_only=True)
class Gpg(PolicyGradient):
    """The plain policy gradient, with the group's mean as its baseline."""

    Args: ClassVar[type[plugin.Args]] = GpgArgs

    args: GpgArgs = GpgArgs()  # noqa: RUF009 - frozen

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """alpha (r - group mean)"""
        rewards_N, advantages_N = self.rewards(samples, state), np.zeros(len(samples))
        groups = groups_of(samples)
        for members in groups:
            advantages_N[members] = ops.normalise_group(
                rewards_N[members].tolist(),
                std_ddof=self.cfg.std_ddof,
                eps=self.cfg.adv_eps,
                scale_by_std=self.cfg.scale_by_std,
            )
        return spread(samples, self._alpha([rewards_N[members] for members in groups]) * advantages_N)

    def _alpha(self, groups: Sequence[NDArray[np.float64]]) -> float:
        counted = sum(len(rewards_G) for rewards_G in groups)
        if self.args.alpha == "paper":
            with_gradient = sum(len(rewards_G) for rewards_G in groups if np.ptp(rewards_G) > 0)
        else:
            with_gradient = sum(int(np.count_nonzero(rewards_G)) for rewards_G in groups)
        return counted / with_gradient if with_gradient else 1.0

    def _surrogate(self, row: LossInput) -> ops.Surrogate:
        """A log pi"""
        ratio_L = ops.ratio(row.logprobs_L.detach() - row.old_logprobs_L)
        return ops.Surrogate(
            objective_L=row.advantages_L * row.logprobs_L,
            ratio_L=ratio_L,
            clipped_L=row.mask_L.new_zeros(row.mask_L.shape),
        )
