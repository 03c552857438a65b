"""Attention over packed rows: every sequence attends only to itself, at the cost of its own length.

`r1ray.model.load` registers it with transformers as the attention implementation "r1ray", so that any model class that uses the
attention interface of transformers works unchanged. The boundaries arrive as a `Segments` keyword that the model passes through;
without it the call fails. (The packing of transformers itself reads boundaries from position_ids, silently ignores them when a
cache object exists, and builds an L x L mask.)

The sequences of a row are copied into a few padded groups of similar length, and each group is one causal call. Padding is at the
end, where causality hides it from every real token, so no mask is built.

With sequence parallelism, ranks exchange slices of the row for shares of the heads here, and in no other place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r1ray.model.sequence_parallel import UNSHARDED, SequenceShard

NAME = "r1ray"

_MAX_PADDING = 1.25
"""A group is closed when its padded area would exceed its tokens by more than this factor."""
_EAGER_MAX_LENGTH = 512
"""On CPU in bfloat16, up to this length, plain matmul and softmax are faster than the fused kernel (its backward is 5x slower)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where the sequences of a row are, and how they are padded for attention. Computed once per row by `segments_of`."""

    length: int
    """Number of tokens in the row."""
    groups: tuple[tuple[int, int], ...]
    """(number of sequences, padded length) of each group, one after the other in the padded buffer."""
    slot_L: Tensor | None
    """Index of each token in the padded buffer; None when the buffer is the row itself."""

    @property
    def padded_length(self) -> int:
        return sum(num * longest for num, longest in self.groups)


def segments_of(lengths: Sequence[int], *, device: torch.device) -> Segments:
    """The segments of a row with sequences of these lengths, in the order of the row. Groups are formed by length, longest first.

    Example: lengths [5, 4, 1] make groups (2, 5) and (1, 1): 11 slots for 10 tokens.
    """
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups:
            longest = lengths[groups[-1][0]]
            if (len(groups[-1]) + 1) * longest <= _MAX_PADDING * (tokens + lengths[i]):
                groups[-1].append(i)
                tokens += lengths[i]
                continue
        groups.append([i])
        tokens = lengths[i]
    first_slot = [0] * len(lengths)
    offset = 0
    for group in groups:
        longest = lengths[group[0]]
        for i in group:
            first_slot[i] = offset
            offset += longest
    shape = tuple((len(group), lengths[group[0]]) for group in groups)
    lengths_S = torch.tensor(lengths)
    ends_S = lengths_S.cumsum(0)
    shift_S = torch.tensor(first_slot) - (ends_S - lengths_S)
    slot_L = torch.arange(int(ends_S[-1])) + shift_S.repeat_interleave(lengths_S)
    is_row = offset == len(slot_L) and bool((shift_S == 0).all())
    return Segments(length=len(slot_L), groups=shape, slot_L=None if is_row else slot_L.to(device))


class _ToSlots(torch.autograd.Function):
    """Row -> padded buffer with zeros as padding. (The backward of plain indexing adds up gradients. No slot repeats, so
    copying them is enough.)
    """

    @staticmethod
    def forward(ctx: Any, x_LHD: Tensor, slot_L: Tensor, padded_length: int) -> Tensor:
        ctx.save_for_backward(slot_L)
        return x_LHD.new_zeros(padded_length, *x_LHD.shape[1:]).index_copy_(0, slot_L, x_LHD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot_L,) = ctx.saved_tensors
        return grads[0].index_select(0, slot_L), None, None


class _FromSlots(torch.autograd.Function):
    """Padded buffer -> row; the inverse of `_ToSlots`."""

    @staticmethod
    def forward(ctx: Any, y_SHD: Tensor, slot_L: Tensor) -> Tensor:
        ctx.save_for_backward(slot_L)
        ctx.padded_length = len(y_SHD)
        return y_SHD.index_select(0, slot_L)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slot_L,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.padded_length, *grads[0].shape[1:]).index_copy_(0, slot_L, grads[0]), None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: Segments | None = None,
    shard: SequenceShard = UNSHARDED,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, C, dim], key and value [1, kv heads, C, dim] -> ([1, C, heads, dim], None).

    The C tokens are this rank's slice of the row, or the whole row.

    Raises ValueError for what it does not support: a window shorter than a sequence, soft-capped scores, attention sinks.
    """
    assert segments is not None, "attention 'r1ray' was called without its segments; use r1ray.model.forward"
    size = shard.slice_length(segments.length)
    assert attention_mask is None and query.shape[0] == 1 and query.shape[2] == key.shape[2] == size
    if sliding_window is not None and sliding_window < segments.groups[0][1]:
        raise ValueError(
            f"the model has an attention window of {sliding_window} tokens, but a sequence has {segments.groups[0][1]}: lower "
            "data.max_prompt_length or rollout.max_response_length"
        )
    for name in ("softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise ValueError(f"the model's attention uses {name}, which r1ray's packed attention does not support")
    # Under autocast the rotary embedding makes query and key float32 again; the value has the dtype to compute in.
    qkv_CHD = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    q, k, v = (_to_slots(x_LHD, segments) for x_LHD in shard.to_heads(*qkv_CHD, length=segments.length))
    outs = []
    sizes = [num * longest for num, longest in segments.groups]
    for (num, longest), *qkv in zip(segments.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        q_GHTD, k_GHTD, v_GHTD = (x.view(num, longest, *x.shape[1:]).transpose(1, 2) for x in qkv)
        out_GHTD = _causal(q_GHTD, k_GHTD, v_GHTD, scaling=scaling)
        outs.append(out_GHTD.transpose(1, 2).reshape(num * longest, *q.shape[1:]))
    out_SHD = torch.cat(outs) if len(outs) > 1 else outs[0]
    out_LHD = out_SHD if segments.slot_L is None else _FromSlots.apply(out_SHD, segments.slot_L)
    return shard.to_slice(out_LHD).unsqueeze(0), None


def _to_slots(x_LHD: Tensor, segments: Segments) -> Tensor:
    if segments.slot_L is None:
        return x_LHD
    return _ToSlots.apply(x_LHD, segments.slot_L, segments.padded_length)


def _causal(q: Tensor, k: Tensor, v: Tensor, *, scaling: float) -> Tensor:
    """Causal attention of [G, heads, T, dim]. When there are fewer kv heads than heads, consecutive heads share one."""
    length = q.shape[2]
    if q.device.type != "cpu" or q.dtype == torch.float32 or length > _EAGER_MAX_LENGTH:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    # Heads that share a kv head are rows of one product, so that nothing is repeated.
    num, heads, dim = q.shape[0], k.shape[1], q.shape[3]
    rows = q.shape[1] // heads * length
    future = torch.full((length, length), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
    scores = torch.matmul((q * scaling).reshape(num, heads, rows, dim), k.transpose(2, 3))
    scores = scores.view(num, heads, -1, length, length).add_(future)
    # PyTorch's softmax of bfloat16 accumulates in float32.
    probs = F.softmax(scores, dim=-1).view(num, heads, rows, length)
    return torch.matmul(probs, v).reshape(q.shape)
