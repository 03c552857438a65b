"""The learning rate of each optimizer update."""

import math
from typing import Literal


def lr_at(
    update: int,
    *,
    lr: float,
    schedule: Literal["constant", "linear", "cosine"],
    warmup_updates: int,
    total_updates: int,
    min_ratio: float,
) -> float:
    """Learning rate of update 0, 1, 2, ...: linear warm-up from lr / warmup to lr, then decay to lr * min_ratio at the last update.

        cosine    lr_min + (lr - lr_min) (1 + cos(pi t / T)) / 2        t updates after the warm-up, T of them in all

    Example: warmup_updates=2 gives lr/2, lr, then the schedule.
    """
    if update < warmup_updates:
        return lr * (update + 1) / warmup_updates
    if schedule == "constant":
        return lr
    done = min(1.0, (update - warmup_updates) / max(1, total_updates - warmup_updates - 1))
    left = 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return lr * (min_ratio + (1 - min_ratio) * left)
