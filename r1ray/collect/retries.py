"""The groups of one step while they are generated and scored, and the retries of those that failed.

A group with too few usable scores (fewer than two) is retried in this order:

    rescore      only the scores failed (a judge, a sandbox, a model): the same completions are scored again, up to MAX_RESCORES
                 times, by another worker if there is one
    regenerate   new completions with other seeds (`attempt` + 1), up to rollout.max_attempts attempts
    drop         the problem is given up, counted and written to the ledger

Completions on which two reward workers ended are not scored again: their problem is dropped at once.
While a reward component is down (`r1ray.collect.outages`) nothing is regenerated or dropped: the step waits and rescores.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ray.collect.outages import MIN_FAILURES, Outages, down_on, failures_needed, sleep_until, which_worked
from r1ray.collect.reward_errors import RewardErrors
from r1ray.collect.selection import Selection
from r1ray.collect.workers import Ref, Workers
from r1ray.data.stream import Drawn, Problems
from r1ray.engine.base import SamplingSpec
from r1ray.reward.base import WORKER, RewardContext
from r1ray.run.ledger import Ledger
from r1ray.run.stop import Stopped, stop_reason
from r1ray.seeds import seed_of
from r1ray.types import Completion, Group, Score

MAX_RESCORES = 2
"""How often the completions of one attempt are scored again before the group is regenerated."""


@dataclass(slots=True, eq=False)
class DispatchedGroup:
    """One dispatched problem and the state of its group."""

    number: int
    """0 for the first of the step."""
    drawn: Drawn
    attempt: int = 0
    """Grows with every regeneration."""
    generating: Ref = None
    scoring: Ref = None
    completions: tuple[Completion, ...] | None = None
    scores: tuple[Score, ...] | None = None
    rescored: int = 0
    """How often the completions of this attempt have been scored again."""
    failed: Sequence[str] = ()
    """The reward components that could not score it."""


@dataclass(slots=True, kw_only=True)
class InFlight:
    """Generates and scores the groups of one step, with retries; every group that could be scored goes to `selection`."""

    step: int
    selection: Selection
    problems: Problems
    workers: Workers
    group_size: int
    sampling: SamplingSpec
    max_attempts: int
    run_seed: int
    ledger: Ledger
    outages: Outages
    reward_errors: RewardErrors
    stopping: Callable[[], bool]
    dispatched: list[DispatchedGroup] = field(default_factory=list[DispatchedGroup])
    """Every problem dispatched in this step."""
    dropped: list[str] = field(default_factory=list[str])
    """Ids of problems given up."""
    regenerated: int = 0
    rescored: int = 0
    started: float = field(default_factory=time.perf_counter)
    last_completion: float = 0.0
    _pending: dict[Ref, DispatchedGroup] = field(default_factory=dict[Ref, DispatchedGroup])
    _generating: set[Ref] = field(default_factory=set[Ref])
    _unscored: list[DispatchedGroup] = field(default_factory=list[DispatchedGroup])
    """Groups whose scores failed, the least recently scored first."""

    @property
    def num_open(self) -> int:
        """Groups that are neither scored nor dropped yet."""
        return len({entry.number for entry in (*self._pending.values(), *self._unscored)})

    def dispatch(self, drawn: Drawn) -> None:
        entry = DispatchedGroup(number=len(self.dispatched), drawn=drawn)
        self.dispatched.append(entry)
        self._generate(entry)

    def advance(self) -> None:
        """Wait for results, handle them, and retry what failed. Raises Stopped when the run is to stop."""
        until = lambda: self.stopping() or self.outages.action_due()  # noqa: E731
        ready = self.workers.wait(list(self._pending), until=until) if self._pending else sleep_until(until)
        if not ready and self.stopping():
            raise Stopped(f"{stop_reason()} while waiting for completions")
        for ref in ready:
            entry = self._pending.pop(ref)
            result = self.workers.result(ref)
            if ref in self._generating:
                self._generating.discard(ref)
                self.last_completion = time.perf_counter()
                entry.completions = result
                versions = sorted({span.version for completion in result for span in completion.versions})
                self.note("generated", entry, completions=len(result), versions=versions)
            else:
                entry.scores = result
            if entry.completions is not None and entry.scores is not None:
                self._finish(entry, entry.completions, entry.scores)
        self._retry()

    def note(self, state: str, entry: DispatchedGroup, **fields: Any) -> None:
        """Append a row to the ledger."""
        row = {"step": self.step, "draw": entry.drawn.number, "attempt": entry.attempt, **fields}
        self.ledger.write(state, **row)

    def _generate(self, entry: DispatchedGroup) -> None:
        problem, epoch, _ = entry.drawn
        entry.completions, entry.scoring, entry.rescored = None, None, 0
        self.note("dispatched", entry, problem=problem.id, epoch=epoch, group_size=self.group_size)
        seeds = [seed_of(self.run_seed, problem.id, epoch, entry.attempt, k) for k in range(self.group_size)]
        entry.generating = self.workers.generate(problem, seeds=seeds, sampling=self.sampling)
        self._pending[entry.generating] = entry
        self._generating.add(entry.generating)
        self._score(entry)

    def _score(self, entry: DispatchedGroup) -> None:
        """Score the completions of the entry, for the first time or again."""
        problem, epoch, _ = entry.drawn
        context = RewardContext(
            step=self.step,
            seed=seed_of(self.run_seed, problem.id, epoch, entry.attempt, -1),
            max_response_length=self.sampling.max_tokens,
        )
        entry.scores = None
        entry.scoring = self.workers.score(problem, entry.generating, context, avoid_worker_of=entry.scoring)
        self._pending[entry.scoring] = entry

    def _finish(self, entry: DispatchedGroup, completions: tuple[Completion, ...], scores: tuple[Score, ...]) -> None:
        self.reward_errors.observe(
            entry.drawn.problem.id,
            scores,
            step=self.step,
            num_problems=self.selection.num_groups,
            again=entry.attempt > 0 or entry.rescored > 0,
        )
        needed = min(2, self.group_size)
        usable = sum(score.usable for score in scores)
        if any(WORKER in score.errors for score in scores):
            self.note("scored", entry, usable=0)
            self._drop(entry)  # these completions would end the next worker too
            return
        if usable < needed and sum(completion.finish_reason != "abort" for completion in completions) >= needed:
            self._scoring_failed(entry, scores)
            return
        self.note("scored", entry, usable=usable)
        if usable < needed:
            self._regenerate(entry)
            return
        problem, epoch, _ = entry.drawn
        group = Group(problem=problem, completions=completions, scores=scores, epoch=epoch, attempt=entry.attempt)
        self.outages.worked(which_worked(scores))  # all components, also one that failed on some completions
        self.selection.add(entry.number, group)

    def _scoring_failed(self, entry: DispatchedGroup, scores: tuple[Score, ...]) -> None:
        worked = which_worked(scores)
        entry.failed = [component for component, ok in worked.items() if not ok]
        self.outages.worked([component for component, ok in worked.items() if ok])
        # Retries of a group that may itself be at fault are no further evidence against the component.
        first = entry.attempt == 0 and entry.rescored == 0
        down = [name for name in entry.failed if any(down_on(score, name) for score in scores)]
        self.outages.failed(down, draw=entry.drawn.number if first else None)
        self.note("unscored", entry, components=entry.failed)
        self._unscored.append(entry)

    def _retry(self) -> None:
        """Rescore groups whose scores failed, MAX_RESCORES times unless there is an outage, then regenerate them."""
        outages, num_groups = self.outages, self.selection.num_groups
        if outages.update(step=self.step, num_groups=num_groups):
            for entry in (*self._pending.values(), *self._unscored):
                entry.rescored = 0
        if outages.components:
            if outages.start_retry():
                too_few = len(self._unscored) < failures_needed(num_groups)
                self._rescore(self._unscored[:MIN_FAILURES])
                # Waiting groups may be problems that can never be scored: only a new problem can then end the pause.
                if too_few and not self._generating:
                    self.dispatch(self.problems.next())
            return
        self._rescore([entry for entry in self._unscored if entry.rescored < MAX_RESCORES])
        for entry in list(self._unscored):
            if self._pending and outages.suspected(entry.failed):
                continue  # the pending groups will show whether it is an outage
            self._unscored.remove(entry)
            self.note("scored", entry, usable=0)
            self._regenerate(entry)

    def _rescore(self, entries: Sequence[DispatchedGroup]) -> None:
        for entry in entries:
            self._unscored.remove(entry)
            entry.rescored += 1
            self.rescored += 1
            self._score(entry)

    def _regenerate(self, entry: DispatchedGroup) -> None:
        if entry.attempt + 1 < self.max_attempts:
            entry.attempt += 1
            self.regenerated += 1
            self._generate(entry)
        else:
            self._drop(entry)

    def _drop(self, entry: DispatchedGroup) -> None:
        self.dropped.append(entry.drawn.problem.id)
        self.note("dropped", entry)
