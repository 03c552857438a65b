"""Supervised fine-tuning as an objective: the mean negative log-likelihood over completion tokens.

    loss = -1/T sum_t log pi(o_t | q, o_<t)          T counts the completion tokens of the whole update

The mean is over tokens, not over sequences: a sequence is weighted by its length, as is usual in SFT.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.algo import ops
from r1ray.algo.base import LossInput, LossOutput, Need, State
from r1ray.types import Floats, Group, Sample


@dataclass(frozen=True, kw_only=True)
class Sft:
    """`r1ray.algo.base.Algorithm` with the one loss term `nll`."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset()

    @property
    def needs_entropy_grad(self) -> bool:
        return False

    def initial_state(self) -> State:
        return {}

    def keep(self, group: Group) -> bool:
        return True

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        return list(samples)

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        return [list(samples)]

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        masks = [sample.mask_T for sample in samples]
        return [{"nll": w_T} for w_T in ops.aggregation_weights(masks, aggregation="token_mean", max_length=1)]

    def loss(self, row: LossInput) -> LossOutput:
        return LossOutput(terms={"nll": -ops.masked(row.logprobs_L, row.mask_L)}, metrics={"entropy": row.entropy_L})

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State:
        return state
