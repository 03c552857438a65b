"""LoRA (Hu et al. 2021, arXiv 2106.09685): frozen linear layers, each with two thin matrices that are trained.

h = x W^T + (alpha / rank) x A^T B^T, with A drawn at random and B = 0, so that training begins exactly at the base model. Engines,
the reference and exported folders get W + (alpha / rank) B A under the name of W: an ordinary model.

Why not peft: the layer is a few lines, and peft does not solve the difficult part. Under ZeRO-3, base, A and B of one layer
are gathered together and merged outside the model (peft merges in place, into sharded weights), in float32 and under the names of
transformers; and peft adds a second package (accelerate) to every trainer.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r1ray.config import LoraConfig
from r1ray.config.model import ALL_LINEAR

ADAPTERS = ("lora_a", "lora_b")


class LoraLinear(nn.Module):
    """Replaces a linear layer and keeps the names of its parameters.

    All parameters belong to this module, not to a layer inside it: with ZeRO-3 they are gathered only while this module runs.
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        bound = 1 / math.sqrt(linear.in_features)
        # Drawn as in the paper's code (the paper says Gaussian). In float32, so that a seed gives the same A in any precision.
        drawn = torch.rand(rank, linear.in_features, generator=generator) * (2 * bound) - bound
        self.lora_a = nn.Parameter(drawn.to(**like))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedWeight:
    """A weight of the model without adapters, and the parameters it is computed from."""

    name: str
    base: nn.Parameter
    adapter: LoraLinear | None

    @property
    def parts(self) -> list[nn.Parameter]:
        """The parameters that must be gathered before `merged` is called."""
        return [self.base] if self.adapter is None else [self.base, self.adapter.lora_a, self.adapter.lora_b]

    def merged(self) -> Tensor:
        """A new tensor W + scale B A, summed in float32; without an adapter W itself, not a copy."""
        base, adapter = self.base.detach(), self.adapter
        if adapter is None:
            return base
        change = adapter.lora_b.detach().float() @ adapter.lora_a.detach().float()
        return base.float().add(change, alpha=adapter.scale).to(base.dtype)


def merged_weights(lm: nn.Module) -> Iterator[MergedWeight]:
    """Every weight of a model, with or without adapters, in the order and with the names of the model without them."""
    adapted = {f"{name}.weight": module for name, module in lm.named_modules() if isinstance(module, LoraLinear)}
    for name, parameter in lm.named_parameters():
        if not name.endswith(ADAPTERS):
            yield MergedWeight(name=name, base=parameter, adapter=adapted.get(name))


def add_adapters(lm: Any, lora: LoraConfig, *, seed: int) -> None:
    """Freeze the model, and add adapters to the linear layers of its blocks that `lora.targets` names.

    Embedding and head are outside the blocks and get none, tied or not.

    Raises:
        ValueError: a target names no such layer.
    """
    layers = {name: module for name, module in lm.model.named_modules() if isinstance(module, nn.Linear)}
    kinds = {name.rpartition(".")[2] for name in layers}
    if unknown := [target for target in lora.targets if target not in {*kinds, ALL_LINEAR}]:
        raise ValueError(
            f"model.lora.targets names {', '.join(unknown)}, but the model's blocks have no such linear layer: choose from "
            f"{', '.join(sorted(kinds))}, or {ALL_LINEAR} for all of them"
        )
    lm.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, linear in layers.items():
        parent, _, kind = name.rpartition(".")
        if kind in lora.targets or ALL_LINEAR in lora.targets:
            adapted = LoraLinear(linear, rank=lora.rank, alpha=lora.alpha, generator=generator)
            setattr(lm.model.get_submodule(parent), kind, adapted)
