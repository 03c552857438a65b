"""Log-probs of given tokens under a causal language model, without the logits of the whole vocabulary.

Two things are here and nowhere else: the shift between logits and labels (the hidden state at t - 1 predicts token t, also across
the border between the slices of two ranks), and the division of logits by the sampling temperature.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from r1ray.model.attention import Segments, segments_of
from r1ray.model.sequence_parallel import UNSHARDED, SequenceShard
from r1ray.types import Row

_KEPT_LOGITS = {"cpu": 2**24, "cuda": 2**27}
"""Up to this many entries the probabilities of a row are kept for the backward: 64 MiB; 512 MiB on a device with more memory."""
_BLOCK_LOGITS = {"cpu": 2**22, "cuda": 2**27}
"""Above that, logits are computed in blocks of this many float32 entries: they fit a CPU's cache, or fill a GPU."""
_MIN_BLOCK = 1024
"""Fewest tokens of the vocabulary in a block: a narrower matrix product is slow on CPU and GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTensors:
    """The tensors of a packed row that the model needs, on its device. A rank has a slice of C tokens (all L if it shares
    the row with no other rank), and those M wanted tokens whose preceding token is in the slice. Wanted: mask_L is not 0.
    """

    token_ids_C: Tensor
    positions_C: Tensor
    source_M: Tensor
    """Index in the slice of the predecessor of each wanted token."""
    label_M: Tensor
    """Ids of the wanted tokens."""
    temperature_M: Tensor
    target_M: Tensor
    """Indices in the row of the wanted tokens; none is the first of its sequence."""
    segments: Segments
    """Those of the whole row."""
    shard: SequenceShard

    def spread(self, values_M: Tensor) -> Tensor:
        """-> [L] of the whole row on every rank that shares it; 0 at tokens that are not wanted."""
        zeros_L = torch.zeros(self.segments.length, dtype=torch.float32, device=values_M.device)
        return self.shard.all_reduce(zeros_L.index_copy(0, self.target_M, values_M))


def row_tensors(row: Row, *, device: torch.device, shard: SequenceShard = UNSHARDED) -> RowTensors:
    """A row for `Policy.forward`. The wanted tokens are those where mask_L is not 0."""
    size = shard.slice_length(len(row.token_ids_L))
    target_M = np.flatnonzero((row.mask_L > 0) & (row.positions_L > 0))
    target_M = target_M[(target_M - 1) // size == shard.rank]
    lengths = np.bincount(row.segment_L).tolist()
    return RowTensors(
        token_ids_C=torch.tensor(shard.slice_of(row.token_ids_L), dtype=torch.long, device=device),
        positions_C=torch.tensor(shard.slice_of(row.positions_L), dtype=torch.long, device=device),
        source_M=torch.tensor(target_M - 1 - shard.rank * size, device=device),
        label_M=torch.tensor(row.token_ids_L[target_M], dtype=torch.long, device=device),
        temperature_M=torch.tensor(row.temperature_L[target_M], device=device),
        target_M=torch.tensor(target_M, device=device),
        segments=segments_of(lengths, device=device),
        shard=shard,
    )


def hidden_states(body: Any, row: RowTensors) -> Tensor:
    """[C, E] of a transformers model without its head; each sequence of the row is computed separately."""
    # use_cache=False: with a cache object transformers would treat the row as one sequence in several places.
    return body(
        input_ids=row.token_ids_C.unsqueeze(0),
        position_ids=row.positions_C.unsqueeze(0),
        attention_mask=None,
        use_cache=False,
        segments=row.segments,
        shard=row.shard,
    ).last_hidden_state[0]


class Policy(nn.Module):
    """A Hugging Face causal LM whose forward returns the log-probs of the tokens of a packed row.

    Its lm_head is replaced by a `LogprobHead` with the same weight. It is a separate module because under ZeRO-3 the weight (even
    one tied to the embedding) is gathered only while DeepSpeed's hooks run the module that owns it.
    """

    def __init__(self, lm: nn.Module, *, autocast: bool = False) -> None:
        super().__init__()
        self.lm: Any = lm
        self.autocast = autocast
        """Matrix products in bfloat16 while weights stay float32. r1ray's own autocast, not DeepSpeed's, so that canaries can be
        scored without it."""
        self.lm.lm_head = LogprobHead(self.lm.lm_head)

    def forward(
        self, row: RowTensors, *, autocast: bool | None = None, entropy_grad: bool = False
    ) -> tuple[Tensor, Tensor]:
        """-> (logprobs_L, entropy_L), float32, 0 at tokens that are not wanted.

        The entropy is that of the distribution from which the token is drawn, at the token's temperature. It has a gradient only
        with `entropy_grad`. When log-probs need no gradient either (under no_grad), it is not computed and is 0. `autocast`
        overrides the policy's setting.
        """
        enabled = self.autocast if autocast is None else autocast
        with torch.autocast(row.label_M.device.type, dtype=torch.bfloat16, enabled=enabled):
            hidden_CE = hidden_states(self.lm.model, row)
            logprobs_M, entropy_M = self.lm.lm_head(
                hidden_CE.index_select(0, row.source_M), row.label_M, row.temperature_M, entropy_grad=entropy_grad
            )
        return row.spread(logprobs_M), row.spread(entropy_M)


class LogprobHead(nn.Module):
    """lm_head that returns log-probs of labels instead of logits. Shares the parameters of the linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("a model whose lm_head has a bias is not supported")
        self.weight = linear.weight

    def forward(
        self, hidden_ME: Tensor, labels_M: Tensor, temperature_M: Tensor, *, entropy_grad: bool
    ) -> tuple[Tensor, Tensor]:
        """hidden [M, E] -> (log-probs [M], entropy [M]), float32."""
        device = hidden_ME.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        with torch.autocast(device, enabled=False):  # otherwise the dot product of the entropy would be in bfloat16
            few = len(labels_M) * len(self.weight) <= _KEPT_LOGITS[device]
            function = _WholeLogprobs if few else _BlockedLogprobs
            return function.apply(hidden_ME.to(dtype), self.weight, labels_M, temperature_M, dtype, entropy_grad)


class _WholeLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[label] when all logits fit in memory: the probabilities are kept for the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ME: Tensor,
        weight_VE: Tensor,
        labels_M: Tensor,
        temperature_M: Tensor,
        dtype: torch.dtype,
        entropy_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        log_MV = _logits(hidden_ME, weight_VE.to(dtype), temperature_M).log_softmax(-1)
        logprobs_M = log_MV.gather(-1, labels_M.unsqueeze(-1)).squeeze(-1)
        entropy_M, probs_MV = torch.zeros_like(logprobs_M), None
        if ctx.needs_input_grad[0]:
            probs_MV = log_MV.exp()
            # A logit of -inf has probability 0 and must add 0, not nan.
            entropy_M = -torch.linalg.vecdot(probs_MV, log_MV.clamp_min_(-1e30))
        ctx.save_for_backward(hidden_ME, weight_VE, labels_M, temperature_M, probs_MV, entropy_M)
        _set_outputs(ctx, entropy_M, dtype, entropy_grad)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden_ME, weight_VE, labels_M, temperature_M, probs_MV, entropy_M = ctx.saved_tensors
        grad_MV = _logit_grads(probs_MV, labels_M, grads[0] / temperature_M)
        if ctx.entropy_grad:
            grad_MV += _entropy_grads(probs_MV, entropy_M, grads[1] / temperature_M)
        grad_MV = grad_MV.to(ctx.dtype)
        # A frozen head needs no weight gradient: that saves one of the two matrix products.
        grad_weight_VE = (grad_MV.T @ hidden_ME).to(weight_VE.dtype) if ctx.needs_input_grad[1] else None
        return grad_MV @ weight_VE.to(ctx.dtype), grad_weight_VE, None, None, None, None


class _BlockedLogprobs(torch.autograd.Function):
    """The same in blocks of the vocabulary, each for all tokens at once (the online softmax, arXiv 1805.02867).

    Only the log of the sum of exponentials is kept; the backward computes the logits of each block again. Blocks of tokens instead
    of the vocabulary would add a gradient as large as the whole weight for every block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ME: Tensor,
        weight_VE: Tensor,
        labels_M: Tensor,
        temperature_M: Tensor,
        dtype: torch.dtype,
        entropy_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        num, device = len(labels_M), hidden_ME.device
        logsum_M = torch.full((num,), -torch.inf, device=device)
        chosen_M, mean_M = torch.zeros(num, device=device), torch.zeros(num, device=device)
        for block in _blocks(weight_VE, num):
            logits_MB = _logits(hidden_ME, weight_VE[block].to(dtype), temperature_M)
            here_M, label_M = _labels_in(block, labels_M)
            chosen_M = torch.where(here_M, logits_MB.gather(-1, label_M.unsqueeze(-1)).squeeze(-1), chosen_M)
            before_M, logsum_M = logsum_M, torch.logaddexp(logsum_M, logits_MB.logsumexp(-1))
            if ctx.needs_input_grad[0]:
                probs_MB = (logits_MB - logsum_M.unsqueeze(-1)).exp_()
                # The mean logit so far, under the softmax so far.
                mean_M = mean_M * (before_M - logsum_M).exp() + torch.linalg.vecdot(
                    probs_MB, logits_MB.clamp_min_(-1e30)
                )
        entropy_M = logsum_M - mean_M if ctx.needs_input_grad[0] else torch.zeros_like(logsum_M)
        ctx.save_for_backward(hidden_ME, weight_VE, labels_M, temperature_M, logsum_M, entropy_M)
        _set_outputs(ctx, entropy_M, dtype, entropy_grad)
        return chosen_M - logsum_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden_ME, weight_VE, labels_M, temperature_M, logsum_M, entropy_M = ctx.saved_tensors
        scaled_M = grads[0] / temperature_M
        # Many blocks are summed: in bfloat16 small gradients would be lost.
        grad_hidden_ME = torch.zeros_like(hidden_ME, dtype=torch.float32)
        grad_weight_VE = torch.empty_like(weight_VE) if ctx.needs_input_grad[1] else None
        for block in _blocks(weight_VE, len(labels_M)):
            cast_BE = weight_VE[block].to(ctx.dtype)
            probs_MB = _logits(hidden_ME, cast_BE, temperature_M).sub_(logsum_M.unsqueeze(-1)).exp_()
            here_M, label_M = _labels_in(block, labels_M)
            grad_MB = _logit_grads(probs_MB, label_M, scaled_M, where_M=here_M)
            if ctx.entropy_grad:
                grad_MB += _entropy_grads(probs_MB, entropy_M, grads[1] / temperature_M)
            grad_MB = grad_MB.to(ctx.dtype)
            grad_hidden_ME += grad_MB @ cast_BE
            if grad_weight_VE is not None:
                grad_weight_VE[block] = grad_MB.T @ hidden_ME
        return grad_hidden_ME.to(hidden_ME.dtype), grad_weight_VE, None, None, None, None


def _set_outputs(ctx: Any, entropy_M: Tensor, dtype: torch.dtype, entropy_grad: bool) -> None:
    ctx.dtype, ctx.entropy_grad = dtype, entropy_grad
    if not entropy_grad:
        ctx.mark_non_differentiable(entropy_M)


def _logit_grads(probs_MB: Tensor, labels_M: Tensor, scaled_M: Tensor, *, where_M: Tensor | None = None) -> Tensor:
    """d logprob / d logits = (one-hot - probability) / temperature, times the incoming gradient.

    Args:
        scaled_M: the incoming gradient over the temperature.
        where_M: False where the label is in another block.
    """
    one_hot_M = scaled_M if where_M is None else scaled_M * where_M
    return (probs_MB * -scaled_M.unsqueeze(-1)).scatter_add_(-1, labels_M.unsqueeze(-1), one_hot_M.unsqueeze(-1))


def _entropy_grads(probs_MB: Tensor, entropy_M: Tensor, scaled_M: Tensor) -> Tensor:
    """d entropy / d logits = -p (log p + H) / temperature, times the incoming gradient; 0 where the probability is 0."""
    surprise_MB = probs_MB.clamp_min(torch.finfo(probs_MB.dtype).tiny).log_().add_(entropy_M.unsqueeze(-1))
    return surprise_MB.mul_(probs_MB).mul_(-scaled_M.unsqueeze(-1))


def _blocks(weight_VE: Tensor, num: int) -> list[slice]:
    size = max(_MIN_BLOCK, _BLOCK_LOGITS[weight_VE.device.type] // num)
    return [slice(start, min(start + size, len(weight_VE))) for start in range(0, len(weight_VE), size)]


def _labels_in(block: slice, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """(whether each label is in the block, its index in the block; an arbitrary index for labels outside)."""
    label_M = labels_M - block.start
    here_M = (label_M >= 0) & (label_M < block.stop - block.start)
    return here_M, label_M * here_M


def _logits(hidden_CE: Tensor, weight_VE: Tensor, temperature_C: Tensor) -> Tensor:
    return (hidden_CE @ weight_VE.T).float().div_(temperature_C.unsqueeze(-1))
