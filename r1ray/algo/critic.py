"""The critic's objective: regression on returns, clipped as in PPO's code (arXiv 1707.06347; arXiv 2005.12729, table 1).

    loss = mean_t 1/2 max[ (V_t - R_t)^2, (clip(V_t, V_old,t - c, V_old,t + c) - R_t)^2 ]

Returns come from the algorithm (`Sample.returns_T`); V_old is the critic before the first update of the step. The mean is over all
tokens of an update whatever the policy's aggregation is, because this is a regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.algo import ops
from r1ray.algo.base import LossInput, LossOutput, State
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class CriticObjective:
    """`r1ray.algo.base.AuxiliaryObjective` with the one loss term `value`."""

    updates_per_step: int
    """Optimizer updates per step (Open-Reasoner-Zero: 12, with 1 of the policy)."""
    value_clip: float
    """c; 0: no clipping."""

    needs_entropy_grad = False

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        return ops.random_parts(samples, self.updates_per_step, rng)

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        masks = [sample.mask_T for sample in samples]
        return [{"value": w_T} for w_T in ops.aggregation_weights(masks, aggregation="token_mean", max_length=1)]

    def loss(self, row: LossInput) -> LossOutput:
        """Metrics: `value`, `return`, `error` (mean squared) and `value_clipped`."""
        assert row.values_L is not None and row.old_values_L is not None and row.returns_L is not None
        values_L, old_L = ops.masked(row.values_L, row.mask_L), ops.masked(row.old_values_L, row.mask_L)
        returns_L = ops.masked(row.returns_L, row.mask_L)
        error_L = (values_L - returns_L).square()
        loss_L, clipped_L = error_L, error_L.new_zeros(len(error_L))
        if self.value_clip:
            held_L = old_L + (values_L - old_L).clamp(-self.value_clip, self.value_clip)
            held_error_L = (held_L - returns_L).square()
            loss_L, clipped_L = error_L.maximum(held_error_L), (held_error_L > error_L).float()
        metrics = {
            "value": values_L.detach(),
            "return": returns_L,
            "error": error_L.detach(),
            "value_clipped": clipped_L,
        }
        return LossOutput(terms={"value": 0.5 * loss_L}, metrics=metrics)
