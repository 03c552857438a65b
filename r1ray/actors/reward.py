"""The reward role: one group at a time, on CPUs. `r1ray.actors.workers.RayWorkers` distributes the groups."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import r1ray.reward
from r1ray.actors.culprits import Note, identity
from r1ray.config import Config
from r1ray.data.sources import program_languages
from r1ray.reward.base import RewardContext
from r1ray.reward.judge.client import num_requests, set_own_judges
from r1ray.reward.judge.server import Endpoint, JudgeFn
from r1ray.sandbox.current import allow_programs, num_runs, sandbox
from r1ray.types import Completion, Problem, Score

MAX_RETRIES = 3
"""For scoring outside a run: limit of restarts of a reward worker, and of attempts to score a group whose worker died."""


class RewardWorker:
    """Scores groups. It has no state to lose: after a restart the group is scored again.

    A fork of the process that a reward makes ends here: only the worker itself may answer.

    When rewards run programs, the constructor starts the sandbox, and raises SandboxUnavailable without one.
    """

    def __init__(
        self,
        *,
        index: int,
        cfg: Config,
        judges: Sequence[Callable[[Endpoint], JudgeFn]] = (),
        note: str | None = None,
    ) -> None:
        self.index, self._note, self._pid = index, Note(note), os.getpid()
        set_own_judges(judges)
        languages = program_languages((*cfg.data.train.values(), *cfg.eval.sets.values()))
        allow_programs(cfg.sandbox, languages)
        if languages:
            sandbox()
        self._scorer = r1ray.reward.make(cfg.reward)

    def ping(self) -> int:
        """Answers once the constructor has finished."""
        return self.index

    def status(self) -> dict[str, Any]:
        """For the heartbeat. A group may take longer than reward.timeout_s, but none of its programs or judge requests may."""
        return {"progress": num_runs() + num_requests()}

    def score(self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> tuple[Score, ...]:
        self._note.write(identity(problem, context))
        try:
            return self._scorer.score(problem, completions_G, context)
        finally:
            if os.getpid() != self._pid:
                os._exit(0)
            self._note.write("")

    def interrupted(self) -> str:
        """What the worker before this one in the slot was scoring when it ended (`r1ray.actors.culprits.identity`)."""
        return self._note.left
