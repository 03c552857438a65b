"""Log-probabilities of given tokens under a causal language model, without the logits of the whole vocabulary.

Two things live here and nowhere else: the shift between logits and labels (the hidden state at t - 1 speaks of token t), and the
division of logits by the sampling temperature.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from r1ray.model.attention import Segments, segments_of
from r1ray.types import Row

_MAX_LOGITS = {"cpu": 2**24, "cuda": 2**27}
"""Entries of the float32 logits that exist at one time: 64 MiB; 512 MiB where small matrices would waste the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTensors:
    """What the model needs of a packed row, on its device."""

    token_ids_L: Tensor
    positions_L: Tensor
    temperature_L: Tensor
    target_M: Tensor
    """Indices of the tokens whose log-probs are wanted; none of them is the first of its sequence."""
    segments: Segments


def row_tensors(row: Row, *, device: torch.device) -> RowTensors:
    """A row for `Policy.forward`; wanted are the tokens where mask_L is not 0."""
    target_M = np.flatnonzero((row.mask_L > 0) & (row.positions_L > 0))
    lengths = np.bincount(row.segment_L).tolist()
    return RowTensors(
        token_ids_L=torch.tensor(row.token_ids_L, dtype=torch.long, device=device),
        positions_L=torch.tensor(row.positions_L, dtype=torch.long, device=device),
        temperature_L=torch.tensor(row.temperature_L, device=device),
        target_M=torch.tensor(target_M, device=device),
        segments=segments_of(lengths, device=device),
    )


class Policy(nn.Module):
    """A Hugging Face causal LM whose forward gives the log-probs of a packed row's own tokens.

    Its lm_head is replaced by a `LogprobHead` over the same weight: a module of its own, because under ZeRO-3 the weight (also one
    tied to the embedding) is whole only while DeepSpeed's hooks run the module that owns it.
    """

    def __init__(self, lm: nn.Module, *, autocast: bool = False) -> None:
        super().__init__()
        self.lm: Any = lm
        self.autocast = autocast
        """Matrix products in bfloat16 while weights stay float32. Ours rather than DeepSpeed's, so that canaries can do without."""
        self.lm.lm_head = LogprobHead(self.lm.lm_head)

    def forward(self, row: RowTensors, *, autocast: bool | None = None) -> tuple[Tensor, Tensor]:
        """-> (logprobs_L, entropy_L), float32, 0 at tokens that are not wanted.

        Entropy is of the distribution, at the token's temperature, from which the token would be drawn. It carries no gradient and
        is 0 where log-probs carry none either (under no_grad nobody asks for it). `autocast` overrides the policy's own.
        """
        enabled = self.autocast if autocast is None else autocast
        with torch.autocast(row.token_ids_L.device.type, dtype=torch.bfloat16, enabled=enabled):
            # use_cache=False: with a cache object transformers would treat the row as one sequence in more than one place.
            hidden_LE = self.lm.model(
                input_ids=row.token_ids_L.unsqueeze(0),
                position_ids=row.positions_L.unsqueeze(0),
                attention_mask=None,
                use_cache=False,
                segments=row.segments,
            ).last_hidden_state[0]
            logprobs_M, entropy_M = self.lm.lm_head(
                hidden_LE.index_select(0, row.target_M - 1),
                row.token_ids_L.index_select(0, row.target_M),
                row.temperature_L.index_select(0, row.target_M),
            )
        zeros_L = torch.zeros(len(row.token_ids_L), dtype=torch.float32, device=row.token_ids_L.device)
        return zeros_L.index_copy(0, row.target_M, logprobs_M), zeros_L.index_copy(0, row.target_M, entropy_M)


class LogprobHead(nn.Module):
    """lm_head with another output: log-probs of labels instead of logits. Shares the linear layer's parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("a model whose lm_head has a bias is not supported")
        self.weight = linear.weight

    def forward(self, hidden_ME: Tensor, labels_M: Tensor, temperature_M: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [M, E] -> (log-probs [M], entropy [M]), float32."""
        device = hidden_ME.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        with torch.autocast(device, enabled=False):  # else the entropy's dot product would be in bfloat16
            return _ChunkedLogprobs.apply(hidden_ME.to(dtype), self.weight, labels_M, temperature_M, dtype)


class _ChunkedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[label], by chunks of tokens.

    When one chunk holds all tokens its probabilities are kept for the backward; otherwise each chunk's logits are computed again
    there (a quarter more time for a vocabulary of 152k, and memory that does not grow with the row).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ME: Tensor, weight_VE: Tensor, labels_M: Tensor, temperature_M: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        num, size = len(labels_M), max(1, _MAX_LOGITS[hidden_ME.device.type] // weight_VE.shape[0])
        logprobs_M, entropy_M = (torch.zeros(num, device=hidden_ME.device) for _ in range(2))
        probs_MV = None
        cast_VE = weight_VE.to(dtype)
        for chunk in _chunks(num, size):
            log_CV = _logits(hidden_ME[chunk], cast_VE, temperature_M[chunk]).log_softmax(-1)
            logprobs_M[chunk] = log_CV.gather(-1, labels_M[chunk].unsqueeze(-1)).squeeze(-1)
            if ctx.needs_input_grad[0]:
                probs_CV = log_CV.exp()
                # A logit of -inf has probability 0 and adds nothing.
                entropy_M[chunk] = -torch.linalg.vecdot(probs_CV, log_CV.clamp_min_(-1e30))
                probs_MV = probs_CV if num <= size else None
        ctx.save_for_backward(hidden_ME, weight_VE, labels_M, temperature_M, probs_MV)
        ctx.chunk_size, ctx.dtype = size, dtype
        ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_ME, weight_VE, labels_M, temperature_M, probs_MV = ctx.saved_tensors
        num, cast_VE = len(labels_M), weight_VE.to(ctx.dtype)
        scaled_M = grads[0] / temperature_M
        grad_hidden_ME = torch.empty_like(hidden_ME)
        # Many chunks are summed: in bfloat16 the small ones would be lost.
        grad_weight_VE = torch.zeros_like(cast_VE, dtype=torch.float32)
        for chunk in _chunks(num, ctx.chunk_size):
            kept = probs_MV is not None
            probs_CV = probs_MV if kept else _logits(hidden_ME[chunk], cast_VE, temperature_M[chunk]).softmax(-1)
            # d logprob / d logits = (one-hot - probability) / temperature
            grad_CV = probs_CV * -scaled_M[chunk].unsqueeze(-1)
            grad_CV.scatter_add_(-1, labels_M[chunk].unsqueeze(-1), scaled_M[chunk].unsqueeze(-1))
            grad_CV = grad_CV.to(ctx.dtype)
            grad_hidden_ME[chunk] = grad_CV @ cast_VE
            grad_weight_VE += grad_CV.T @ hidden_ME[chunk]
        return grad_hidden_ME, grad_weight_VE.to(weight_VE.dtype), None, None, None


def _chunks(num: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]


def _logits(hidden_CE: Tensor, weight_VE: Tensor, temperature_C: Tensor) -> Tensor:
    return (hidden_CE @ weight_VE.T).float().div_(temperature_C.unsqueeze(-1))
