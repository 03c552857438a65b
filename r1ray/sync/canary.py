"""The canary check: trainer and engine score the same few tokens, to show that the engine computes with the trainer's weights.

A checksum proves only that the bytes arrived. (vLLM once computed with a stale packed copy of lm_head, `r1ray.sync.vllm_transfer`.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r1ray.config import Config
from r1ray.types import Floats, Ints

NUM_SEQUENCES = 2
LENGTH = 8
"""Few, because every push waits for them, and one wrong tensor changes every token after the first. (On a CPU, 96 tokens of a model
of 500M parameters took as long as sending it.)"""


ABSURD = -1000.0
"""Log-prob of a token, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapLimit:
    """How much the log-probs of the canary tokens may differ: the largest difference of a token, or the mean."""

    statistic: Literal["largest", "mean"]
    limit: float


EXACT = GapLimit(statistic="largest", limit=1e-3)
"""float32 on both sides; below 1e-4 on CPU."""
ROUNDED = GapLimit(statistic="mean", limit=0.1)
"""bfloat16 on either side rounds a logit of 16 to 1/16, so single unlikely tokens of a healthy engine differ by more than 0.1 (0.13
with the built-in model, where the mean is 0.02). An engine with a wrong weight differs in every token."""


def gap_limit(cfg: Config) -> GapLimit:
    """The limit of the less precise side. Scores use no autocast, so fp32 weights with bf16 autocast count as exact."""
    exact = cfg.rollout.dtype == "float32" and cfg.trainer.precision != "bf16"
    return EXACT if exact else ROUNDED


def canary_sequences(*, vocab_size: int, seed: int, max_length: int) -> list[Ints]:
    """Fixed random token ids; no text is needed."""
    rng = np.random.default_rng(seed)
    length = min(LENGTH, max_length)
    return [rng.integers(vocab_size, size=length).astype(np.int32) for _ in range(NUM_SEQUENCES)]


def canary_gap(trainer: Sequence[Floats], engine: Sequence[Floats], *, statistic: Literal["largest", "mean"]) -> float:
    """The gap over all tokens but the first of each sequence, which has no log-prob; nan counts as infinite."""
    a = np.concatenate([logprobs_T[1:] for logprobs_T in trainer])
    b = np.concatenate([logprobs_T[1:] for logprobs_T in engine])
    if statistic == "largest":
        return logprob_gap(a, b)
    mean = float(np.abs(a - b).mean())
    return mean if np.isfinite(mean) else float("inf")


def broken_logprobs(logprobs: Sequence[Floats]) -> str | None:
    """How log-probs differ from those of any working model; None if they do not.

    The least likely token of a model with 200,000 tokens has -12 when all are equally likely, and a few times that when it is sure.
    """
    values = np.concatenate([logprobs_T[1:] for logprobs_T in logprobs])
    if not np.isfinite(values).all():
        return "not finite"
    return f"as low as {values.min():.3g}" if values.min(initial=0.0) < ABSURD else None


def logprob_gap(a_T: np.ndarray, b_T: np.ndarray) -> float:
    """Largest absolute difference; nan counts as infinite."""
    gap = np.abs(np.asarray(a_T, np.float64) - np.asarray(b_T, np.float64))
    return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))
