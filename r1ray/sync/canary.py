"""The proof that an engine serves what the trainer holds: both score the same few tokens.

Checksums attest what arrived; only outputs show what is computed with. (vLLM's packed lm_head is the case in point.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r1ray.config import Config
from r1ray.types import Floats, Ints

NUM_SEQUENCES = 2
LENGTH = 8
"""Few, because every push waits for them: one wrong tensor moves every token after the first, and on a CPU 96 tokens of a model of
500M parameters took as long as sending it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapLimit:
    """How far the log-probs of the canary tokens may lie apart: the largest difference of one token, or the mean."""

    of: Literal["largest", "mean"]
    limit: float


EXACT = GapLimit(of="largest", limit=1e-3)
"""float32 on both sides: below 1e-4 on CPU."""
ROUNDED = GapLimit(of="mean", limit=0.1)
"""bfloat16 on either side rounds a logit of 16 to 1/16, so single unlikely tokens of a healthy engine differ by more than 0.1
(0.13 with the built-in model, whose mean is 0.02); an engine with a wrong weight differs in every token."""


def gap_limit(cfg: Config) -> GapLimit:
    """By the less precise side. Scores run without autocast, so fp32 weights under bf16 autocast count as exact."""
    exact = cfg.rollout.dtype == "float32" and cfg.trainer.precision != "bf16"
    return EXACT if exact else ROUNDED


def canary_sequences(*, vocab_size: int, seed: int, max_length: int) -> list[Ints]:
    """Fixed random token ids: they need no text."""
    rng = np.random.default_rng(seed)
    length = min(LENGTH, max_length)
    return [rng.integers(vocab_size, size=length).astype(np.int32) for _ in range(NUM_SEQUENCES)]


def canary_gap(ours: Sequence[Floats], theirs: Sequence[Floats], *, of: Literal["largest", "mean"]) -> float:
    """Over all tokens of all sequences but the first of each, which has no log-prob; nan counts as infinite."""
    a = np.concatenate([logprobs_T[1:] for logprobs_T in ours])
    b = np.concatenate([logprobs_T[1:] for logprobs_T in theirs])
    if of == "largest":
        return logprob_gap(a, b)
    mean = float(np.abs(a - b).mean())
    return mean if np.isfinite(mean) else float("inf")


def logprob_gap(ours_T: np.ndarray, theirs_T: np.ndarray) -> float:
    """Largest absolute difference; nan counts as infinite."""
    gap = np.abs(np.asarray(ours_T, np.float64) - np.asarray(theirs_T, np.float64))
    return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))
