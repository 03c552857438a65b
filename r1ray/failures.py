"""How workers fail, and how many restarts a stage has for them. `r1ray.actors` raises these errors, `r1ray.stages` handles them."""

import time
from collections.abc import Callable, Collection, Mapping

MAX_PAUSE_S = 60.0


class WorkerUnresponsive(TimeoutError):
    """A worker did not answer in time. The message names the worker and the call."""


class WorkerDied(RuntimeError):
    """A worker's process ended. The message names the worker, the call and the reason that Ray reports."""

    def __init__(self, message: str, *, actor_id: str | None = None) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        """The actor that died: the one that was called, or the one that computed an argument of the call."""


class WorkerFailed(RuntimeError):
    """A call raised an exception in the worker. The message starts with the worker's name and the remote exception."""


class ResultLost(WorkerFailed):
    """The call finished, but the node that held its result is gone. The call has to be repeated."""


class UpdateFailed(WorkerFailed):
    """The loss raised an exception on every rank, so the update has changed no weights. The message is as for WorkerFailed."""


class TrainersLost(RuntimeError):
    """A trainer rank died or hangs, so the weights of this step are lost: all ranks have to restart from the last checkpoint."""


class PlacementError(RuntimeError):
    """The actors do not fit the cluster. The message lists what they need, what each node has, and an override that fits."""


Failures = dict[str, WorkerDied | WorkerFailed | WorkerUnresponsive]
"""{worker: why it failed}."""


class RestartBudget:
    """Restarts that the workers of a stage share (`cluster.max_restarts`).

    The budget is refilled when the stage reaches a new step: repeated failures in the same step are no accident. Every restart is
    logged to events.jsonl.
    """

    def __init__(self, limit: int, *, event: Callable[..., None]) -> None:
        self._limit, self._event, self._used, self._furthest_step = limit, event, 0, 0

    def begin_step(self, step: int) -> None:
        """Refill the budget, unless the stage has already reached this step before a restart."""
        if step > self._furthest_step:
            self._furthest_step, self._used = step, 0

    def spend(self, failed: Mapping[str, Exception], *, counted: bool = True) -> None:
        """Count one restart for all workers that failed together ({worker: why}): a lost node takes several with it.

        Raises the error of the first worker when the budget is used up.
        """
        if counted:
            self.charge(failed)
        for worker, error in failed.items():
            self._event("worker_restarted", worker=worker, reason=str(error))

    def charge(self, failed: Mapping[str, Exception]) -> None:
        """`spend` without an event, for a restart that was not counted at first."""
        self._used += 1
        if self._used > self._limit:
            error = next(iter(failed.values()))
            raise type(error)(
                f"{error} (giving up after {self._limit} restarts without a new step: cluster.max_restarts={self._limit}). Correct "
                "the cause, which the worker's log shows, and continue with resume=auto; if failures are merely frequent, increase "
                "cluster.max_restarts"
            )

    def excuse(self) -> None:
        """Take back one restart of this step: the worker was not at fault."""
        self._used = max(0, self._used - 1)

    def restart(
        self,
        failed: Mapping[str, Exception],
        start: Callable[[Collection[str]], Mapping[str, Exception]],
        *,
        counted: bool = True,
    ) -> None:
        """Call `start` with the workers that failed. Repeat with those it returns, after growing pauses, within the budget.

        Args:
            counted: False where something else may be at fault than the workers; failures to start count all the same.
        """
        pause_s = 1.0
        while True:
            self.spend(failed, counted=counted)
            counted = True
            try:
                failed = start(list(failed))
            except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
                failed = dict.fromkeys(failed, error)
            if not failed:
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
