"""What an algorithm is: a small pure object. It sees samples as numpy and one packed row as torch; it never sees an actor.

The trainer is blind to the algorithm: it runs `loss` on every row and sums weight * loss over tokens, rows and ranks. What
distinguishes GRPO's mean over sequences from DAPO's mean over tokens is in `weights` alone, which is computed once per optimiser
step over all ranks and micro-batches; so the update cannot depend on packing, micro-batching or sharding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from r1ray.roles import TrainerRole
from r1ray.types import Floats, Group, Sample

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["old_logprobs", "ref_logprobs", "old_values", "process_rewards"]
State = Mapping[str, Any]
"""Controllers that outlive a step (KL coefficient, pools, ...): JSON-able, saved with the checkpoint, replaced, never mutated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInput:
    """One packed row on the trainer's device; entries where mask_L is 0 are undefined and must not be read into a result."""

    logprobs_L: "Tensor"
    """Of the policy being updated, at the sample's temperature; carries gradient."""
    entropy_L: "Tensor"
    """Of the policy's distribution; carries gradient only where the algorithm says `needs_entropy_grad`."""
    old_logprobs_L: "Tensor"
    """The trainer's before the first update of the step (equal to detached logprobs_L in a strictly on-policy step)."""
    rollout_logprobs_L: "Tensor"
    ref_logprobs_L: "Tensor | None"
    advantages_L: "Tensor"
    mask_L: "Tensor"
    segment_L: "Tensor"
    pair_L: "Tensor"
    values_L: "Tensor | None" = None
    """Of the critic being updated, before each token; carries gradient. Then log-probs and entropy are 0."""
    old_values_L: "Tensor | None" = None
    """The critic's before the first update of the step."""
    returns_L: "Tensor | None" = None
    outcomes_L: "Tensor | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    terms: Mapping[str, "Tensor"]
    """{term: loss_L}; every term must have weights under the same name."""
    metrics: Mapping[str, "Tensor"]
    """{name: value_L}, averaged over all masked tokens of the update; a name ending in `/max` is reduced by maximum instead."""


class Objective(Protocol):
    """What a group of trainers learns by: the policy's by the algorithm itself, others' by what it names in `objectives`."""

    @property
    def needs_entropy_grad(self) -> bool:
        """Whether the loss is differentiated through the entropy, which costs the trainer a little."""
        ...

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        """One list per optimiser update of this pass; may be empty (no update)."""
        ...

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        """For each sample of one optimiser update {term: weight_T}."""
        ...

    def loss(self, row: LossInput) -> LossOutput: ...


class AuxiliaryObjective(Objective, Protocol):
    """Of the critic or the process reward model."""

    @property
    def updates_per_step(self) -> int:
        """As many minibatches as a full pass has, for the learning rate's schedule."""
        ...


class Algorithm(Objective, Protocol):
    """The policy's objective (no minibatch: no new weight version), and everything around it."""

    @property
    def needs(self) -> frozenset[Need]: ...

    @property
    def objectives(self) -> Mapping[TrainerRole, AuxiliaryObjective]:
        """What other trainers learn by; there are no other trainers than these."""
        ...

    @property
    def frozen_steps(self) -> int:
        """First steps in which the policy makes no update, for the learning rate's schedule."""
        ...

    def initial_state(self) -> State: ...

    def keep(self, group: Group) -> bool:
        """Whether a group is trained on (dynamic sampling); metrics over all generated groups are taken before this."""
        ...

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """Pure; sees the whole step. Unusable samples get a zero mask."""
        ...

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State: ...
