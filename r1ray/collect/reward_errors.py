"""Rewards whose own code fails: shown at once, counted, and the end of the run when nothing can be scored.

The first failure of a component is printed with its traceback and the problem on which it happened. After that its completions are
unusable and counted: events.jsonl gets a row for every step that has failures, the console the count of the first such step.

A component that fails on every completion of one problem after the other is a bug, not an outage (`r1ray.collect.outages`): waiting
would not help. The run ends after a step's worth of problems in a row, at most MANY (FEW where each has ended two workers, which
takes long). A component that has scored some problems before has more chances, because some rows may be at fault: at least MANY
problems, and so many that they would fail in a row by chance (at the rate of failures so far) once in 10**8 times.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from r1ray.plugin_errors import PluginFailed
from r1ray.reward.base import SUM, WORKER
from r1ray.types import ComponentError, Score

MANY, FEW = 16, 4
CHANCE = 1e-8


@dataclass(slots=True)
class Record:
    """What is known of one component that has failed."""

    first: ComponentError
    problem: str
    """On which it failed first."""
    completions: int = 0
    """Completions on which it failed in this step."""
    problems: int = 0
    reported: bool = False
    """Whether a count has been printed."""
    failed: int = 0
    """Problems in the whole run of which it scored no completion."""
    in_a_row: int = 0
    """How many of these were the last ones."""


@dataclass(slots=True, kw_only=True)
class RewardErrors:
    """The failures of reward components. Lives as long as the stage; collector and evaluator share it.

    Args:
        event: writes to events.jsonl (`RunDir.event`).
    """

    event: Callable[..., None]
    say: Callable[[str], None] = print
    _records: dict[str, Record] = field(default_factory=dict[str, Record])
    _scored: dict[str, int] = field(default_factory=dict[str, int])
    """{component: problems of which it scored a completion}."""

    def observe(self, problem: str, scores_G: Sequence[Score], *, step: int, num_problems: int, again: bool) -> None:
        """The scores of one problem, of `num_problems` that are scored together.

        Raises PluginFailed when a component fails on everything.

        Args:
            again: the problem was scored before, so that it is no further evidence.
        """
        for name in (*dict.fromkeys(name for score in scores_G for name in score.components), SUM, WORKER):
            if any(_has_scored(name, score) for score in scores_G):
                self._scored[name] = self._scored.get(name, 0) + 1
                if name in self._records:
                    self._records[name].in_a_row = 0
        for name in dict.fromkeys(name for score in scores_G for name in score.errors):
            self._failed(name, problem, scores_G, step=step, num_problems=num_problems, again=again)

    def end_step(self, step: int) -> None:
        """Write the counts of the step."""
        for name, record in self._records.items():
            if not record.completions:
                continue
            counts = {"completions": record.completions, "problems": record.problems}
            first = {"error": record.first.message, "place": record.first.place, "problem": record.problem}
            self.event("reward_errors", step=step, component=name, **counts, first=first)
            if not record.reported:
                self.say(
                    f"r1ray: step {step}: {_named(name)} failed on {record.completions} completions of {record.problems} problems, "
                    f"which are unusable; first {record.first.message} ({record.first.place}). Later counts are in events.jsonl"
                )
            record.reported, record.completions, record.problems = True, 0, 0

    def _failed(
        self, name: str, problem: str, scores_G: Sequence[Score], *, step: int, num_problems: int, again: bool
    ) -> None:
        errors = [score.errors[name] for score in scores_G if name in score.errors]
        if name not in self._records:
            self._records[name] = Record(errors[0], problem)
            self._show(name, self._records[name], step)
        record = self._records[name]
        if again:
            return
        record.completions += len(errors)
        record.problems += 1
        if len(errors) < len(scores_G):
            return
        record.failed += 1
        record.in_a_row += 1
        unusable = not any(score.usable for score in scores_G)
        if unusable and record.in_a_row >= self._needed(name, record, num_problems):
            raise PluginFailed(
                f"step {step}: {_named(name)} failed on every completion of {record.in_a_row} problems in a row, first on problem "
                f"{record.problem}: {record.first.message} ({record.first.place}). Correct it and start again; "
                + (
                    "with resume=auto the run continues from the last complete step, which is saved"
                    if step > 1
                    else "no step was complete, so nothing is lost"
                )
            )

    def _needed(self, name: str, record: Record, num_problems: int) -> int:
        """After how many failures in a row the run ends."""
        scored, failed = self._scored.get(name, 0), record.failed - record.in_a_row
        if not scored:
            return max(2, min(FEW if name == WORKER else MANY, num_problems))
        rate = failed / (scored + failed)
        return max(MANY, num_problems, math.ceil(math.log(CHANCE) / math.log(rate)) if rate else 0)

    def _show(self, name: str, record: Record, step: int) -> None:
        first = record.first
        self.event(
            "reward_failed",
            step=step,
            component=name,
            problem=record.problem,
            error=first.message,
            place=first.place,
            traceback=first.traceback,
        )
        self.say(
            f"r1ray: step {step}: {_named(name)} failed on problem {record.problem}:\n"
            + (f"{first.traceback}\n" if first.traceback else "")
            + f"r1ray: {first.message} ({first.place})"
        )


def _has_scored(name: str, score: Score) -> bool:
    return name not in score.errors and (name in (SUM, WORKER) or score.components.get(name) is not None)


def _named(name: str) -> str:
    return f"the {name}" if name in (SUM, WORKER) else f"reward component {name!r}"
