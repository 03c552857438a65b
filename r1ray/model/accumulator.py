"""The metrics of one optimizer update: kept on the device until all rows are done, then reduced over ranks once."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class MetricAccumulator:
    """Sums of losses, means over tokens with mask 1 of all rows and ranks, maxima for names that end in `/max`.

    Args:
        ranks_per_row: number of ranks that add the same rows, which count once.
    """

    def __init__(self, *, ranks_per_row: int = 1) -> None:
        self._ranks_per_row = ranks_per_row
        self._losses: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._maxima: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor], *, mask_L: Tensor) -> None:
        """Add {term: loss} (already weighted and summed) and {name: value_L} of one row."""
        chosen_L = mask_L > 0
        for term, loss in losses.items():
            _accumulate(self._losses, f"loss/{term}", loss.detach(), torch.add)
        _accumulate(self._sums, "tokens", chosen_L.sum(), torch.add)
        for name, value_L in metrics.items():
            value_L = value_L.detach()
            if name.endswith("/max"):
                # Reducing nan over ranks by maximum may lose it.
                largest = torch.where(chosen_L, value_L.nan_to_num(nan=torch.inf), -torch.inf).max()
                _accumulate(self._maxima, name, largest, torch.maximum)
            else:
                _accumulate(self._sums, name, torch.where(chosen_L, value_L, 0.0).sum(), torch.add)

    def over_ranks(self) -> dict[str, float]:
        """The metrics over all ranks; a collective. If no rank has a token with mask 1, means and maxima are 0."""
        sums = _reduced(self._losses | self._sums, dist.ReduceOp.SUM)
        sums = {name: value / self._ranks_per_row for name, value in sums.items()}
        maxima = _reduced(self._maxima, dist.ReduceOp.MAX) if self._maxima else {}
        tokens = sums.pop("tokens")
        metrics = {name: value if name in self._losses else value / max(1.0, tokens) for name, value in sums.items()}
        return metrics | {name: value if tokens else 0.0 for name, value in maxima.items()}


def _accumulate(values: dict[str, Tensor], name: str, value: Tensor, combine: Any) -> None:
    value = value.double()
    values[name] = combine(values[name], value) if name in values else value


def _reduced(values: Mapping[str, Tensor], op: Any) -> dict[str, float]:
    stacked = torch.stack(list(values.values()))
    dist.all_reduce(stacked, op=op)
    return dict(zip(values, stacked.tolist(), strict=True))
