"""Memory of a device on which engines and trainers work by turns (`rollout.sleep`)."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch


class Borrower(Protocol):
    shares_memory: bool
    """Whether engines on the same device sleep while this worker computes, and want the memory when they wake."""


S = TypeVar("S", bound=Borrower)
P = ParamSpec("P")
R = TypeVar("R")


def frees_memory(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The method of a worker, after each call of which only what the worker keeps (weights, optimiser) stays on the device.

    Torch keeps what activations took for the next call; an engine that wakes needs it as free memory, and at addresses of its own.
    The next call asks CUDA for it again: some tens of milliseconds.
    """

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        finally:
            if self.shares_memory:
                if torch.cuda.is_initialized():
                    torch.cuda.ipc_collect()  # what engines had opened and let go
                torch.cuda.empty_cache()  # nothing to do without CUDA

    return call
