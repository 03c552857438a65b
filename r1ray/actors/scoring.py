"""Groups scored by many reward workers at a time, outside of a run: on Ray, or in processes of this machine."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from typing import Any, TypeVar

from r1ray.actors.reward import RewardWorker
from r1ray.config import Config

AHEAD = 4
"""Groups given to a worker before its first is done."""
RESTARTS = 3
"""Of one worker, and of one group that was lost with a worker."""

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


@contextmanager
def local_workers(cfg: Config) -> Iterator[Submit]:
    """In cfg.reward.num_workers processes."""
    with ProcessPoolExecutor(cfg.reward.num_workers, get_context("spawn"), _begin, (cfg,)) as pool:

        def submit(arguments: Arguments) -> Callable[[], Any]:
            future: Future[Any] = pool.submit(_score, arguments)
            return partial(future.result, timeout=cfg.reward.timeout_s)

        try:
            yield submit
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
