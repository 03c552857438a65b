"""The proof that an engine serves what the trainer holds: both score the same few tokens.

Checksums attest what arrived; only outputs show what is computed with. (vLLM's packed lm_head is the case in point.)
"""

from collections.abc import Sequence

import numpy as np

from r1ray.config import Config
from r1ray.engine.base import logprob_gap
from r1ray.types import Floats, Ints

NUM_SEQUENCES = 4
LENGTH = 24

GAP_LIMITS = {"fp32": 1e-3, "bf16": 0.1}
"""Largest difference of a log-prob. fp32 on CPU is 1e-5 in practice; bf16 rounds a logit of 16 to 1/16."""


def canary_sequences(*, vocab_size: int, seed: int, max_length: int) -> list[Ints]:
    """Fixed random token ids: they touch all of the embedding and every position up to LENGTH, and need no text."""
    rng = np.random.default_rng(seed)
    length = min(LENGTH, max_length)
    return [rng.integers(vocab_size, size=length).astype(np.int32) for _ in range(NUM_SEQUENCES)]


def gap_limit(cfg: Config) -> float:
    """By the less precise side. Scores run without autocast, so fp32 weights under bf16 autocast count as fp32."""
    exact = cfg.rollout.dtype == "float32" and cfg.trainer.precision != "bf16"
    return GAP_LIMITS["fp32" if exact else "bf16"]


def largest_gap(ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    """Over all tokens of all sequences; nan counts as infinite."""
    return max(logprob_gap(a, b) for a, b in zip(ours, theirs, strict=True))
