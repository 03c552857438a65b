"""PRIME: process rewards from outcomes alone, arXiv 2502.01456 eq. 3, 5 and 6, and its code where the paper is silent.

    r_t = beta ( log pi_prm(y_t) - log pi_ref(y_t) )
    A_t = sum_s>=t [ c (r_s - leave-one-out of the replies' mean r)  +  1[s is the last] (outcome - leave-one-out of outcomes) ]

whitened over the tokens of the step; then PPO's clipped loss. The process reward model is trained on the same replies, after the
policy (`r1ray.algo.implicit_prm`); it starts from the reference, so that its first rewards are 0. Problems are kept whose share of
correct replies lies strictly between keep_low and keep_high. A group of which one reply is usable has no other to compare with: its
advantages are 0 before whitening.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from r1ray.algo import returns
from r1ray.algo.base import Need, OtherLearner, State
from r1ray.algo.implicit_prm import ImplicitPrmLearner
from r1ray.algo.policy import PolicyGradient, groups_of, reward_of
from r1ray.trainers import TrainerRole
from r1ray.types import Floats, Sample


@dataclass(frozen=True, kw_only=True)
class Prime(PolicyGradient):
    """A reply is measured by the others to its problem, token by token."""

    beta: float
    process_coef: float
    """c."""
    whiten_ddof: int
    """1: by the sample's deviation (verl, PRIME's code)."""

    @property
    def needs(self) -> frozenset[Need]:
        return super().needs | {"process_rewards", "ref_logprobs"}

    @property
    def learners(self) -> Mapping[TrainerRole, OtherLearner]:
        return {"prm": ImplicitPrmLearner(beta=self.beta)}

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """With the outcome as returns_T, which the process reward model learns: 1 for a correct reply, 0 for another."""
        return [
            replace(sample, returns_T=_outcome(sample) * sample.mask_T) for sample in super().advantages(samples, state)
        ]

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        totals: list[Floats] = [np.zeros_like(sample.mask_T) for sample in samples]
        for members in groups_of(samples):
            process = [self._process_rewards(samples[i]) for i in members]
            masks = [samples[i].mask_T for i in members]
            outcomes = [reward_of(samples[i]) for i in members]
            for i, total_T in zip(
                members, returns.prime(process, outcomes, masks, coef=self.process_coef), strict=True
            ):
                totals[i] = total_T
        return returns.whiten(totals, [sample.mask_T for sample in samples], ddof=self.whiten_ddof)

    def _process_rewards(self, sample: Sample) -> Floats:
        assert sample.process_rewards_T is not None, "PRIME needs a process reward model"
        return np.float32(self.beta) * sample.process_rewards_T


def _outcome(sample: Sample) -> np.float32:
    """What the problem's accuracy says; where nothing says, whether it earned something."""
    correct = sample.score.correct if sample.score else None
    return np.float32(reward_of(sample) > 0 if correct is None else correct)
