"""The engine's policy against the trainer's before the first update of the step: corrections of the loss, and metrics.

w_t is the trainer's probability of a sampled token divided by the engine's, w the product over the tokens of a sequence.

    correction                                                    options
    TIS, truncated importance sampling                            importance_sampling: token_truncate
    IcePop ("Every step evolves", arXiv 2510.18855)               importance_sampling: token_mask, is_floor: 0.5, is_cap: 5
    masked importance sampling of sequences                       importance_sampling: sequence_mask
    TIS with a mask by the geometric mean (seq-mask-tis)          token_truncate and rejection: {by: mean_k1, low: .., high: ..}
    rejection by k1, k2, k3 and a veto (verl)                     rejection: {by: sum_k3, high: .., veto: 1e-4}

The metrics come from log-probs that the update has anyway. Some are ratios of means, so `moments` gives the means (over tokens,
ranks and micro-batches, as for every metric), and `with_divergences` makes the metrics from them, once for each update.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ray.algo import ops
from r1ray.algo.base import LossInput
from r1ray.config import AlgoConfig
from r1ray.config.algo import RejectionConfig

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = "moments/"


def corrected(policy_L: "Tensor", row: LossInput, cfg: AlgoConfig) -> tuple["Tensor", dict[str, "Tensor"]]:
    """(the policy term with the weights of the tokens, and 0 in rejected sequences; metrics of the corrections in use).

    The denominators of the loss stay as they are: a token whose weight is 0 counts.
    """
    metrics: dict[str, Tensor] = {}
    if cfg.importance_sampling != "none":
        gap_L = row.old_logprobs_L - row.rollout_logprobs_L
        weight = ops.rollout_weight(
            gap_L, row.segment_L, mode=cfg.importance_sampling, cap=cfg.is_cap, floor=cfg.is_floor
        )
        policy_L = weight.weight_L * policy_L
        metrics |= {"importance_sampling/mean": weight.weight_L, "importance_sampling/capped": weight.above_L}
        if cfg.is_floor > 0:
            metrics["importance_sampling/floored"] = weight.below_L
    if cfg.rejection.used:
        kept_L = kept(row, cfg.rejection)
        policy_L = ops.masked(policy_L, kept_L)
        metrics["rejection/fraction"] = 1 - kept_L
    return policy_L, metrics


def kept(row: LossInput, cfg: RejectionConfig) -> "Tensor":
    """1 on the tokens of sequences that are trained on, 0 on those of rejected ones.

    The estimate is of KL(engine || trainer) (`ops.kl`): the sum over the tokens of the sequence, or their mean. The mean of k1 is
    minus the logarithm of the geometric mean of w_t.
    """
    kept_L = row.mask_L.new_ones(len(row.mask_L)) > 0
    if cfg.by != "none":
        over, _, estimator = cfg.by.partition("_")
        estimate_L = ops.kl(row.rollout_logprobs_L, row.old_logprobs_L, estimator=estimator)  # type: ignore[arg-type]
        estimate_L = ops.sums_of_sequences(estimate_L, row.segment_L)
        estimate_L = estimate_L / _lengths(row) if over == "mean" else estimate_L
        kept_L = kept_L & (estimate_L >= (-math.inf if cfg.low is None else cfg.low))
        kept_L = kept_L & (estimate_L <= (math.inf if cfg.high is None else cfg.high))
    if cfg.veto is not None:
        vetoed_L = (row.old_logprobs_L - row.rollout_logprobs_L < math.log(cfg.veto)).to(row.mask_L.dtype)
        kept_L = kept_L & (ops.sums_of_sequences(vetoed_L, row.segment_L) == 0)
    return kept_L.to(row.mask_L.dtype)


def moments(row: LossInput) -> dict[str, "Tensor"]:
    """What `with_divergences` needs, per token of a cleaned row. Logarithms of ratios are clamped as in `ops.ratio`."""
    gap_L = row.old_logprobs_L - row.rollout_logprobs_L
    token_L, sequence_L = (
        log_L.clamp(-ops.MAX_LOG_RATIO, ops.MAX_LOG_RATIO)
        for log_L in (gap_L, ops.sums_of_sequences(gap_L, row.segment_L))
    )
    share_L = 1 / _lengths(row)
    values = {
        "rollout_nll": -row.rollout_logprobs_L,
        "trainer_nll": -row.old_logprobs_L,
        "w": token_L.exp(),
        "w_square_less_1": (2 * token_L).expm1(),
        "sequences": share_L,
        "sequence_w": sequence_L.exp() * share_L,
        "sequence_w_square_less_1": (2 * sequence_L).expm1() * share_L,
    }
    return {f"{MOMENTS}{name}": value_L for name, value_L in values.items()}


def with_divergences(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an update with divergences in place of their moments; those of other trainers have none.

    Perplexity is exp of the mean negative log-prob of the tokens, chi-squared E[w^2] - 1, and the effective sample size
    E[w]^2 / E[w^2], the share of the samples that is left (Kong, 1992); E is over tokens, or over sequences.
    """
    rest = {name: value for name, value in metrics.items() if not name.startswith(MOMENTS)}
    mean = {name.removeprefix(MOMENTS): value for name, value in metrics.items() if name.startswith(MOMENTS)}
    if not mean or mean["sequences"] == 0:  # no token is trained on
        return rest
    sequence_w, sequence_chi2 = (mean[name] / mean["sequences"] for name in ("sequence_w", "sequence_w_square_less_1"))
    return rest | {
        "mismatch/k1": mean["trainer_nll"] - mean["rollout_nll"],
        "mismatch/rollout_ppl": _exp(mean["rollout_nll"]),
        "mismatch/trainer_ppl": _exp(mean["trainer_nll"]),
        "mismatch/ppl_ratio": _exp(mean["trainer_nll"] - mean["rollout_nll"]),
        "mismatch/chi2": mean["w_square_less_1"],
        "mismatch/sequence_chi2": sequence_chi2,
        "mismatch/ess": mean["w"] ** 2 / (1 + mean["w_square_less_1"]),
        "mismatch/sequence_ess": sequence_w**2 / (1 + sequence_chi2),
    }


def _lengths(row: LossInput) -> "Tensor":
    """For every token the number of trained tokens of its sequence, at least 1."""
    return ops.sums_of_sequences((row.mask_L > 0).to(row.mask_L.dtype), row.segment_L).clamp(min=1)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
