"""The ranks of one trainer as the loop sees them. Apart from the worker: the driver starts without the model's libraries."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from r1ray.actors.group import HEALTH_TIMEOUT_S, ActorGroup
from r1ray.config import TrainerConfig
from r1ray.failures import TrainersLost, WorkerDied, WorkerFailed, WorkerUnresponsive
from r1ray.types import Batch, Floats, Row

GAP_LIMITS = {
    "fp32": ("mismatch/logprob_gap/max", 1e-3),
    "bf16_autocast": ("mismatch/logprob_gap/mean", 0.1),
    "bf16": ("mismatch/logprob_gap/mean", 0.1),
}
"""By precision: which log-prob gap to the engine is judged, and its limit where trainer.logprob_gap_limit is null. In bfloat16 one
unlikely token of a healthy engine can be off by more than 0.1 (`r1ray.sync.canary.ROUNDED`), so the mean is judged."""


class TrainerGroup:
    """The ranks of one trainer; every call goes to all of them and fails with the name of the rank that failed or is late.

    Raises TrainersLost when a rank is gone, which `r1ray.stages.recovery` answers; a rank that raises for reasons of its own (a
    mistake, a full device) is a WorkerFailed and ends the run: it would do so again.
    """

    def __init__(self, actors: ActorGroup, *, cfg: TrainerConfig) -> None:
        self._actors, self._cfg = actors, cfg
        self._skipped_in_a_row = 0

    def __len__(self) -> int:
        """Ranks that get rows of their own, those that share rows counted once: what batches are packed for."""
        return len(self._actors) // self._cfg.sequence_parallel

    @property
    def max_tokens(self) -> int:
        return self._cfg.max_tokens_per_micro_batch

    def update(self, batch: Batch) -> dict[str, float]:
        """One optimiser update (`TrainerWorker.update`). Raises RuntimeError when trainer.max_skipped_updates in a row were
        skipped.
        """
        refs = [handle.update.remote(rows) for handle, rows in self._each(batch)]
        metrics = self._gather(refs, "update")[0]
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if metrics["updates_skipped"] else 0
        if self._skipped_in_a_row >= self._cfg.max_skipped_updates:
            reason = skip_reason(metrics, cfg=self._cfg) or f"the gradient's norm is {metrics['grad_norm']}"
            raise RuntimeError(f"{self._skipped_in_a_row} updates in a row were skipped, the last because {reason}")
        return metrics

    def outputs(self, batch: Batch) -> list[list[Floats]]:
        """[rank][row] -> one value per token of the row, from the first of ranks that share rows."""
        refs = [handle.outputs.remote(rows) for handle, rows in self._each(batch)]
        return self._gather(refs, "compute log-probs")[:: self._cfg.sequence_parallel]

    def save(self, path: str) -> None:
        self._gather([handle.save.remote(path) for handle in self._actors.handles], "save its state")

    def load(self, path: str) -> None:
        self._gather([handle.load.remote(path) for handle in self._actors.handles], "load its state")

    def export_hf(self, path: str) -> None:
        self._gather([handle.export_hf.remote(path) for handle in self._actors.handles], "export the model")

    def _each(self, batch: Batch) -> list[tuple[Any, tuple[Row, ...]]]:
        rows_of_ranks = [rows for rows in batch.rows for _ in range(self._cfg.sequence_parallel)]
        return list(zip(self._actors.handles, rows_of_ranks, strict=True))

    def raise_if_lost(self, unresponsive: Collection[str] = ()) -> None:
        """For when something else has failed of which a lost rank may be the cause.

        Args:
            unresponsive: names of workers that count as lost whatever their hearts say.
        """
        for name in sorted(unresponsive):
            if name.startswith(f"{self._actors.role}-"):
                raise TrainersLost(f"{name} hangs, though its process answers")
        for error in self._actors.unhealthy(timeout_s=HEALTH_TIMEOUT_S).values():
            raise TrainersLost(str(error)) from error

    def _gather(self, refs: Sequence[Any], what: str) -> list[Any]:
        try:
            return self._actors.gather(refs, what=what, timeout_s=self._cfg.timeout_s)
        except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
            failure = self._actors.cause_of(error)
            if failure is None:
                raise
            raise TrainersLost(str(failure)) from error


def skip_reason(metrics: dict[str, float], *, cfg: TrainerConfig) -> str | None:
    """Why an update with these metrics must not be made; the same on every rank, for metrics are."""
    for name, value in metrics.items():
        if name.startswith("loss/") and not math.isfinite(value):
            return f"{name} is {value}"
    judged, limit = GAP_LIMITS[cfg.precision]
    limit = limit if cfg.logprob_gap_limit is None else cfg.logprob_gap_limit
    gap = metrics.get(judged, 0.0)
    if not gap <= limit:
        return (
            f"{judged} is {gap:.3g}, above trainer.logprob_gap_limit ({limit:g}): the engine does not sample from the "
            "distribution that is trained"
        )
    return None
