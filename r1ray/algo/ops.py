"""The arithmetic that algorithms share: KL estimators, the clipped surrogate, group normalisation, aggregation weights.

Pure functions of arrays; the file of each algorithm combines them. Tensors are used through their methods only, so that importing
an algorithm loads no torch: the configuration check imports algorithms for their arguments.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from r1ray.types import Floats, Sample

if TYPE_CHECKING:
    from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]
ImportanceSamplingMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
Aggregation = Literal["seq_mean_token_mean", "token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before exp, k3 to 10, as verl does: one extreme token must not become inf and void the update."""
MAX_K3 = 10.0


def masked(value_L: "Tensor", mask_L: "Tensor") -> "Tensor":
    """value_L where mask_L is not 0, else 0. Values outside the mask, inf and nan included, have no effect on values or
    gradients.
    """
    return value_L.where(mask_L > 0, 0.0)


def sums_of_sequences(value_L: "Tensor", segment_L: "Tensor") -> "Tensor":
    """For every token the sum of value_L over the token's sequence.

    Example: values [1, 2, 3, 4] of segments [0, 0, 0, 1] give [6, 6, 6, 4].
    """
    index_L = segment_L.long()
    return value_L.new_zeros(len(value_L)).index_add(0, index_L, value_L)[index_L]


def kl(logprobs_L: "Tensor", other_L: "Tensor", *, estimator: KlEstimator) -> "Tensor":
    """Per-token estimate of KL(p || other) from tokens sampled from p, with z = log other - log p (Schulman, "Approximating
    KL divergence", 2020):

        k1 = -z        k2 = z^2 / 2        k3 = exp(z) - z - 1     (k3 is GRPO's, arXiv 2402.03300 eq. 4)

    As values k1 and k3 are unbiased estimates of the KL; as a loss only k2 has its gradient. Our deviation: the clamps above.
    """
    z_L = other_L - logprobs_L
    if estimator == "k1":
        return -z_L
    if estimator == "k2":
        return z_L.square() / 2
    z_L = z_L.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (z_L.exp() - z_L - 1).clamp(-MAX_K3, MAX_K3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """Per-token objective (to be maximised), importance ratio, and 1 where clipping decides the objective."""

    objective_L: "Tensor"
    ratio_L: "Tensor"
    clipped_L: "Tensor"


def ratio(log_ratio_L: "Tensor") -> "Tensor":
    """exp, clamped as above."""
    return log_ratio_L.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_surrogate(
    log_ratio_L: "Tensor", advantages_L: "Tensor", *, clip_low: float, clip_high: float, dual_clip: float | None
) -> Surrogate:
    """min(r A, clip(r, 1 - low, 1 + high) A) (PPO, arXiv 1707.06347 eq. 7; low and high apart: DAPO, arXiv 2503.14476 eq. 8).

    With dual clip c > 1 and A < 0 the objective is at least c A (arXiv 1912.09729 eq. 5). The clip widths are free: R1 uses 10,
    where only the upper side can bind.
    """
    ratio_L = ratio(log_ratio_L)
    unclipped_L = ratio_L * advantages_L
    objective_L = unclipped_L.minimum(ratio_L.clamp(1 - clip_low, 1 + clip_high) * advantages_L)
    if dual_clip is not None:
        objective_L = objective_L.maximum((dual_clip * advantages_L).where(advantages_L < 0, -math.inf))
    clipped_L = (objective_L != unclipped_L).to(ratio_L.dtype)
    return Surrogate(objective_L=objective_L, ratio_L=ratio_L, clipped_L=clipped_L)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutWeight:
    """Per token the importance weight, and 1 where it was above the cap or below the floor."""

    weight_L: "Tensor"
    above_L: "Tensor"
    below_L: "Tensor"


def rollout_weight(
    log_ratio_L: "Tensor", segment_L: "Tensor", *, mode: ImportanceSamplingMode, cap: float, floor: float = 0.0
) -> RolloutWeight:
    """The importance weight from the engine's policy to the trainer's, limited to [F, C].

        token_truncate      min(max(w_t, F), C)     TIS (Yao et al., "Your efficient RL framework secretly brings you off-policy RL
                                                    training", 2025); AReaL, arXiv 2505.24298
        token_mask          w_t, 0 outside          with a floor IcePop (arXiv 2510.18855)
        sequence_truncate   min(max(w, F), C)       w = prod_t w_t of the whole sequence
        sequence_mask       w, 0 outside            TRL's default (C = 3)

    Args:
        log_ratio_L: log w_t: the trainer's log-prob before the first update of the step minus the engine's; 0 outside the mask.
    """
    of_sequence = mode in ("sequence_truncate", "sequence_mask")
    weight_L = ratio(sums_of_sequences(log_ratio_L, segment_L) if of_sequence else log_ratio_L)
    above_L, below_L = weight_L > cap, weight_L < floor
    truncates = mode.endswith("truncate")
    limited_L = weight_L.where(~above_L, cap if truncates else 0.0).where(~below_L, floor if truncates else 0.0)
    return RolloutWeight(weight_L=limited_L, above_L=above_L.to(weight_L.dtype), below_L=below_L.to(weight_L.dtype))


def normalise_group(
    rewards_G: Sequence[float], *, std_ddof: Literal[0, 1], eps: float, scale_by_std: bool, std: float | None = None
) -> NDArray[np.float64]:
    """(r - mean) / (std + eps) over one group; r - mean without `scale_by_std` (Dr. GRPO, arXiv 2503.20783).

    Equal rewards give exact zeros (with eps 0 their rounding noise would become +-1). A group of one has mean 0 and deviation 1,
    as in verl: nothing to compare with, so the reward itself is the advantage.

    Args:
        std: a deviation to take instead of the group's.

    Example: `normalise_group([1, 0, 0, 0], std_ddof=1, eps=0, scale_by_std=True)` is `[1.5, -0.5, -0.5, -0.5]`.
    """
    r_G = np.asarray(rewards_G, np.float64)
    if len(r_G) == 1:
        return r_G / (1 + eps) if scale_by_std else r_G
    if np.ptp(r_G) == 0:
        return np.zeros_like(r_G)
    centred_G = r_G - r_G.mean()
    return centred_G / ((r_G.std(ddof=std_ddof) if std is None else std) + eps) if scale_by_std else centred_G


def aggregation_weights(masks: Sequence[Floats], *, aggregation: Aggregation, max_length: int) -> list[Floats]:
    """For each sequence weight_T, such that the plain sum of weight * loss over all tokens is the aggregated loss.

        seq_mean_token_mean      1 / (N T_i)          GRPO, arXiv 2402.03300 eq. 3
        token_mean               1 / sum of T_i       DAPO, arXiv 2503.14476 eq. 8
        seq_mean_token_sum       1 / N
        seq_mean_token_sum_norm  1 / (N max_length)   Dr. GRPO, arXiv 2503.20783: no length enters

    T_i counts the tokens of sequence i that are trained on, N the sequences that have any. Both are counted over all sequences
    given, so pass all sequences of an optimiser update together. With nothing to train on every weight is 0.
    """
    tokens_N = np.array([np.count_nonzero(mask_T) for mask_T in masks])
    num_sequences, num_tokens = int(np.count_nonzero(tokens_N)), int(tokens_N.sum())
    weights: list[Floats] = []
    for mask_T, tokens in zip(masks, tokens_N, strict=True):
        denominator = {
            "seq_mean_token_mean": num_sequences * tokens,
            "token_mean": num_tokens,
            "seq_mean_token_sum": num_sequences,
            "seq_mean_token_sum_norm": num_sequences * max_length,
        }[aggregation]
        weights.append((mask_T / max(1, denominator)).astype(np.float32))
    return weights


def random_parts(samples: Sequence[Sample], num_parts: int, rng: np.random.Generator) -> list[list[Sample]]:
    """Random split of the samples with at least one trained token into `num_parts` updates, or one per sample if there are
    fewer.
    """
    trained = [sample for sample in samples if sample.mask_T.any()]
    parts = np.array_split(rng.permutation(len(trained)), num_parts)
    return [[trained[i] for i in part] for part in parts if len(part)]
