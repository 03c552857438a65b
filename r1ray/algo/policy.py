"""What all policy-gradient algorithms share. The file of each algorithm has what differs, mostly `_advantages`.

    loss = sum over tokens of  w_t ( -c_t J_t  +  beta KL_t  -  eta H_t )

    w     `algo.aggregation`: the denominators, over all samples of the update
    J     `_surrogate`: the clipped surrogate of PPO (arXiv 1707.06347 eq. 7) unless an algorithm has another
    c     `algo.importance_sampling` and `algo.rejection`: from the engine's policy to the trainer's, 1 unless asked for
          (`r1ray.algo.mismatch`)
    beta  `algo.kl_coef` with `kl_in: loss`; with `kl_in: reward` it is subtracted from the rewards of the tokens instead
    eta   `algo.entropy_coef`

With importance sampling, clipping is around the trainer's policy before the step, and the weight corrects from the engine's policy
to it: decoupled PPO (Hilton et al., arXiv 2110.00641; AReaL, arXiv 2505.24298). Both coefficients may follow a target
(`r1ray.algo.controllers`), measured in the previous step. (Skywork measures the entropy in the same step.)

Special cases, unless the algorithm's docstring has another rule:
    all rewards of a group equal    its advantages are exactly 0, unless KL is part of the rewards; its tokens still count in the
                                    denominators, and for KL and entropy
    no usable sample                no update, no new weight version
    one usable sample               an update with a finite loss; its advantage is that of `ops.normalise_group` for one value
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from r1ray import plugin
from r1ray.algo import mismatch, ops
from r1ray.algo.base import AuxiliaryObjective, LossInput, LossOutput, Need, State
from r1ray.algo.controllers import adapted_entropy_coef, adapted_kl_coef, entropy_bonus
from r1ray.config import AlgoConfig
from r1ray.mistakes import Finding
from r1ray.roles import TrainerRole
from r1ray.types import Floats, Group, Sample

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class GroupArgs(plugin.Args):
    """Arguments of an algorithm that compares a completion with the others of its prompt."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        if owner.group_size == 1 and not owner.filter.used:  # a filter is reported by the check of algo.filter
            yield view.mistake(
                "algo.group_size",
                f"{owner.name} compares the completions of one prompt with each other: at least 2",
                "algo.group_size=8 (R1: 16), or an algorithm that does not compare them: algo=reinforce_pp",
            )


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(ABC):
    """Implements `r1ray.algo.base.Algorithm`, except `_advantages`, which each algorithm adds.

    Loss terms: `policy`, and if they are used `kl` and `entropy`; a term's coefficient is part of its weights. State: `kl_coef` if
    the KL has a target; `entropy_coef` and `entropy_bonus` if the entropy has one.
    """

    Args: ClassVar[type[plugin.Args]] = GroupArgs

    cfg: AlgoConfig
    args: plugin.Args = GroupArgs()  # noqa: RUF009 - frozen
    max_response_length: int
    """Tokens; the constant of seq_mean_token_sum_norm."""

    @property
    def needs(self) -> frozenset[Need]:
        needs: set[Need] = set()
        if self.cfg.kl_coef > 0:
            needs.add("ref_logprobs")
        if self.cfg.num_minibatches > 1 or self._kl_in_reward:
            # With one update per step the detached current log-probs are the old ones: no extra forward pass.
            needs.add("old_logprobs")
        return frozenset(needs)

    @property
    def objectives(self) -> Mapping[TrainerRole, AuxiliaryObjective]:
        return {}

    @property
    def frozen_steps(self) -> int:
        return 0

    @property
    def needs_entropy_grad(self) -> bool:
        return self.cfg.entropy_coef > 0 or self.cfg.entropy_target is not None

    @property
    def _kl_in_reward(self) -> bool:
        return self.cfg.kl_coef > 0 and self.cfg.kl_in == "reward"

    @property
    def _kl_in_loss(self) -> bool:
        return self.cfg.kl_coef > 0 and self.cfg.kl_in == "loss"

    def initial_state(self) -> State:
        state: dict[str, float] = {}
        if self.cfg.kl_target is not None:
            state["kl_coef"] = self.cfg.kl_coef
        if self.cfg.entropy_target is not None:
            state |= {"entropy_coef": self.cfg.entropy_coef, "entropy_bonus": self.cfg.entropy_coef}
        return state

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State:
        """A step without an update has no measurement, so its coefficients stay."""
        cfg, new = self.cfg, {**self.initial_state(), **state}
        kl, entropy = metrics.get("kl_ref", math.nan), metrics.get("entropy", math.nan)
        if cfg.kl_target is not None and math.isfinite(kl):
            num_samples = cfg.prompts_per_step * cfg.group_size
            new["kl_coef"] = adapted_kl_coef(
                new["kl_coef"], kl=kl, target=cfg.kl_target, num_samples=num_samples, horizon=cfg.kl_horizon
            )
        if cfg.entropy_target is not None and math.isfinite(entropy):
            target = cfg.entropy_target
            coef = adapted_entropy_coef(
                new["entropy_coef"],
                entropy=entropy,
                target=target,
                step=cfg.entropy_coef_step,
                largest=cfg.entropy_coef_max,
            )
            new |= {"entropy_coef": coef, "entropy_bonus": entropy_bonus(coef, entropy=entropy, target=target)}
        return new

    def keep(self, group: Group) -> bool:
        """Dynamic sampling (DAPO, arXiv 2503.14476 eq. 11) by the share of correct completions, whatever else is rewarded."""
        rate, low, high = group.solve_rate, self.cfg.filter.min_solve_rate, self.cfg.filter.max_solve_rate
        if rate is not None and ((low is not None and rate <= low) or (high is not None and rate >= high)):
            return False
        return not self.cfg.filter.drop_equal or len({score.reward for score in group.scores if score.usable}) > 1

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """Unusable samples get a zero mask, which removes them from the loss; tokens with mask 0 have advantage 0."""
        samples = [s if s.usable else replace(s, mask_T=np.zeros_like(s.mask_T)) for s in samples]
        values = self._advantages(samples, state)
        return [
            replace(sample, advantages_T=(value_T * sample.mask_T).astype(np.float32))
            for sample, value_T in zip(samples, values, strict=True)
        ]

    @abstractmethod
    def _advantages(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """One value per token for each sample of the step; unusable samples (`sample.usable`) are in no baseline.

        The first line of an algorithm's docstring is its entry in r1ray/algo/README.md.
        """

    def rewards(self, samples: Sequence[Sample], state: State) -> NDArray[np.float64]:
        """Reward per completion. With `kl_in: reward`, beta times the summed KL of its tokens is subtracted (as in verl)."""
        penalties = self._kl_penalties(samples, state)
        return np.array([reward_of(s) - float(kl_T.sum()) for s, kl_T in zip(samples, penalties, strict=True)])

    def token_rewards(
        self, samples: Sequence[Sample], state: State, outcomes_N: Sequence[float] | None = None
    ) -> list[Floats]:
        """Reward per token: the outcome on the last trained token. With `kl_in: reward`, beta times the KL of the token is
        subtracted (InstructGPT, arXiv 2203.02155 eq. 2; REINFORCE++, arXiv 2501.03262).

        Args:
            outcomes_N: instead of the samples' rewards.
        """
        outcomes = [reward_of(sample) for sample in samples] if outcomes_N is None else outcomes_N
        tokens: list[Floats] = []
        for sample, outcome, kl_T in zip(samples, outcomes, self._kl_penalties(samples, state), strict=True):
            reward_T = -kl_T
            trained = np.flatnonzero(sample.mask_T)
            if len(trained):
                reward_T[trained[-1]] += outcome
            tokens.append(reward_T)
        return tokens

    def _kl_penalties(self, samples: Sequence[Sample], state: State) -> list[Floats]:
        """beta KL(pi_old || pi_ref) of each token; 0 on tokens outside the mask, which have no log-probs."""
        if not self._kl_in_reward:
            return [np.zeros_like(sample.mask_T) for sample in samples]
        import torch

        penalties: list[Floats] = []
        for sample in samples:
            assert sample.old_logprobs_T is not None and sample.ref_logprobs_T is not None, "kl_in=reward needs both"
            old_T, ref_T = torch.tensor(sample.old_logprobs_T), torch.tensor(sample.ref_logprobs_T)
            kl_T = ops.masked(ops.kl(old_T, ref_T, estimator=self.cfg.kl_estimator), torch.tensor(sample.mask_T))
            penalties.append(np.float32(self._kl_coef(state)) * kl_T.numpy())
        return penalties

    def _kl_coef(self, state: State) -> float:
        # A checkpoint from before the controller was switched on has no such state.
        return self.cfg.kl_coef if self.cfg.kl_target is None else state.get("kl_coef", self.cfg.kl_coef)

    def _entropy_coef(self, state: State) -> float:
        fixed = self.cfg.entropy_target is None
        return self.cfg.entropy_coef if fixed else state.get("entropy_bonus", self.cfg.entropy_coef)

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        """Random split into `num_minibatches` updates, one pass over the samples (R1: 8192 completions, 16 updates of 512).

        Samples without a trained token count in the baseline and are left out here.
        """
        return ops.random_parts(samples, self.cfg.num_minibatches, rng)

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        scales = {"policy": 1.0}
        if self._kl_in_loss:
            scales["kl"] = self._kl_coef(state)
        if self.needs_entropy_grad:
            scales["entropy"] = self._entropy_coef(state)
        weights = ops.aggregation_weights(
            [sample.mask_T for sample in samples],
            aggregation=self.cfg.aggregation,
            max_length=self.max_response_length,
        )
        return [{term: np.float32(scale) * weight_T for term, scale in scales.items()} for weight_T in weights]

    def loss(self, row: LossInput) -> LossOutput:
        """Gradients flow through the policy's log-probs and, with an entropy bonus, its entropy; everything else is constant.

        Metrics: `kl_ref` is k3(pi || pi_ref), `mismatch/kl` is k3(engine || trainer before the first update of the step). Both are
        k3 even if kl_estimator is another one.
        """
        cfg, row = self.cfg, cleaned(row)
        surrogate = self._surrogate(row)
        gap_L = row.old_logprobs_L - row.rollout_logprobs_L
        metrics = {
            "clip_fraction": surrogate.clipped_L,
            "ratio/max": surrogate.ratio_L.detach(),
            "entropy": row.entropy_L.detach(),
            "mismatch/kl": ops.kl(row.rollout_logprobs_L, row.old_logprobs_L, estimator="k3"),
            "mismatch/logprob_gap/max": gap_L.abs(),
            "mismatch/logprob_gap/mean": gap_L.abs(),
            **mismatch.moments(row),
        }
        terms = {"policy": -surrogate.objective_L}
        terms["policy"], of_corrections = mismatch.corrected(terms["policy"], row, cfg)
        metrics |= of_corrections
        if cfg.kl_coef > 0:
            assert row.ref_logprobs_L is not None, "kl_coef > 0 but the row has no reference log-probs"
            metrics["kl_ref"] = ops.kl(row.logprobs_L.detach(), row.ref_logprobs_L, estimator="k3")
            if self._kl_in_loss:
                terms["kl"] = ops.kl(row.logprobs_L, row.ref_logprobs_L, estimator=cfg.kl_estimator)
        if self.needs_entropy_grad:
            terms["entropy"] = -row.entropy_L
        return LossOutput(terms=terms, metrics=metrics)

    def _surrogate(self, row: LossInput) -> ops.Surrogate:
        """min(r A, clip(r, 1 - low, 1 + high) A)

        r is the ratio of the token, the row is `cleaned`. The first line is the entry in r1ray/algo/README.md.
        """
        return ops.clipped_surrogate(
            row.logprobs_L - row.old_logprobs_L,
            row.advantages_L,
            clip_low=self.cfg.clip_low,
            clip_high=self.cfg.clip_high,
            dual_clip=self.cfg.dual_clip,
        )


def cleaned(row: LossInput) -> LossInput:
    """The row with 0 outside the mask, detached except for log-probs and entropy."""
    mask_L, ref_L = row.mask_L, row.ref_logprobs_L
    return replace(
        row,
        logprobs_L=ops.masked(row.logprobs_L, mask_L),
        entropy_L=ops.masked(row.entropy_L, mask_L),
        old_logprobs_L=ops.masked(row.old_logprobs_L.detach(), mask_L),
        rollout_logprobs_L=ops.masked(row.rollout_logprobs_L.detach(), mask_L),
        ref_logprobs_L=None if ref_L is None else ops.masked(ref_L.detach(), mask_L),
        advantages_L=ops.masked(row.advantages_L.detach(), mask_L),
    )


def groups_of(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the usable samples of each group; samples are grouped by `group_id`, in any order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if sample.usable:
            groups[sample.group_id].append(i)
    return list(groups.values())


def spread(samples: Sequence[Sample], advantages_N: Sequence[float] | NDArray[np.float64]) -> list[Floats]:
    """One value per sequence to one value per token."""
    return [np.full(len(sample.mask_T), value, np.float32) for sample, value in zip(samples, advantages_N, strict=True)]


def reward_of(sample: Sample) -> float:
    assert sample.score is not None, f"sample {sample.group_id}[{sample.index}] reached the algorithm without a score"
    return sample.score.reward
