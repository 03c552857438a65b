"""Objective of PRIME's process reward model, which learns from outcomes alone: arXiv 2502.01456, eq. 3 and 5.

    r_t  = beta (log pi_prm(y_t | y_<t) - log pi_ref(y_t | y_<t))
    loss = mean_i CE( sigmoid( sum_t r_t ), outcome_i )

The outcome is `Sample.outcomes_T`, the same value on every token. The reference is the model from which the process reward model
started.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.algo import ops
from r1ray.algo.base import LossInput, LossOutput, State
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class ImplicitPrmObjective:
    """`r1ray.algo.base.AuxiliaryObjective` with the one loss term `outcome`."""

    beta: float
    updates_per_step: int

    needs_entropy_grad = False

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        return ops.random_parts(samples, self.updates_per_step, rng)

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        """The loss of a completion is on each of its tokens, so their mean is the loss."""
        masks = [sample.mask_T for sample in samples]
        found = ops.aggregation_weights(masks, aggregation="seq_mean_token_mean", max_length=1)
        return [{"outcome": w_T} for w_T in found]

    def loss(self, row: LossInput) -> LossOutput:
        """Metrics: `accuracy`, whether the sum has the outcome's sign."""
        assert row.ref_logprobs_L is not None and row.outcomes_L is not None
        ratio_L = ops.masked(row.logprobs_L - row.ref_logprobs_L, row.mask_L)
        logits_L = self.beta * ops.sums_of_sequences(ratio_L, row.segment_L)
        outcome_L = ops.masked(row.outcomes_L, row.mask_L)
        # log(1 + exp(x)) - outcome x, in a form that cannot overflow.
        loss_L = logits_L.clamp(min=0) - logits_L * outcome_L + (-logits_L.abs()).exp().log1p()
        right_L = ((logits_L.detach() > 0) == (outcome_L > 0.5)).float()
        return LossOutput(terms={"outcome": loss_L}, metrics={"accuracy": right_L})
