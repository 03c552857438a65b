"""Rewards to returns and advantages, in numpy: discounting, generalised advantage estimation, leave-one-out, whitening.

Arithmetic is in float64, results per token are float32. Tokens where mask_T is 0 (prompt, padding, tool
output) are skipped: t + 1 in a formula is the next token whose mask is 1. Results outside the mask are 0.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from r1ray.types import Floats


def reward_to_go(rewards_T: Floats, mask_T: Floats, *, gamma: float) -> Floats:
    """G_t = r_t + gamma G_{t+1} (REINFORCE++, arXiv 2501.03262).

    Example: rewards [0, 0, 1] with gamma 0.5 give [0.25, 0.5, 1].
    """
    returns_T, following = np.zeros(len(rewards_T)), 0.0
    for t in np.flatnonzero(mask_T)[::-1]:
        following = float(rewards_T[t]) + gamma * following
        returns_T[t] = following
    return returns_T.astype(np.float32)


def gae(rewards_T: Floats, values_T: Floats, mask_T: Floats, *, gamma: float, lam: float) -> Floats:
    """A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t (Schulman et al., arXiv 1506.02438 eq. 16).

    V_t is the value before token t; nothing follows the last token (V = 0). lambda 0 is the one-step error, 1 the Monte-Carlo
    return less the value. The critic's target is A + V.

    Example: rewards [0, 0, 1], values [0.5, 0.4, 0.6], gamma 1 and lambda 0.95 give [0.451, 0.58, 0.4].
    """
    advantages_T, advantage, next_value = np.zeros(len(rewards_T)), 0.0, 0.0
    for t in np.flatnonzero(mask_T)[::-1]:
        value = float(values_T[t])
        delta = float(rewards_T[t]) + gamma * next_value - value
        advantage = delta + gamma * lam * advantage
        advantages_T[t], next_value = advantage, value
    return advantages_T.astype(np.float32)


def vapo_lambda(length: int, *, alpha: float) -> float:
    """1 - 1 / (alpha l) for a completion of l tokens (VAPO, arXiv 2504.05118): the longer, the closer to Monte Carlo.

    Our choice: at least 0, where the formula is negative (l < 20 with the paper's alpha of 0.05).
    """
    return max(0.0, 1 - 1 / (alpha * length))


def leave_one_out(rewards_G: Sequence[float]) -> NDArray[np.float64]:
    """r_i minus the mean of the others (RLOO, arXiv 2402.14740): the baseline does not depend on completion i.

    A group of one has no others: its advantage is 0.
    """
    r_G = np.asarray(rewards_G, np.float64)
    if len(r_G) == 1 or np.ptp(r_G) == 0:
        return np.zeros_like(r_G)
    return r_G - (r_G.sum() - r_G) / (len(r_G) - 1)


def length_weighted(rewards_G: Sequence[float], lengths_G: Sequence[int]) -> NDArray[np.float64]:
    """r_i minus the mean of the group in which a completion counts by its length (OPO, arXiv 2505.23585).

    Equal rewards give exact zeros, so does a group without a token.

    Example: `length_weighted([1, 0], [30, 10])` is `[0.25, -0.75]`.
    """
    r_G, lengths = np.asarray(rewards_G, np.float64), np.asarray(lengths_G, np.float64)
    if lengths.sum() == 0 or np.ptp(r_G) == 0:
        return np.zeros_like(r_G)
    return r_G - (lengths * r_G).sum() / lengths.sum()


def token_leave_one_out(rewards: Sequence[Floats], masks: Sequence[Floats]) -> list[Floats]:
    """Leave-one-out for token rewards: the baseline is the mean over the other completions of their mean token reward (PRIME,
    arXiv 2502.01456, as its code):

        r_i,t  ->  r_i,t G / (G - 1) - sum over all j of mean_j / (G - 1)

    G counts the completions that have a token to train on; the rest have no token rewards. If G is 1, all results are 0.
    """
    means_G = [
        reward_T[mask_T > 0].mean(dtype=np.float64)
        for reward_T, mask_T in zip(rewards, masks, strict=True)
        if mask_T.any()
    ]
    size = len(means_G)
    if size < 2:
        return [np.zeros_like(reward_T) for reward_T in rewards]
    baseline = sum(means_G) / (size - 1)
    return [
        ((reward_T.astype(np.float64) * size / (size - 1) - baseline) * (mask_T > 0)).astype(np.float32)
        for reward_T, mask_T in zip(rewards, masks, strict=True)
    ]


def whiten(values: Sequence[Floats], masks: Sequence[Floats], *, ddof: Literal[0, 1], eps: float) -> list[Floats]:
    """(x - mean) / sqrt(var + eps) over all tokens with mask 1 of all sequences together (verl: ddof 1, eps 1e-8).

    If all values are equal, or there is only one, the result is exactly 0.
    """
    chosen = [mask_T > 0 for mask_T in masks]
    tokens = np.concatenate([value_T[here_T] for value_T, here_T in zip(values, chosen, strict=True)]).astype(
        np.float64
    )
    if len(tokens) == 0 or np.ptp(tokens) == 0:
        return [np.zeros_like(value_T) for value_T in values]
    mean, scale = tokens.mean(), np.sqrt(tokens.var(ddof=ddof) + eps)
    return [
        ((value_T - mean) / scale * here_T).astype(np.float32) for value_T, here_T in zip(values, chosen, strict=True)
    ]


def remax(rewards_G: Sequence[float], greedy_rewards_G: Sequence[float]) -> NDArray[np.float64]:
    """r_i minus the reward of the greedy completion of the same prompt (ReMax, arXiv 2310.10505, algorithm 1).

    No recipe here uses it: the engine would have to answer every problem once more.
    """
    return np.asarray(rewards_G, np.float64) - np.asarray(greedy_rewards_G, np.float64)


def best_of_group(rewards_G: Sequence[float]) -> NDArray[np.float64]:
    """Only the best completion has an advantage: its margin over the second (pass@k training, arXiv 2503.19595; verl's
    grpo_passk without the deviation). No recipe here uses it.

    Example: `best_of_group([0.2, 0.9, 0.5, 0.1])` is `[0, 0.4, 0, 0]`.
    """
    r_G = np.asarray(rewards_G, np.float64)
    advantages_G = np.zeros_like(r_G)
    if len(r_G) > 1:
        second, best = np.sort(r_G)[-2:]
        advantages_G[r_G.argmax()] = best - second
    return advantages_G
