"""The rendezvous and the ranks of the weight transfer group. Pure (no torch); the same for every backend.

    rank 0                          the trainer's rank 0, which sends
    1 + i * TP * PP ...             the workers of engine i, in vLLM's order

Engines are independent vLLM instances that number their workers from 0, so each needs its own offset. (vLLM's Ray client gives
every engine offset 1, which works with one engine only.)
"""

from dataclasses import dataclass
from typing import Literal

SENDER_RANK = 0

Backend = Literal["gloo", "nccl", "ipc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the ranks of one communicator meet, its unique tag, and the timeout of each of its operations."""

    backend: Backend
    host: str
    port: int
    tag: str
    world_size: int
    timeout_s: float


def workers_per_engine(*, tensor_parallel_size: int, pipeline_parallel_size: int = 1) -> int:
    return tensor_parallel_size * pipeline_parallel_size


def rank_offset(engine: int, *, workers: int) -> int:
    """Rank of the first worker of engine number `engine`, when each has `workers`: `rank_offset(1, workers=2) == 3`."""
    return 1 + engine * workers


def world_size(num_engines: int, *, workers: int) -> int:
    """The sender and all workers: `world_size(2, workers=2) == 5`."""
    return 1 + num_engines * workers
