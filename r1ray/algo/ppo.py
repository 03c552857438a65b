"""PPO with a critic: arXiv 1707.06347 eq. 7 and 11, GAE arXiv 1506.02438 eq. 16; and its variants in R1's replications.

    delta_t = r_t + gamma V_t+1 - V_t
    A_t     = sum_l (gamma lambda)^l delta_t+l              the policy's, whitened over the tokens of the step
    R_t     = A_t + V_t                                     the critic's target, with its own lambda

- VC-PPO (arXiv 2503.01491): the critic's lambda is 1, the policy's 0.95 (decoupled GAE), and the policy is frozen for the first
  steps, while the critic learns the returns of a fixed policy (value pre-training): conf/algo/vc_ppo.yaml.
- Open-Reasoner-Zero (arXiv 2503.24290): gamma = lambda = 1, one update of the policy and 12 of the critic per step, whitened by the
  population deviation: conf/algo/orz.yaml.

The reward is on the last token of a completion; V after it is 0, also for a truncated completion. With `kl_in: reward` beta KL is
subtracted from each token's reward. Advantages are not 0 when all rewards of a step are equal, because the baseline is the critic's
value and not the group's mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from r1ray import plugin
from r1ray.algo.base import AuxiliaryObjective, Need, State
from r1ray.algo.critic import CriticObjective
from r1ray.algo.policy import PolicyGradient
from r1ray.algo.returns import gae, whiten
from r1ray.config.base import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from r1ray.mistakes import Finding
from r1ray.roles import TrainerRole
from r1ray.types import Floats, Sample

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class CriticArgs(plugin.Args):
    """What every algorithm with a critic takes."""

    gamma: Fraction = 1.0
    lam_critic: Fraction = 1.0
    """Lambda of the critic's targets."""
    critic_updates: PositiveInt = 1
    """Optimizer updates of the critic per step."""
    value_clip: NonNegativeFloat = 0.5
    """How far a value may move from the one before the step; 0: no limit."""
    policy_frozen_steps: NonNegativeInt = 0
    """First steps in which only the critic learns."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        if self.policy_frozen_steps >= view.steps:
            where, rule = f"{key}.policy_frozen_steps", f"the policy would be frozen in all of steps={view.steps}"
            remedy = f"{where}={view.steps // 4}, or more steps"
            yield view.mistake(where, rule, remedy)


class PpoArgs(CriticArgs):
    lam: Fraction = 1.0
    """Lambda of the policy's advantages."""


@dataclass(frozen=True, kw_only=True)
class Ppo(PolicyGradient):
    """State in addition to that of `PolicyGradient`: the number of `steps`, if the policy is frozen at first."""

    Args: ClassVar[type[plugin.Args]] = PpoArgs

    args: CriticArgs = PpoArgs()  # noqa: RUF009 - frozen

    @property
    def needs(self) -> frozenset[Need]:
        own: set[Need] = {"old_values"}
        return super().needs | own

    @property
    def objectives(self) -> Mapping[TrainerRole, AuxiliaryObjective]:
        return {"critic": CriticObjective(updates_per_step=self.args.critic_updates, value_clip=self.args.value_clip)}

    @property
    def frozen_steps(self) -> int:
        return self.args.policy_frozen_steps

    def initial_state(self) -> State:
        return {**super().initial_state(), **({"steps": 0} if self.args.policy_frozen_steps else {})}

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State:
        new = super().update_state(state, metrics)
        # A checkpoint from before the freezing was switched on has no count: its policy is not frozen.
        return {**new, "steps": state.get("steps", self.args.policy_frozen_steps) + 1} if "steps" in new else new

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        if state.get("steps", self.args.policy_frozen_steps) < self.args.policy_frozen_steps:
            return []
        return super().minibatches(samples, state, rng)

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """With the critic's targets as returns_T."""
        samples = super().advantages(samples, state)
        found = self._gae(samples, state, [self.args.lam_critic] * len(samples))
        return [
            replace(sample, returns_T=((advantage_T + _values(sample)) * sample.mask_T).astype(np.float32))
            for sample, advantage_T in zip(samples, found, strict=True)
        ]

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """GAE, whitened over all tokens that are trained on."""
        found = self._gae(samples, state, [self.policy_lambda(sample) for sample in samples])
        return whiten(found, [sample.mask_T for sample in samples], ddof=self.cfg.std_ddof, eps=self.cfg.adv_eps)

    def policy_lambda(self, sample: Sample) -> float:
        assert isinstance(self.args, PpoArgs)
        return self.args.lam

    def _gae(self, samples: Sequence[Sample], state: State, lambdas: Sequence[float]) -> list[Floats]:
        rewards = self.token_rewards(samples, state)
        return [
            gae(reward_T, _values(sample), sample.mask_T, gamma=self.args.gamma, lam=lam)
            for reward_T, sample, lam in zip(rewards, samples, lambdas, strict=True)
        ]


def _values(sample: Sample) -> Floats:
    assert sample.old_values_T is not None, f"sample {sample.group_id}[{sample.index}] reached PPO without values"
    return sample.old_values_T
