"""How often workers are started again before a run gives up: something that kills them all the time is not an accident."""

import time
from collections.abc import Callable, Collection, Mapping

from r1ray.actors.group import WorkerDied, WorkerFailed, WorkerUnresponsive

LONGEST_PAUSE_S = 60.0


class RestartBudget:
    """One budget for all workers of a stage (`cluster.max_restarts`), full again with every new step; every restart is an event."""

    def __init__(self, limit: int, *, event: Callable[..., None]) -> None:
        self._limit, self._event, self._count, self._furthest = limit, event, 0, 0

    def step(self, step: int) -> None:
        """A step begins. One that the stage has never reached shows that it gets on; one that is made again does not."""
        if step > self._furthest:
            self._furthest, self._count = step, 0

    def spend(self, lost: Mapping[str, Exception]) -> None:
        """One restart, of all who were lost together ({worker: why}): a node takes many with it, and is one accident.

        Raises the class of the first one's error when there is no restart left.
        """
        self._count += 1
        if self._count > self._limit:
            error = next(iter(lost.values()))
            raise type(error)(f"{error} (and {self._limit} restarts have been made before: cluster.max_restarts)")
        for worker, error in lost.items():
            self._event("worker_restarted", worker=worker, reason=str(error))

    def restart(
        self, lost: Mapping[str, Exception], start: Callable[[Collection[str]], Mapping[str, Exception]]
    ) -> None:
        """`start` those that were lost; those that it gives back once more, after longer pauses, while the budget lasts."""
        pause_s = 1.0
        while True:
            self.spend(lost)
            try:
                lost = start(list(lost))
            except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
                lost = dict.fromkeys(lost, error)
            if not lost:
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
