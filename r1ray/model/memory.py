"""Device memory that engines and trainers use in turns (`rollout.sleep`)."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch


class SharesMemory(Protocol):
    shares_memory: bool
    """Whether engines on the same device sleep while this worker computes, and need the memory when they wake."""


S = TypeVar("S", bound=SharesMemory)
P = ParamSpec("P")
R = TypeVar("R")


def frees_memory(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a worker's method: after each call only what the worker keeps (weights, optimizer state) stays on the device.

    Torch caches the memory of activations for the next call, but an engine that wakes needs it free, and at its old addresses. The
    next call allocates from CUDA again, which takes tens of milliseconds.
    """

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        finally:
            if self.shares_memory:
                if torch.cuda.is_initialized():
                    torch.cuda.ipc_collect()  # blocks that engines had opened and closed
                torch.cuda.empty_cache()  # does nothing without CUDA

    return call
