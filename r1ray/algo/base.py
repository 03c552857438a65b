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
"""Values that persist across steps (KL coefficient, ...): JSON-able, saved with the checkpoint, replaced, never mutated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInput:
    """One packed row on the trainer's device; entries where mask_L is 0 are undefined and must not be read into a result."""

    logprobs_L: "Tensor"
    """Of the policy being updated, at the sample's temperature; carries gradient."""
    entropy_L: "Tensor"
    """Of the policy's distribution; carries gradient only where `needs_entropy_grad` is true."""
    old_logprobs_L: "Tensor"
    """Log-probs of the policy before the first update of the step (equal to detached logprobs_L in a strictly on-policy step)."""
    rollout_logprobs_L: "Tensor"
    ref_logprobs_L: "Tensor | None"
    advantages_L: "Tensor"
    mask_L: "Tensor"
    segment_L: "Tensor"
    pair_L: "Tensor"
    values_L: "Tensor | None" = None
    """Values before each token, of the critic being updated; carries gradient. For a critic, log-probs and entropy are 0."""
    old_values_L: "Tensor | None" = None
    """Values of the critic before the first update of the step."""
    returns_L: "Tensor | None" = None
    outcomes_L: "Tensor | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    terms: Mapping[str, "Tensor"]
    """{term: loss_L}; every term must have weights under the same name."""
    metrics: Mapping[str, "Tensor"]
    """{name: value_L}, averaged over all tokens of the update with mask 1; a name ending in `/max`: their maximum."""


class Objective(Protocol):
    """The loss of a trainer group. The algorithm is the policy's objective; `Algorithm.objectives` has the others."""

    @property
    def needs_entropy_grad(self) -> bool:
        """Whether gradients flow through the entropy, which costs the trainer a little time."""
        ...

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        """One list of samples per optimizer update of this step; no list means no update."""
        ...

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        """For each sample of one optimizer update {loss term: weight_T}."""
        ...

    def loss(self, row: LossInput) -> LossOutput: ...


class AuxiliaryObjective(Objective, Protocol):
    """The objective of the critic or the process reward model."""

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates of a full step, for the learning-rate schedule."""
        ...


class Algorithm(Objective, Protocol):
    """The policy's objective, and how samples are selected and get their advantages. A step without minibatches pushes no
    weights.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    @property
    def objectives(self) -> Mapping[TrainerRole, AuxiliaryObjective]:
        """{role: objective} of the other trainers that the algorithm needs."""
        ...

    @property
    def frozen_steps(self) -> int:
        """Number of first steps without an update of the policy, for the learning-rate schedule."""
        ...

    def initial_state(self) -> State: ...

    def keep(self, group: Group) -> bool:
        """Whether a group is trained on (dynamic sampling). Metrics over generated groups include those that are dropped."""
        ...

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """The samples with `advantages_T`. Pure; gets the whole step. Unusable samples get a zero mask."""
        ...

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State: ...
