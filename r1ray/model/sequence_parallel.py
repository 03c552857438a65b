"""Sequence parallelism: several ranks share a row whose activations are too large for one (DeepSpeed-Ulysses, arXiv 2309.14509).

Each rank runs the model on a slice of the row's tokens. Only attention needs the whole row: there the ranks exchange data, so
that each has all tokens and some of the heads, instead of some tokens and all heads. Afterwards they exchange back. With 2 ranks,
5 tokens and heads a b c d:

    rank 0   tokens 0 1 2, heads a b c d           tokens 0 1 2 3 4, heads a b
    rank 1   tokens 3 4 -, heads a b c d   <---->  tokens 0 1 2 3 4, heads c d

The loss reads one number per token, which is small: every rank gets all of them (`all_reduce`), computes the loss of the whole
row, and propagates the gradient into its own slice. The gradients of the ranks then add up to that of the row, as they do for
ranks with rows of their own.

DeepSpeed's layer for transformers (UlyssesSPAttentionHF) is not used: the ranks must divide the length of a row, it reads the
boundaries of sequences from position ids that it gathers again in each layer, and it makes three exchanges where one is enough.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from r1ray.model.heads import head_splits

SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Kinds of layers that mix tokens only in attention (names of transformers)."""
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
"""Rotary embeddings whose frequencies depend on the largest position, which differs between slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceShard:
    """One rank of a sequence-parallel group of `size` ranks. `to_heads`, `to_slice` and `all_reduce` are its collectives."""

    rank: int
    size: int
    group: Any
    """The process group of the ranks; None for one rank."""

    def slice_length(self, length: int) -> int:
        """Number of tokens in the slice of each rank; padding at the end of the row makes them equal."""
        return -(-length // self.size)

    def slice_of(self, x_L: np.ndarray) -> np.ndarray:
        """This rank's entries, padded with 0. Example: of [1, 2, 3, 4, 5] rank 1 of 2 has [4, 5, 0]."""
        size = self.slice_length(len(x_L))
        own = x_L[self.rank * size : (self.rank + 1) * size]
        return np.pad(own, (0, size - len(own)))

    def to_heads(self, *slices: Tensor, length: int) -> list[Tensor]:
        """Each [C, heads, dim] of a slice -> [length, heads / size, dim] of the whole row.

        When there are fewer (key-value) heads than ranks they are repeated, so that each rank has the one its query heads share.
        """
        if self.size == 1:
            return list(slices)
        size = len(slices[0])
        shared = [x.repeat_interleave(max(1, self.size // x.shape[1]), dim=1) for x in slices]
        parts = [x.reshape(size, self.size, -1) for x in shared]
        # Slices arrive in the order of ranks, which is the order of the row.
        row_LW = self._exchange(torch.cat(parts, dim=-1).transpose(0, 1)).flatten(0, 1)[:length]
        return [
            part.reshape(length, x.shape[1] // self.size, x.shape[2])
            for part, x in zip(row_LW.split([part.shape[-1] for part in parts], dim=-1), shared, strict=True)
        ]

    def to_slice(self, x_LHD: Tensor) -> Tensor:
        """[L, heads / size, dim] of the whole row -> [C, heads, dim] of this rank's slice; padding is 0."""
        if self.size == 1:
            return x_LHD
        length, _, dim = x_LHD.shape
        size = self.slice_length(length)
        padded = F.pad(x_LHD, (0, 0, 0, 0, 0, self.size * size - length))
        return self._exchange(padded.reshape(self.size, size, -1)).transpose(0, 1).reshape(size, -1, dim)

    def all_reduce(self, x_L: Tensor) -> Tensor:
        """The sum over ranks, each of which has its own entries and 0 elsewhere: identical on all ranks to the last bit."""
        return x_L if self.size == 1 else _AllReduce.apply(x_L, self.group)

    def _exchange(self, x: Tensor) -> Tensor:
        return _Exchange.apply(x, self.group)


UNSHARDED = SequenceShard(rank=0, size=1, group=None)


def sequence_shard(size: int, *, timeout_s: float) -> SequenceShard:
    """Ranks 0 to size-1 share rows, and so do the next `size` ranks. A collective; `size` divides the number of ranks."""
    if size == 1:
        return UNSHARDED
    group, _ = dist.new_subgroups(group_size=size, timeout=timedelta(seconds=timeout_s))
    return SequenceShard(rank=dist.get_rank() % size, size=size, group=group)


def check_sequence_parallel(config: Any, size: int) -> None:
    """Raises ValueError when `size` ranks cannot share the rows of a model with this transformers config."""
    if size == 1:
        return
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if size not in head_splits(heads, kv_heads):
        raise ValueError(
            f"sequence_parallel={size} does not divide the model's {heads} attention heads and {kv_heads} key-value heads: choose "
            f"from {', '.join(map(str, head_splits(heads, kv_heads)))}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type"), *(each.get("rope_type") for each in rope.values() if isinstance(each, dict))}
    others = (kinds & LENGTH_DEPENDENT_ROPE) | (set(getattr(config, "layer_types", None) or ()) - SUPPORTED_LAYER_TYPES)
    if others:
        raise ValueError(
            f"sequence_parallel={size}: the model has {', '.join(sorted(others))}, which need the whole row: set "
            "sequence_parallel=1"
        )


class _Exchange(torch.autograd.Function):
    """[size, ...] on every rank: entry r goes to rank r, where its index is the rank it came from.

    The exchange is its own inverse and its own transpose, so the backward is the same exchange.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _exchanged(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _exchanged(grads[0], ctx.group), None


def _exchanged(x: Tensor, group: Any) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=group)
    return out


class _AllReduce(torch.autograd.Function):
    """A sum over ranks. All ranks compute the same loss from it, so each already has the whole gradient."""

    @staticmethod
    def forward(_: Any, x_L: Tensor, group: Any) -> Tensor:
        out = x_L.clone()
        dist.all_reduce(out, group=group)
        return out

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
