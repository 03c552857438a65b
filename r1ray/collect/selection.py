"""Which groups of a step are trained on: the first P, in dispatch order, that the algorithm's filter accepts.

Completions and scores finish in any order; the selection takes groups by dispatch number. So whether a problem is trained on never
depends on how fast its completions were (otherwise long completions would be lost first).

Dynamic sampling (DAPO, arXiv 2503.14476, 3.2): each group that the filter rejects is replaced by a new one, dispatched only after
the rejection, and a step ends when every dispatched group has finished. So no generation is wasted or aborted, and the number of
groups that a step generates does not depend on their speed either. With algo.filter.min_share below 1, as in GPG (arXiv
2504.02546), that share of accepted groups is enough; the earliest rejected groups fill the rest of the step.

MiMo (arXiv 2505.07608) stops early: when all groups dispatched before the selected ones have finished, it aborts those that still
run. Here no groups beyond the needed ones run, so there is nothing to abort.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from r1ray.plugin_errors import failing_as_plugin
from r1ray.types import Group


@dataclass(slots=True, kw_only=True)
class Selection:
    """The scored groups of one step by dispatch number (0 for the first of the step)."""

    num_groups: int
    """P: how many groups the step trains on."""
    keep: Callable[[Group], bool]
    """The filter (`Algorithm.keep`)."""
    min_share: float
    """Share of the P groups that the filter must accept."""
    accepted: dict[int, Group] = field(default_factory=dict[int, Group])
    rejected: dict[int, Group] = field(default_factory=dict[int, Group])

    def add(self, number: int, group: Group) -> None:
        with failing_as_plugin(f"the filter of the algorithm (keep), on problem {group.problem.id},"):
            accepted = self.keep(group)
        (self.accepted if accepted else self.rejected)[number] = group

    @property
    def groups(self) -> dict[int, Group]:
        """All scored groups, in dispatch order."""
        return dict(sorted({**self.accepted, **self.rejected}.items()))

    @property
    def num_required(self) -> int:
        """Groups that the filter must accept, rounded up; 0.28 * 25 is a little more than 7 in floating point."""
        return math.ceil(self.min_share * self.num_groups - 1e-9)

    def num_missing(self, in_flight: int) -> int:
        """How many groups to dispatch so that, if the filter accepts them and all `in_flight` groups, the step is complete."""
        accepted = len(self.accepted) + in_flight
        return max(self.num_groups - len(self.rejected) - accepted, self.num_required - accepted)

    def chosen(self) -> list[int]:
        """Dispatch numbers of the groups to train on, in order; rejected ones only where accepted ones are missing (backfilled)."""
        accepted = sorted(self.accepted)[: self.num_groups]
        backfilled = sorted(self.rejected)[: self.num_groups - len(accepted)]
        return sorted([*accepted, *backfilled])

    def shortage(self, *, step: int, dispatched: int, dropped: int, max_refills: int) -> str:
        """The message for a step that could not be completed: solve rates, and which settings would help."""
        rates = [group.solve_rate for group in self.groups.values()]
        correct, incorrect, unknown = (rates.count(rate) for rate in (1, 0, None))
        mixed = len(rates) - correct - incorrect - unknown
        last = ", ".join("-" if rate is None else f"{rate:.2f}" for rate in rates[-8:]) or "none"
        if not rates:
            remedy = "rewards that work (logs/reward-*.log has their errors)"
        elif unknown == len(rates):
            remedy = (
                "algo.filter.min_solve_rate=null and algo.filter.max_solve_rate=null, because no reward component decides "
                "which completions of these problems are correct"
            )
        elif mixed >= self.num_required:
            remedy = "a wider band between algo.filter.min_solve_rate and algo.filter.max_solve_rate"
        elif correct > incorrect:
            remedy = "harder problems (data.curriculum.name=history leaves out solved ones)"
        else:
            remedy = "easier problems, or a larger algo.group_size"
        return (
            f"step {step}: the filter accepted {len(self.accepted)} of {dispatched} generated groups, but the step needs "
            f"{self.num_groups} groups and at least {self.num_required} accepted ones, and may generate "
            f"{max_refills * self.num_groups} (algo.filter.max_refills={max_refills} x {self.num_groups}). "
            f"{len(rates)} groups "
            f"could be scored: {correct} all correct, {incorrect} all incorrect, {mixed} mixed, {unknown} without a verdict; "
            f"{dropped} were dropped. Last solve rates: {last}. What would help: {remedy}; or a lower algo.filter.min_share, "
            "or a larger algo.filter.max_refills. The last complete step is saved"
        )
