"""Reward workers as actors, outside a run (`r1ray.grade`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import ray

from r1ray.actors import placement
from r1ray.actors.cluster import connected
from r1ray.actors.reward import MAX_RETRIES, RewardWorker
from r1ray.config import Config


@contextmanager
def ray_workers(cfg: Config) -> Iterator[Callable[[tuple[Any, ...]], Callable[[], Any]]]:
    """Score in actors (`r1ray.scoring.Submit`). Ray restarts an actor that dies and repeats its calls. Raises PlacementError."""
    with connected(cfg.cluster):
        slots = placement.place(placement.needs_of(cfg, roles=("reward",)), timeout_s=cfg.cluster.placement_timeout_s)
        actor: Any = ray.remote(max_restarts=MAX_RETRIES, max_task_retries=MAX_RETRIES)
        workers = [
            actor(RewardWorker)
            .options(num_cpus=slot.need.cpus, scheduling_strategy=slot.strategy)
            .remote(index=index, cfg=cfg)
            for index, slot in enumerate(slots["reward"])
        ]
        turns = cycle(workers)

        def submit(arguments: tuple[Any, ...]) -> Callable[[], Any]:
            return partial(ray.get, next(turns).score.remote(*arguments), timeout=cfg.reward.timeout_s)

        yield submit
