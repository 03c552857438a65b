"""The reward role: scores one group at a time, on CPUs. `r1ray.actors.workers.RayWorkers` spreads groups over the workers."""

from collections.abc import Callable, Sequence
from typing import Any

import r1ray.reward
from r1ray.config import Config
from r1ray.data.sources import program_languages
from r1ray.reward.base import RewardContext
from r1ray.reward.judge.client import num_requests, set_own_judges
from r1ray.reward.judge.server import Endpoint, Server
from r1ray.sandbox.here import allow_programs, num_runs, sandbox
from r1ray.types import Completion, Problem, Score


class RewardWorker:
    """Holds no state that matters: a worker that died is started again and the group scored once more.

    Where programs have to be run it opens its sandbox first, and does not start without one.
    """

    def __init__(self, *, index: int, cfg: Config, judges: Sequence[Callable[[Endpoint], Server]] = ()) -> None:
        self.index = index
        set_own_judges(judges)
        languages = program_languages((*cfg.data.train.values(), *cfg.eval.sets.values()))
        allow_programs(cfg.sandbox, languages)
        if languages:
            sandbox()
        self._scorer = r1ray.reward.make(cfg.reward)

    def ping(self) -> int:
        """Answers once the worker is up."""
        return self.index

    def status(self) -> dict[str, Any]:
        """For the heartbeat: a group may take longer than reward.timeout_s, but not one of its programs or requests to a judge."""
        return {"progress": num_runs() + num_requests()}

    def score(self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> tuple[Score, ...]:
        return self._scorer.score(problem, completions_G, context)
