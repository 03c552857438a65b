"""The reference workers as the loop sees them. They have no state to lose, so a dead one costs a restart and nothing else."""

from typing import Any

from r1ray.actors.group import ActorGroup
from r1ray.failures import RestartBudget, WorkerDied, WorkerFailed, WorkerUnresponsive
from r1ray.types import Batch, Floats


class ReferenceGroup:
    """Log-probs of a frozen model, which can be replaced by another one.

    Args:
        initial_path: the model folder that a worker loads when it starts.
        max_tokens: largest number of tokens in a row.
        start_timeout_s: for workers that are restarted.
    """

    def __init__(
        self,
        actors: ActorGroup,
        *,
        initial_path: str,
        max_tokens: int,
        timeout_s: float,
        start_timeout_s: float,
        restarts: RestartBudget,
    ) -> None:
        self.max_tokens = max_tokens
        self._actors, self._initial_path, self._path = actors, initial_path, initial_path
        self._timeout_s, self._start_timeout_s, self._restarts = timeout_s, start_timeout_s, restarts

    def __len__(self) -> int:
        return len(self._actors)

    def compute_logprobs_or_values(self, batch: Batch) -> list[list[Floats]]:
        """[worker][row] -> one value per token of the row. The batch is packed for `len(self)` ranks."""
        return self._on_all("compute_logprobs_or_values", [(rows,) for rows in batch.rows], what="compute log-probs")

    def load(self, path: str) -> None:
        """Load the model of another folder; does nothing when it is loaded already."""
        if path != self._path:
            self._path = path
            self._on_all("load", [(path,)] * len(self), what="load the reference")

    def _on_all(self, method: str, arguments: list[tuple[Any, ...]], *, what: str) -> list[Any]:
        while True:
            calls = zip(self._actors.handles, arguments, strict=True)
            refs = [getattr(handle, method).remote(*args) for handle, args in calls]
            try:
                return self._actors.gather(refs, what=what, timeout_s=self._timeout_s, key="trainer.timeout_s")
            except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
                failure = self._actors.cause_of(error)
                if failure is None:
                    raise
                self._restart(failure)

    def _restart(self, error: Exception) -> None:
        """Restart all workers: with ZeRO-3 they compute together, and the others wait for the lost one."""
        self._restarts.restart(
            {self._actors.role: error}, lambda _: self._actors.restart_all(timeout_s=self._start_timeout_s)
        )
        if self._path != self._initial_path:
            self._on_all("load", [(self._path,)] * len(self), what="load the reference")
