"""A critic: the body of a language model with a scalar head, whose value is read before every token."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from r1ray.model.forward import RowTensors, hidden_states

HeadInit = Literal["zero", "normal", "uniform"]

HEAD_INITS: Mapping[HeadInit, Callable[[Tensor], Any]] = {
    "zero": nn.init.zeros_,
    "normal": lambda weight_1E: nn.init.normal_(weight_1E, std=1 / math.sqrt(weight_1E.shape[1] + 1)),
    "uniform": lambda weight_1E: nn.init.uniform_(weight_1E, -math.sqrt(5), math.sqrt(5)),
}
"""`critic.head_init`: normal as in trlx and OpenRLHF, uniform as in Open-Reasoner-Zero (arXiv 2503.24290)."""


class ValueModel(nn.Module):
    """V(s_t), the value before token t, computed from the hidden state at t - 1 like log-probs (`Policy`)."""

    def __init__(self, body: nn.Module, head: nn.Linear, *, autocast: bool = False) -> None:
        super().__init__()
        self.lm: Any = body
        self.head = ValueHead(head)
        self.autocast = autocast

    def forward(
        self, row: RowTensors, *, autocast: bool | None = None, entropy_grad: bool = False
    ) -> tuple[Tensor, Tensor]:
        """-> (values_L, zeros_L), float32, 0 at tokens that are not wanted. The zeros are in the place of a policy's entropy."""
        assert not entropy_grad, "a critic has no entropy"
        enabled = self.autocast if autocast is None else autocast
        with torch.autocast(row.label_M.device.type, dtype=torch.bfloat16, enabled=enabled):
            hidden_CE = hidden_states(self.lm, row)
        values_L = row.spread(self.head(hidden_CE.index_select(0, row.source_M)))
        return values_L, torch.zeros_like(values_L)


class ValueHead(nn.Module):
    """The one output of a linear layer, in float32 in any precision: values in bfloat16 would change in steps of a hundredth."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, hidden_ME: Tensor) -> Tensor:
        with torch.autocast(hidden_ME.device.type, enabled=False):
            return (hidden_ME.float() @ self.weight.float().T).squeeze(-1)


def value_head(width: int, *, init: HeadInit, seed: int) -> nn.Linear:
    """A head without a bias, drawn from the seed."""
    head = nn.Linear(width, 1, bias=False)
    torch.manual_seed(seed)
    HEAD_INITS[init](head.weight)
    return head
