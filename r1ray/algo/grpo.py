"""GRPO as DeepSeek-R1 uses it: DeepSeekMath, arXiv 2402.03300 eq. 3-4; DeepSeek-R1, arXiv 2501.12948 eq. 1-3.

    A_i     = (r_i - mean r) / std r                                     over the G replies of one problem
    J_i,t   = min(rho A_i, clip(rho, 1 - low, 1 + high) A_i)             rho = pi(o_t) / pi_old(o_t)
    loss    = mean_i mean_t [ -J_i,t + beta k3(pi || pi_ref) ]

Our deviations and choices:
- the ratio is per token, as in all public code (R1's equation writes it per output);
- std_ddof, adv_eps, scale_by_std, clip_low, clip_high, dual_clip, the KL estimator and the aggregation are free: papers and code
  disagree on each (defaults and sources: conf/algo/grpo.yaml);
- pi_old is the trainer's policy before the first update of the pass, not the engine's word; what the engine says is compared
  with it in `kl_rollout` and `logprob_gap/max`;
- an unusable reply is masked and is not in the baseline; one that is masked for being truncated stays in it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from r1ray.algo import ops
from r1ray.algo.base import LossInput, LossOutput, Need, OtherLearner, State
from r1ray.config import AlgoConfig, TrainerRole
from r1ray.types import Floats, Group, Sample


@dataclass(frozen=True, kw_only=True)
class Grpo:
    """`r1ray.algo.base.Algorithm`. Loss terms: `policy`, and `kl` when kl_coef > 0 (its weights carry the coefficient)."""

    cfg: AlgoConfig
    max_response_length: int
    """Tokens; the constant of seq_mean_token_sum_norm."""

    @property
    def needs(self) -> frozenset[Need]:
        needs: set[Need] = set()
        if self.cfg.kl_coef > 0:
            needs.add("ref_logprobs")
        if self.cfg.minibatches > 1:
            # With one update a pass the present log-probs, detached, are the old ones: no extra forward.
            needs.add("old_logprobs")
        return frozenset(needs)

    @property
    def learners(self) -> Mapping[TrainerRole, OtherLearner]:
        return {}

    def initial_state(self) -> State:
        return {}

    def keep(self, group: Group) -> bool:
        return True

    def advantages(self, samples: Sequence[Sample], state: State) -> list[Sample]:
        """Every token of reply i gets A_i; grouping is by `group_id`, whatever the order."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, sample in enumerate(samples):
            if sample.usable:
                groups[sample.group_id].append(i)
        advantages_N = np.zeros(len(samples))
        for members in groups.values():
            rewards_G = [_reward(samples[i]) for i in members]
            advantages_N[members] = ops.normalise_group(
                rewards_G, std_ddof=self.cfg.std_ddof, eps=self.cfg.adv_eps, scale_by_std=self.cfg.scale_by_std
            )
        out: list[Sample] = []
        for sample, advantage in zip(samples, advantages_N, strict=True):
            mask_T = sample.mask_T if sample.usable else np.zeros_like(sample.mask_T)
            out.append(replace(sample, mask_T=mask_T, advantages_T=(advantage * mask_T).astype(np.float32)))
        return out

    def minibatches(self, samples: Sequence[Sample], state: State, rng: np.random.Generator) -> list[list[Sample]]:
        """Split at random into `minibatches` updates, one pass over the samples (R1: 8192 replies, 16 updates of 512).

        Samples without a token to train on have done their work in the baseline and are left out.
        """
        return ops.random_parts(samples, self.cfg.minibatches, rng)

    def weights(self, samples: Sequence[Sample], state: State) -> list[dict[str, Floats]]:
        weights = ops.aggregation_weights(
            [sample.mask_T for sample in samples],
            aggregation=self.cfg.aggregation,
            max_length=self.max_response_length,
        )
        if self.cfg.kl_coef == 0:
            return [{"policy": weight_T} for weight_T in weights]
        beta = np.float32(self.cfg.kl_coef)
        return [{"policy": weight_T, "kl": beta * weight_T} for weight_T in weights]

    def loss(self, row: LossInput) -> LossOutput:
        """Metrics: `kl_ref` is k3(pi || pi_ref), `kl_rollout` k3(engine || trainer before the pass), both whatever kl_estimator."""
        mask_L = row.mask_L
        surrogate = ops.clipped_surrogate(
            ops.masked(row.logprobs_L - row.old_logprobs_L, mask_L),
            ops.masked(row.advantages_L, mask_L),
            clip_low=self.cfg.clip_low,
            clip_high=self.cfg.clip_high,
            dual_clip=self.cfg.dual_clip,
        )
        old_L, rollout_L = ops.masked(row.old_logprobs_L, mask_L), ops.masked(row.rollout_logprobs_L, mask_L)
        gap_L = (old_L - rollout_L).abs()
        metrics = {
            "clip_fraction": surrogate.clipped_L,
            "ratio/max": surrogate.ratio_L.detach(),
            "entropy": row.entropy_L,
            "kl_rollout": ops.kl(rollout_L, old_L, estimator="k3"),
            "logprob_gap/max": gap_L,
            "logprob_gap/mean": gap_L,
        }
        terms = {"policy": -surrogate.objective_L}
        if self.cfg.kl_coef > 0:
            assert row.ref_logprobs_L is not None, "kl_coef > 0 but the row has no reference log-probs"
            logprobs_L, ref_L = ops.masked(row.logprobs_L, mask_L), ops.masked(row.ref_logprobs_L, mask_L)
            terms["kl"] = ops.kl(logprobs_L, ref_L, estimator=self.cfg.kl_estimator)
            metrics["kl_ref"] = ops.kl(logprobs_L.detach(), ref_L, estimator="k3")
        return LossOutput(terms=terms, metrics=metrics)

    def update_state(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def _reward(sample: Sample) -> float:
    assert sample.score is not None, f"sample {sample.group_id}[{sample.index}] reached GRPO without a score"
    return sample.score.reward
