"""How often workers are started again before a run gives up: something that kills them all the time is not an accident."""

from collections.abc import Callable

from r1ray.actors.group import WorkerDied, WorkerFailed, WorkerLate


class Restarts:
    """One budget for all workers of a stage (`cluster.max_restarts`); every restart becomes an event."""

    def __init__(self, limit: int, *, event: Callable[..., None]) -> None:
        self._limit, self._event, self._count = limit, event, 0

    def spend(self, who: str, error: Exception) -> None:
        """One restart of `who` because of `error`. Raises `error`'s class when there is none left."""
        self._count += 1
        if self._count > self._limit:
            raise type(error)(f"{error} (and {self._limit} restarts have been made before: cluster.max_restarts)")
        self._event("worker_restarted", worker=who, reason=str(error))

    def again(self, who: str, error: Exception, start: Callable[[], None]) -> None:
        """`start` who was lost because of `error`; once more, as long as the budget lasts, when that fails or is cut short."""
        while True:
            self.spend(who, error)
            try:
                return start()
            except (WorkerDied, WorkerFailed, WorkerLate) as failed:
                error = failed
