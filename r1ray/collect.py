"""Problems in, groups of scored completions out, in dispatch order.

Every problem that is dispatched becomes a ticket with a number. Completions and scores finish in any order; what is handed on is
the first P tickets, by number, whose group the algorithm keeps. So whether a problem is trained on never depends on how fast its
completions came (long completions would be lost first). Nothing is dispatched ahead of the step that trains on it: strictly
on-policy.

Dynamic sampling (DAPO, arXiv 2503.14476, 3.2): for every group that the algorithm does not keep another is dispatched, no sooner,
and a step ends when every group that was begun has ended. So nothing is generated in vain, nothing that runs is given up, and how
many groups a step generates does not depend on their speed either. (MiMo's early stop, arXiv 2505.07608, which gives up what
still runs once all that started before the chosen ones has ended, has nothing to give up here.) With algo.filter.min_share below
1, as in GPG (arXiv 2504.02546), that share is enough, and the step is filled up with the earliest groups that were not kept.

A group whose completions are whole and whose scores failed (a judge, a sandbox, a model) is scored again, on another worker where
there is one, before it is generated again with other seeds; and when nothing can be scored, the step waits (`r1ray.outage`).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from r1ray.data.stream import Drawn, NothingToLearn, Problems
from r1ray.engine.base import SamplingSpec
from r1ray.outage import SURE, Outages, RewardOutage, enough, nap, verdicts
from r1ray.reward.base import RewardContext
from r1ray.run.stop import Stopped
from r1ray.seeds import seed_of
from r1ray.types import Completion, Group, Problem, Score

MAX_RESCORES = 2
"""A group whose scores failed is scored again this often before it is generated again."""

Ref = Any
"""A result to come: an ObjectRef in a run, anything the workers understand in a test."""


class Workers(Protocol):
    """The rollout and reward workers as the collector sees them (`r1ray.actors.workers.RayWorkers`)."""

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Ref:
        """One completion per seed; the result is a tuple of Completion."""
        ...

    def score(self, problem: Problem, completions: Ref, context: RewardContext, *, not_where: Ref | None = None) -> Ref:
        """Scores of the completions of a `generate`, ready or not; the result is a tuple of Score.

        Args:
            not_where: an earlier scoring that failed: not by its worker, where there is another.
        """
        ...

    def wait(self, refs: Sequence[Ref], *, until: Callable[[], bool] = ...) -> Sequence[Ref]:
        """Those of these that are ready, at least one, or none when `until` says so.

        Raises with the name of the worker that is late.
        """
        ...

    def result(self, ref: Ref) -> Any:
        """The result of a Ref that is ready; raises with the name of the worker that failed."""
        ...

    def rest(self) -> None:
        """Told when nothing will be generated until the next `generate`."""
        ...


class Ledger(Protocol):
    """`r1ray.run.ledger.Ledger`."""

    def write(self, state: str, **fields: Any) -> None: ...

    def sync(self) -> None: ...


@dataclass(slots=True, eq=False)
class Ticket:
    """One dispatched problem. `attempt` grows when its group has to be generated again."""

    number: int
    """0 for the first of the step."""
    drawn: Drawn
    attempt: int = 0
    generating: Ref = None
    scoring: Ref = None
    completions: tuple[Completion, ...] | None = None
    scores: tuple[Score, ...] | None = None
    rescored: int = 0
    """How often this attempt's completions have been scored again."""
    failed: Sequence[str] = ()
    """The reward components for whose failure it could not be scored."""
    group: Group | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one step got. `kept` is trained on; metrics are taken over `generated`, before any filter."""

    kept: list[Group]
    generated: list[Group]
    dropped: list[str]
    """Ids of problems given up after max_attempts."""
    refilled: int
    """Groups generated beyond the first of each place in the step: others were not kept, or dropped."""
    fillers: int
    """Of `kept`: groups that the algorithm's filter refused, for which algo.filter.min_share leaves room."""
    regenerated: int
    rescored: int
    rollout_s: float
    """From the first dispatch to the last completion."""
    reward_s: float
    """From the last completion to the last score: what scoring added."""


@dataclass(slots=True)
class Collector:
    problems: Problems
    workers: Workers
    group_size: int
    sampling: Callable[[int], SamplingSpec]
    """Of a step."""
    max_attempts: int
    keep: Callable[[Group], bool]
    min_share: float
    """Share of a step's groups that `keep` must accept."""
    max_refills: int
    """Groups generated for a step are at most this many times its groups."""
    run_seed: int
    ledger: Ledger
    outages: Outages
    stopping: Callable[[], bool] = lambda: False
    """Asked while completions are awaited (`r1ray.run.stop.asked`)."""

    def take(self, num_groups: int, *, step: int) -> Collected:
        """Dispatch until `num_groups` groups are there to train on; wait for completions and scores (each wait ends by the workers'
        timeouts).

        Raises Stopped when the run is to stop, RewardOutage when the rewards were out for too long, NothingToLearn when too few
        groups are kept of all that may be generated or the problems have come to an end; the problems drawn for this step are then
        drawn again by the next one.
        """
        before = self.problems.state_dict()
        try:
            collected = self._take(num_groups, step=step)
        except (Stopped, RewardOutage, NothingToLearn):
            self.problems.load_state_dict(before)
            raise
        self.workers.rest()
        return collected

    def _take(self, num_groups: int, *, step: int) -> Collected:
        work = _Step(collector=self, step=step, num_groups=num_groups)
        for _ in range(num_groups):
            work.dispatch(self.problems.next())
        self.ledger.sync()
        while work.pending or work.unscored:
            work.advance()
            if self.outages.components:
                continue  # nothing new meanwhile
            for _ in range(min(work.num_missing, self.max_refills * num_groups - len(work.tickets))):
                work.dispatch(self.problems.next())
        if work.num_missing > 0:
            raise NothingToLearn(work.what_it_saw())
        return work.collected()


@dataclass(slots=True)
class _Step:
    """The books of one step."""

    collector: Collector
    step: int
    num_groups: int
    tickets: list[Ticket] = field(default_factory=list[Ticket])
    pending: dict[Ref, Ticket] = field(default_factory=dict[Ref, Ticket])
    generating: set[Ref] = field(default_factory=set[Ref])
    unscored: list[Ticket] = field(default_factory=list[Ticket])
    """Whose completions are whole and whose scores failed, the longest untried first."""
    kept: list[Ticket] = field(default_factory=list[Ticket])
    refused: list[Ticket] = field(default_factory=list[Ticket])
    """By the algorithm's filter."""
    dropped: list[str] = field(default_factory=list[str])
    regenerated: int = 0
    rescored: int = 0
    started: float = field(default_factory=time.perf_counter)
    last_completion: float = 0.0

    @property
    def num_required(self) -> int:
        """Groups that must pass the filter, rounded up; 0.28 * 25 is a little more than 7 in floating point."""
        return math.ceil(self.collector.min_share * self.num_groups - 1e-9)

    @property
    def num_missing(self) -> int:
        """Groups to dispatch so that, if all that is under way passes the filter, the step is full and enough of it has passed."""
        coming = len({ticket.number for ticket in (*self.pending.values(), *self.unscored)})
        passing = len(self.kept) + coming
        return max(self.num_groups - len(self.refused) - passing, self.num_required - passing)

    def dispatch(self, drawn: Drawn) -> None:
        ticket = Ticket(number=len(self.tickets), drawn=drawn)
        self.tickets.append(ticket)
        self._start(ticket)

    def advance(self) -> None:
        """Handle what is ready, and the groups whose scores failed."""
        c = self.collector
        until = lambda: c.stopping() or c.outages.due()  # noqa: E731
        ready = c.workers.wait(list(self.pending), until=until) if self.pending else nap(until)
        if not ready and c.stopping():
            raise Stopped("asked to stop while completions were awaited")
        for ref in ready:
            ticket = self.pending.pop(ref)
            result = c.workers.result(ref)
            if ref in self.generating:
                self.generating.discard(ref)
                self.last_completion = time.perf_counter()
                ticket.completions = result
                versions = sorted({span.version for completion in result for span in completion.versions})
                self._note("generated", ticket, completions=len(result), versions=versions)
            else:
                ticket.scores = result
            if ticket.completions is not None and ticket.scores is not None:
                self._finish(ticket, ticket.completions, ticket.scores)
        self._tend()

    def _start(self, ticket: Ticket) -> None:
        c, (problem, epoch, _) = self.collector, ticket.drawn
        ticket.completions, ticket.scoring, ticket.rescored = None, None, 0
        self._note("dispatched", ticket, problem=problem.id, epoch=epoch, group_size=c.group_size)
        seeds = [seed_of(c.run_seed, problem.id, epoch, ticket.attempt, k) for k in range(c.group_size)]
        ticket.generating = c.workers.generate(problem, seeds=seeds, sampling=c.sampling(self.step))
        self.pending[ticket.generating] = ticket
        self.generating.add(ticket.generating)
        self._score(ticket)

    def _score(self, ticket: Ticket) -> None:
        """Also once more."""
        c, (problem, epoch, _) = self.collector, ticket.drawn
        context = RewardContext(
            step=self.step,
            seed=seed_of(c.run_seed, problem.id, epoch, ticket.attempt, -1),
            max_response_length=c.sampling(self.step).max_tokens,
        )
        ticket.scores = None
        ticket.scoring = c.workers.score(problem, ticket.generating, context, not_where=ticket.scoring)
        self.pending[ticket.scoring] = ticket

    def _finish(self, ticket: Ticket, completions: tuple[Completion, ...], scores: tuple[Score, ...]) -> None:
        enough = min(2, self.collector.group_size)
        usable = sum(score.usable for score in scores)
        if usable < enough and sum(completion.finish_reason != "abort" for completion in completions) >= enough:
            self._could_not_be_scored(ticket, scores)
            return
        self._note("scored", ticket, usable=usable)
        if usable < enough:
            self._generate_again(ticket)
            return
        problem, epoch, _ = ticket.drawn
        ticket.group = Group(
            problem=problem, completions=completions, scores=scores, epoch=epoch, attempt=ticket.attempt
        )
        self.collector.outages.worked(verdicts(scores))  # also of a part that failed: its group needs it not
        (self.kept if self.collector.keep(ticket.group) else self.refused).append(ticket)

    def _could_not_be_scored(self, ticket: Ticket, scores: tuple[Score, ...]) -> None:
        found, outages = verdicts(scores), self.collector.outages
        ticket.failed = [part for part, worked in found.items() if not worked]
        outages.worked([part for part, worked in found.items() if worked])
        # What a group at fault adds by being tried again is no evidence against the part.
        first = ticket.attempt == 0 and ticket.rescored == 0
        outages.failed(ticket.failed, draw=ticket.drawn.number if first else None)
        self._note("unscored", ticket, components=ticket.failed)
        self.unscored.append(ticket)

    def _tend(self) -> None:
        """Groups whose scores failed are scored again, MAX_RESCORES times unless there is an outage, and then generated again."""
        outages = self.collector.outages
        if outages.look(step=self.step, num_groups=self.num_groups):
            for ticket in (*self.pending.values(), *self.unscored):
                ticket.rescored = 0
        if outages.components:
            if outages.try_now():
                too_few = len(self.unscored) < enough(self.num_groups)
                self._score_again(self.unscored[:SURE])
                if too_few and not self.generating:  # else groups that nobody can score would keep the pause on
                    self.dispatch(self.collector.problems.next())
            return
        self._score_again([ticket for ticket in self.unscored if ticket.rescored < MAX_RESCORES])
        for ticket in list(self.unscored):
            if self.pending and outages.suspected(ticket.failed):
                continue  # others will tell
            self.unscored.remove(ticket)
            self._note("scored", ticket, usable=0)
            self._generate_again(ticket)

    def _score_again(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self.unscored.remove(ticket)
            ticket.rescored += 1
            self.rescored += 1
            self._score(ticket)

    def _generate_again(self, ticket: Ticket) -> None:
        if ticket.attempt + 1 < self.collector.max_attempts:
            ticket.attempt += 1
            self.regenerated += 1
            self._start(ticket)
        else:
            self.dropped.append(ticket.drawn.problem.id)
            self._note("dropped", ticket)

    def _note(self, state: str, ticket: Ticket, **fields: Any) -> None:
        where = {"step": self.step, "draw": ticket.drawn.number, "attempt": ticket.attempt}
        self.collector.ledger.write(state, **where, **fields)

    def what_it_saw(self) -> str:
        """Of a step that could not be filled: solve rates, and what would help."""
        groups = [ticket.group for ticket in self.tickets if ticket.group is not None]
        rates = [group.solve_rate for group in groups]
        right, wrong, unknown = (rates.count(rate) for rate in (1, 0, None))
        mixed = len(rates) - right - wrong - unknown
        shown = ", ".join("-" if rate is None else f"{rate:.2f}" for rate in rates[-8:])
        if not rates:
            remedy = "rewards that work (logs/reward-*.log says what failed)"
        elif unknown == len(rates):
            remedy = "algo.filter.min_solve_rate=null and algo.filter.max_solve_rate=null: no reward component says which completions to these problems are correct"
        elif mixed >= self.num_required:
            remedy = "a wider band between algo.filter.min_solve_rate and algo.filter.max_solve_rate"
        elif right > wrong:
            remedy = "harder problems (data.curriculum.name=history leaves out what is solved)"
        else:
            remedy = "easier problems, or a larger algo.group_size"
        return (
            f"step {self.step}: of {len(self.tickets)} generated groups (algo.filter.max_refills={self.collector.max_refills} x "
            f"{self.num_groups}) {len(rates)} could be scored and {len(self.kept)} passed the filter of the algorithm, but "
            f"{self.num_groups} and {self.num_required} are needed. {right} were all right, {wrong} all wrong, {mixed} mixed, "
            f"{unknown} without a verdict, {len(self.dropped)} dropped; last solve rates: {shown or 'none'}. What would help: "
            f"{remedy}; or a lower algo.filter.min_share, a larger algo.filter.max_refills. The last whole step is saved"
        )

    def collected(self) -> Collected:
        passed = _first(self.kept, self.num_groups)
        fillers = _first(self.refused, self.num_groups - len(passed))
        kept = _first([*passed, *fillers], self.num_groups)
        for ticket in self.tickets:
            if ticket.group is not None:
                self._note("trained" if ticket in kept else "left", ticket)
        now = time.perf_counter()
        return Collected(
            kept=[ticket.group for ticket in kept if ticket.group is not None],
            generated=[ticket.group for ticket in self.tickets if ticket.group is not None],
            dropped=self.dropped,
            refilled=len(self.tickets) - self.num_groups,
            fillers=len(fillers),
            regenerated=self.regenerated,
            rescored=self.rescored,
            rollout_s=self.last_completion - self.started,
            reward_s=now - self.last_completion,
        )


def _first(tickets: Sequence[Ticket], num: int) -> list[Ticket]:
    """In dispatch order."""
    return sorted(tickets, key=lambda ticket: ticket.number)[:num]
