"""VAPO: arXiv 2504.05118. VC-PPO's decoupled GAE and initially frozen policy, and:

    lambda_i = 1 - 1 / (alpha l_i)                                    l_i tokens of the completion (eq. 8); 0 where that is negative
    loss     = PPO, token mean, clip 0.2 / 0.28  +  mu NLL            NLL: mean over the tokens of correct completions (eq. 11)

Our choices: lambda is held at 0 for completions of fewer than 1 / alpha tokens (20 at alpha = 0.05), for which the formula is
negative; in a step without a correct completion the NLL term has weight 0. Correctness is the problem's accuracy, never the
reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from r1ray import plugin
from r1ray.algo import ops
from r1ray.algo.base import LossInput, LossOutput, State
from r1ray.algo.ppo import CriticArgs, Ppo
from r1ray.algo.returns import vapo_lambda
from r1ray.config.base import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from r1ray.types import Floats, Sample


class VapoArgs(CriticArgs):
    critic_updates: PositiveInt = 16
    policy_frozen_steps: NonNegativeInt = 50
    alpha: PositiveFloat = 0.05
    """Of the length-adaptive lambda."""
    imitation_coef: NonNegativeFloat = 0.1
    """mu."""


@dataclass(frozen=True, kw_only=True)
class Vapo(Ppo):
    """PPO with a second loss term, `imitation`, whose weights include mu."""

    Args: ClassVar[type[plugin.Args]] = VapoArgs

    args: VapoArgs = VapoArgs()  # noqa: RUF009 - frozen

    def policy_lambda(self, sample: Sample) -> float:
        return vapo_lambda(max(1, int(sample.mask_T.sum())), alpha=self.args.alpha)

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        right = [sample.score is not None and sample.score.correct is True for sample in samples]
        tokens = sum(float(sample.mask_T.sum()) for sample, correct in zip(samples, right, strict=True) if correct)
        scale = np.float32(self.args.imitation_coef / tokens if tokens else 0.0)
        weights = super().weights(samples, state)
        return [
            {**terms, "imitation": scale * correct * sample.mask_T}
            for terms, sample, correct in zip(weights, samples, right, strict=True)
        ]

    def loss(self, row: LossInput) -> LossOutput:
        out = super().loss(row)
        return replace(out, terms={**out.terms, "imitation": -ops.masked(row.logprobs_L, row.mask_L)})
