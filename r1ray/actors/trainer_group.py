"""The ranks of one trainer as the loop sees them. Not in the worker's file, so that the driver imports no model libraries."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from r1ray.actors.group import HEALTH_TIMEOUT_S, ActorGroup, settle
from r1ray.config import TrainerConfig
from r1ray.failures import TrainersLost, UpdateFailed, WorkerDied, WorkerFailed, WorkerUnresponsive
from r1ray.types import Batch, Floats, Row

GAP_LIMITS = {
    "fp32": ("mismatch/logprob_gap/max", 1e-3),
    "bf16_autocast": ("mismatch/logprob_gap/mean", 0.1),
    "bf16": ("mismatch/logprob_gap/mean", 0.1),
}
"""{precision: (the log-prob gap to the engine that is checked, its limit where trainer.logprob_gap_limit is null)}. In bfloat16 one
unlikely token of a healthy engine can be off by more than 0.1 (`r1ray.sync.canary.ROUNDED`), so the mean is checked."""


class TrainerGroup:
    """The ranks of one trainer. Every call goes to all ranks; its error names the rank that failed or did not answer.

    Raises TrainersLost when a rank is gone: `r1ray.stages.recovery` then restarts the trainers. Raises WorkerFailed when a healthy
    rank raises an error (a bug, a full device): this ends the run, because it would happen again.
    """

    def __init__(self, actors: ActorGroup, *, cfg: TrainerConfig) -> None:
        self._actors, self._cfg = actors, cfg
        self._consecutive_skips = 0

    def __len__(self) -> int:
        """Number of ranks that get rows of their own (ranks that share rows count once): what batches are packed for."""
        return len(self._actors) // self._cfg.sequence_parallel

    @property
    def max_tokens(self) -> int:
        return self._cfg.max_tokens_per_micro_batch

    def update(self, batch: Batch) -> dict[str, float]:
        """One optimizer update (`TrainerWorker.update`).

        Raises UpdateFailed when an error left the weights of all ranks as they were, RuntimeError after
        trainer.max_skipped_updates skips in a row.
        """
        refs = [handle.update.remote(rows) for handle, rows in self._each(batch)]
        try:
            metrics = self._gather(refs, "update")[0]
        except WorkerFailed as error:
            if self._unchanged():
                raise UpdateFailed(str(error)) from error
            raise
        self._consecutive_skips = self._consecutive_skips + 1 if metrics["updates_skipped"] else 0
        if self._consecutive_skips >= self._cfg.max_skipped_updates:
            reason = skip_reason(metrics, cfg=self._cfg) or f"the gradient norm is {metrics['grad_norm']}"
            raise RuntimeError(
                f"{self._consecutive_skips} updates in a row were skipped (trainer.max_skipped_updates), the last because {reason}"
            )
        return metrics

    def _unchanged(self) -> bool:
        """Whether all ranks have ended the update that failed, before it changed any weights."""
        calls = {
            self._actors.name(index): handle.num_updates.remote() for index, handle in enumerate(self._actors.handles)
        }
        numbers, failed = settle(calls, what="count updates", timeout_s=HEALTH_TIMEOUT_S)
        return not failed and len(set(numbers.values())) == 1 and None not in numbers.values()

    def compute_logprobs_or_values(self, batch: Batch) -> list[list[Floats]]:
        """[rank][row] -> one value per token of the row. Of ranks that share rows only the first one's is kept."""
        refs = [handle.compute_logprobs_or_values.remote(rows) for handle, rows in self._each(batch)]
        return self._gather(refs, "compute log-probs")[:: self._cfg.sequence_parallel]

    def save(self, path: str) -> None:
        self._gather([handle.save.remote(path) for handle in self._actors.handles], "save trainer state")

    def load(self, path: str) -> None:
        self._gather([handle.load.remote(path) for handle in self._actors.handles], "load trainer state")

    def export_hf(self, path: str) -> None:
        self._gather([handle.export_hf.remote(path) for handle in self._actors.handles], "export the model")

    def _each(self, batch: Batch) -> list[tuple[Any, tuple[Row, ...]]]:
        rows_of_ranks = [rows for rows in batch.rows for _ in range(self._cfg.sequence_parallel)]
        return list(zip(self._actors.handles, rows_of_ranks, strict=True))

    def raise_if_lost(self, unresponsive: Collection[str] = ()) -> None:
        """Raise TrainersLost if a rank is gone. Called after a failure, as of a weight sync, that a lost rank may have caused.

        Args:
            unresponsive: names of workers that count as lost even though their heartbeats answer.
        """
        for name in sorted(unresponsive):
            if name.startswith(f"{self._actors.role}-"):
                raise TrainersLost(f"{name} hangs, though its process answers heartbeats")
        for error in self._actors.unhealthy(timeout_s=HEALTH_TIMEOUT_S).values():
            raise TrainersLost(str(error)) from error

    def _gather(self, refs: Sequence[Any], what: str) -> list[Any]:
        try:
            return self._actors.gather(refs, what=what, timeout_s=self._cfg.timeout_s, key="trainer.timeout_s")
        except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
            failure = self._actors.cause_of(error)
            if failure is None:
                raise
            raise TrainersLost(str(failure)) from error


def skip_reason(metrics: dict[str, float], *, cfg: TrainerConfig) -> str | None:
    """Why an update with these metrics has to be skipped, or None. The same on every rank, because the metrics are."""
    for name, value in metrics.items():
        if name.startswith("loss/") and not math.isfinite(value):
            return f"{name} is {value}"
    name, limit = GAP_LIMITS[cfg.precision]
    limit = limit if cfg.logprob_gap_limit is None else cfg.logprob_gap_limit
    gap = metrics.get(name, 0.0)
    if not gap <= limit:
        return (
            f"{name} is {gap:.3g}, above trainer.logprob_gap_limit ({limit:g}): the engine does not sample from the policy that is "
            "trained"
        )
    return None
