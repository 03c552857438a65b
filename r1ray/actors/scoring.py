"""Groups scored by many reward workers at a time, outside of a run: on Ray, or in processes of this machine."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import count, cycle
from multiprocessing import get_context
from typing import Any, TypeVar

from r1ray.actors.reward import RewardWorker
from r1ray.config import Config

AHEAD = 4
"""Groups given to a worker before its first is done."""
RESTARTS = 3
"""Of one actor, and of one group that was lost with a worker."""

Job = TypeVar("Job")
Arguments = tuple[Any, ...]
Submit = Callable[[Arguments], Callable[[], Any]]
"""Hands the arguments of `RewardWorker.score` to a worker; gives what waits for the scores."""


def scored(
    submit: Submit, jobs: Iterable[tuple[Job, Arguments | None]], *, num_workers: int
) -> Iterator[tuple[Job, Any]]:
    """(job, its scores) in the order of the jobs, which are read no further ahead than the workers need.

    A job without arguments has no scores, only its place.
    """
    waiting: deque[tuple[Job, Callable[[], Any]]] = deque()
    for job, arguments in jobs:
        waiting.append((job, submit(arguments) if arguments is not None else lambda: None))
        if len(waiting) >= AHEAD * num_workers:
            job, result = waiting.popleft()
            yield job, result()
    for job, result in waiting:
        yield job, result()


class LocalWorkers:
    """cfg.reward.num_workers processes. Groups that are lost with one are scored again; one that ends its worker RESTARTS times, or
    takes longer than reward.timeout_s, gets no scores (None).
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._pool = self._begun()
        self._given: dict[int, tuple[Arguments, Future[Any]]] = {}
        self._numbers = count()

    def submit(self, arguments: Arguments) -> Callable[[], Any]:
        number = next(self._numbers)
        self._given[number] = arguments, self._pool.submit(_score, arguments)
        return partial(self._result, number)

    def close(self) -> None:
        for process in list(self._pool._processes.values()):  # one that hangs would keep this process from its end
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _result(self, number: int) -> Any:
        result = None
        for _ in range(RESTARTS):
            try:
                result = self._given[number][1].result(timeout=self._cfg.reward.timeout_s)
                break
            except TimeoutError:
                break
            except BrokenProcessPool:
                self._begin_again()
        hung = not self._given.pop(number)[1].done()
        if hung:
            self._begin_again()
        return result

    def _begin_again(self) -> None:
        """What has been scored stays; the rest goes to new processes."""
        self.close()
        self._pool = self._begun()
        for number, (arguments, future) in self._given.items():
            if not future.done() or future.cancelled() or future.exception() is not None:
                self._given[number] = arguments, self._pool.submit(_score, arguments)

    def _begun(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._cfg.reward.num_workers, get_context("spawn"), _begin, (self._cfg,))


@contextmanager
def local_workers(cfg: Config) -> Iterator[Submit]:
    """In processes of this machine."""
    workers = LocalWorkers(cfg)
    try:
        yield workers.submit
    finally:
        workers.close()


@contextmanager
def ray_workers(cfg: Config) -> Iterator[Submit]:
    """In actors; one that is lost is started again, and does once more what it had to do. Raises PlacementError."""
    import ray

    from r1ray.actors import placement
    from r1ray.actors.cluster import connected

    with connected(cfg.cluster):
        places = placement.place(placement.needs_of(cfg, roles=("reward",)), timeout_s=cfg.cluster.placement_timeout_s)
        actor: Any = ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
        workers = [
            actor(RewardWorker)
            .options(num_cpus=slot.need.cpus, scheduling_strategy=slot.strategy)
            .remote(index=index, cfg=cfg)
            for index, slot in enumerate(places["reward"])
        ]
        turns = cycle(workers)

        def submit(arguments: Arguments) -> Callable[[], Any]:
            return partial(ray.get, next(turns).score.remote(*arguments), timeout=cfg.reward.timeout_s)

        yield submit


_workers: list[RewardWorker] = []
"""Of this process: one, once it has begun."""


def _begin(cfg: Config) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _workers[:] = [RewardWorker(index=0, cfg=cfg)]


def _score(arguments: Arguments) -> Any:
    return _workers[0].score(*arguments)
