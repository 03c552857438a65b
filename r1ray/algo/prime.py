"""PRIME: process rewards from outcomes alone, arXiv 2502.01456 eq. 3, 5 and 6, and its code where the paper gives no detail.

    r_t = beta ( log pi_prm(y_t) - log pi_ref(y_t) )
    A_t = sum_s>=t [ c (r_s - leave-one-out of the completions' mean r)  +  1[s is the last] (outcome - leave-one-out of outcomes) ]

whitened over the tokens of the step; then PPO's clipped loss. As its code does (`prime_norm: batch_norm`), r is first divided by
the step's largest |sum_s>=t r_s|, so that process and outcome have similar size at any length. The process reward model is
trained on the same completions, after the policy (`r1ray.algo.implicit_prm`). It learns correctness, whereas the outcome in the
formula is the full reward. Where prm.path is null the model starts from the reference, so that its first rewards are 0; the
reference must not change (no refresh). Groups with a solve rate strictly between filter.min_solve_rate and filter.max_solve_rate
are kept. A group with one usable completion has no baseline: its advantages are 0 before whitening. A completion that is masked
because it was truncated stays in the baseline of outcomes, but not in that of process rewards, because it has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from r1ray import plugin
from r1ray.algo.base import AuxiliaryObjective, Need, State
from r1ray.algo.implicit_prm import ImplicitPrmObjective
from r1ray.algo.policy import GroupArgs, PolicyGradient, groups_of, reward_of
from r1ray.algo.returns import leave_one_out, reward_to_go, token_leave_one_out, whiten
from r1ray.config.base import NonNegativeFloat, PositiveFloat, PositiveInt
from r1ray.mistakes import Finding
from r1ray.roles import TrainerRole
from r1ray.types import Floats, Sample

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class PrimeArgs(GroupArgs):
    beta: PositiveFloat = 0.05
    process_coef: NonNegativeFloat = 1.0
    """c: the weight of process rewards; the weight of outcomes is 1."""
    process_norm: Literal["batch", "none"] = "batch"
    """batch: process rewards are divided by the largest |r_t + r_t+1 + ...| in the step, as above; none: they are not."""
    prm_updates: PositiveInt = 1
    """Optimizer updates of the process reward model per step."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        yield from super().check(view, key, owner)
        if owner.reference_refresh_updates:
            where, rule = (
                "algo.reference_refresh_updates",
                "process rewards are relative to the reference, which must not change",
            )
            yield view.mistake(where, rule, f"{where}=0")


@dataclass(frozen=True, kw_only=True)
class Prime(PolicyGradient):
    """A completion is compared with the others of its prompt, token by token."""

    Args: ClassVar[type[plugin.Args]] = PrimeArgs

    args: PrimeArgs = PrimeArgs()  # noqa: RUF009 - frozen

    @property
    def needs(self) -> frozenset[Need]:
        own: set[Need] = {"process_rewards", "ref_logprobs"}
        return super().needs | own

    @property
    def objectives(self) -> Mapping[TrainerRole, AuxiliaryObjective]:
        return {"prm": ImplicitPrmObjective(beta=self.args.beta, updates_per_step=self.args.prm_updates)}

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """With outcomes_T, which the process reward model learns: 1 for a correct completion, 0 for an incorrect one."""
        return [
            replace(sample, outcomes_T=_outcome(sample) * sample.mask_T)
            for sample in super().advantages(samples, state)
        ]

    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """Both rewards minus those of the others, summed from each token to the end and whitened over the step's tokens."""
        masks = [sample.mask_T for sample in samples]
        outcomes_N = self.rewards(samples, state)
        process: list[Floats] = [np.zeros_like(mask_T) for mask_T in masks]
        rewards = self._process_rewards(samples)
        for members in groups_of(samples):
            outcomes_N[members] = leave_one_out(outcomes_N[members].tolist())
            found = token_leave_one_out([rewards[i] for i in members], [masks[i] for i in members])
            for i, reward_T in zip(members, found, strict=True):
                process[i] = reward_T
        totals: list[Floats] = []
        for reward_T, mask_T, outcome in zip(process, masks, outcomes_N, strict=True):
            process_T = reward_to_go(reward_T, mask_T, gamma=1.0)
            totals.append((self.args.process_coef * process_T + outcome * mask_T).astype(np.float32))
        return whiten(totals, masks, ddof=self.cfg.std_ddof, eps=self.cfg.adv_eps)

    def _process_rewards(self, samples: Sequence[Sample]) -> list[Floats]:
        found: list[Floats] = []
        for sample in samples:
            assert sample.process_rewards_T is not None, "PRIME needs a process reward model"
            found.append(np.float32(self.args.beta) * sample.process_rewards_T * sample.mask_T)
        if self.args.process_norm == "none":
            return found
        sums = [reward_to_go(r_T, sample.mask_T, gamma=1.0) for r_T, sample in zip(found, samples, strict=True)]
        largest = max((float(np.abs(sum_T).max(initial=0.0)) for sum_T in sums), default=0.0)
        return [reward_T / np.float32(largest or 1.0) for reward_T in found]


def _outcome(sample: Sample) -> np.float32:
    """1 for a correct completion, else 0; where correctness is unknown, 1 for a positive reward."""
    correct = sample.score.correct if sample.score else None
    return np.float32(reward_of(sample) > 0 if correct is None else correct)
