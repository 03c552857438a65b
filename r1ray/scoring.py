"""Scoring groups outside a run, on many reward workers: processes of this machine, or actors (`r1ray.actors.scoring`)."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing import get_context
from typing import Any, TypeVar

from r1ray.actors.reward import MAX_RETRIES, RewardWorker
from r1ray.config import Config

QUEUED_PER_WORKER = 4
"""Groups submitted per worker before the oldest result is awaited."""

Job = TypeVar("Job")
Arguments = tuple[Any, ...]
Submit = Callable[[Arguments], Callable[[], Any]]
"""Sends the arguments of `RewardWorker.score` to a worker; returns a function that waits for the scores."""


def scored(
    submit: Submit, jobs: Iterable[tuple[Job, Arguments | None]], *, num_workers: int
) -> Iterator[tuple[Job, Any]]:
    """(job, its scores) in the order of the jobs, which are read only as far ahead as the workers need.

    A job without arguments keeps its place and gets None.
    """
    waiting: deque[tuple[Job, Callable[[], Any]]] = deque()
    for job, arguments in jobs:
        waiting.append((job, submit(arguments) if arguments is not None else lambda: None))
        if len(waiting) >= QUEUED_PER_WORKER * num_workers:
            job, result = waiting.popleft()
            yield job, result()
    for job, result in waiting:
        yield job, result()


class LocalWorkers:
    """cfg.reward.num_workers processes. When one dies, its groups are scored again.

    A group gets no scores (None) when its process died MAX_RETRIES times, or when it takes longer than reward.timeout_s.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._pool = self._new_pool()
        self._submitted: dict[int, tuple[Arguments, Future[Any]]] = {}
        self._numbers = count()

    def submit(self, arguments: Arguments) -> Callable[[], Any]:
        number = next(self._numbers)
        self._submitted[number] = arguments, self._pool.submit(_score, arguments)
        return partial(self._result, number)

    def close(self) -> None:
        for process in list(self._pool._processes.values()):  # one that hangs would keep this process from exiting
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _result(self, number: int) -> Any:
        result = None
        for _ in range(MAX_RETRIES):
            try:
                result = self._submitted[number][1].result(timeout=self._cfg.reward.timeout_s)
                break
            except TimeoutError:
                break
            except BrokenProcessPool:
                self._restart()
        hung = not self._submitted.pop(number)[1].done()
        if hung:
            self._restart()
        return result

    def _restart(self) -> None:
        """Start new processes and submit again what has no scores yet."""
        self.close()
        self._pool = self._new_pool()
        for number, (arguments, future) in self._submitted.items():
            if not future.done() or future.cancelled() or future.exception() is not None:
                self._submitted[number] = arguments, self._pool.submit(_score, arguments)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._cfg.reward.num_workers, get_context("spawn"), _start_worker, (self._cfg,))


@contextmanager
def local_workers(cfg: Config) -> Iterator[Submit]:
    """Score in processes of this machine."""
    workers = LocalWorkers(cfg)
    try:
        yield workers.submit
    finally:
        workers.close()


_workers: list[RewardWorker] = []
"""The one worker of this process, once it has started."""


def _start_worker(cfg: Config) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _workers[:] = [RewardWorker(index=0, cfg=cfg)]


def _score(arguments: Arguments) -> Any:
    return _workers[0].score(*arguments)
