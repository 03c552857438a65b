"""Groups whose scoring ends its worker: a segmentation fault, os._exit, memory, an endless loop.

A reward worker writes down what it scores. The worker that replaces it in its slot knows from this note which group its predecessor
had in its hands, and not only which ones were queued. The second time that this is the same group, the group is at fault: it gets
no score (`Score.errors` has the reason), is not sent to a third worker, and its restarts do not count.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path

from r1ray.actors.group import HEALTH_TIMEOUT_S, ActorGroup, settle
from r1ray.reward.base import WORKER, RewardContext
from r1ray.types import ComponentError, Problem, Score

MAX_DEATHS = 2


class Note:
    """The file in which a reward worker notes what it scores; None: nowhere. A note that cannot be written is left out."""

    def __init__(self, path: str | None) -> None:
        self.left = ""
        """What the worker before this one in the slot was scoring when it ended; "" when it was not scoring."""
        self._file: int | None = None
        if path is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self.left = Path(path).read_text(errors="replace")
        except OSError:
            self._file = None
        self.write("")

    def write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(errors="replace"), 0)
        except OSError:  # a full disk; then only the worker that ended is known, not why
            self._file = None


def identity(problem: Problem, context: RewardContext) -> str:
    """Names one attempt at one problem in a note."""
    return json.dumps([problem.id, context.step, context.seed])


def last_scored(rewards: ActorGroup, names: Collection[str]) -> set[str]:
    """What the predecessors of these workers, which have just been replaced, were scoring when they ended."""
    handles = {rewards.name(index): handle for index, handle in enumerate(rewards.handles)}
    calls = {name: handles[name].interrupted.remote() for name in names}
    notes, _ = settle(calls, what="ask what ended its predecessor", timeout_s=HEALTH_TIMEOUT_S)
    return {note for note in notes.values() if note}


def no_scores(num: int, *, worker: str, error: Exception) -> tuple[Score, ...]:
    """The scores of a group that has ended MAX_DEATHS workers."""
    why = ComponentError(
        message=f"{MAX_DEATHS} workers ended or hung while they scored it, the last one: {error}",
        place=f"logs/{worker}.log, or the stacks in events.jsonl",
        traceback="",
    )
    score = Score(reward=0.0, correct=None, components={}, statuses={}, usable=False, seconds=0.0, errors={WORKER: why})
    return (score,) * num
