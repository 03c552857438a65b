"""Problems in, groups of scored completions out, in dispatch order.

    selection      which groups a step trains on: the filter, refills, backfilled groups
    retries        the groups in flight: generated, scored, and retried after failures
    outages        the pause of a step while a reward component is down
    reward_errors  rewards whose own code fails
    workers        what is called on the rollout and reward workers

Nothing is dispatched ahead of the step that trains on it: strictly on-policy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from r1ray.collect.outages import Outages, RewardOutage
from r1ray.collect.retries import InFlight
from r1ray.collect.reward_errors import RewardErrors
from r1ray.collect.selection import Selection
from r1ray.collect.workers import Workers
from r1ray.data.stream import NothingToLearn, Problems
from r1ray.engine.base import SamplingSpec
from r1ray.plugin_errors import PluginFailed
from r1ray.run.ledger import Ledger
from r1ray.run.stop import Stopped
from r1ray.types import Collected, Group


@dataclass(slots=True)
class Collector:
    problems: Problems
    workers: Workers
    group_size: int
    sampling: Callable[[int], SamplingSpec]
    """{step: how its completions are sampled}."""
    max_attempts: int
    keep: Callable[[Group], bool]
    """The filter (`Algorithm.keep`)."""
    min_share: float
    """Share of a step's groups that `keep` must accept."""
    max_refills: int
    """A step generates at most max_refills * num_groups groups."""
    run_seed: int
    ledger: Ledger
    outages: Outages
    reward_errors: RewardErrors
    stopping: Callable[[], bool] = lambda: False
    """Polled while waiting for completions (`r1ray.run.stop.stop_requested`)."""

    def collect(self, num_groups: int, *, step: int) -> Collected:
        """Dispatch problems until there are `num_groups` groups to train on. Every wait for completions or
        scores ends at the latest with a timeout of the workers.

        Raises:
            Stopped: the run is to stop.
            RewardOutage: a reward component was down for too long.
            PluginFailed: a reward or the filter has a bug.
            NothingToLearn: the filter accepts too few of the groups that may be generated, or there are no problems left.
        After any of these the next step draws the problems of this one again.
        """
        before = self.problems.state_dict()
        try:
            collected = self._take(num_groups, step=step)
        except (Stopped, RewardOutage, NothingToLearn, PluginFailed):
            self.problems.load_state_dict(before)
            raise
        finally:
            self.reward_errors.end_step(step)
        self.workers.sleep()
        return collected

    def _take(self, num_groups: int, *, step: int) -> Collected:
        selection = Selection(num_groups=num_groups, keep=self.keep, min_share=self.min_share)
        work = InFlight(
            step=step,
            selection=selection,
            problems=self.problems,
            workers=self.workers,
            group_size=self.group_size,
            sampling=self.sampling(step),
            max_attempts=self.max_attempts,
            run_seed=self.run_seed,
            ledger=self.ledger,
            outages=self.outages,
            reward_errors=self.reward_errors,
            stopping=self.stopping,
        )
        for _ in range(num_groups):
            work.dispatch(self.problems.next())
        self.ledger.sync()
        while work.num_open:
            work.advance()
            if self.outages.components:
                continue  # during an outage nothing new is dispatched
            room = self.max_refills * num_groups - len(work.dispatched)
            for _ in range(min(selection.num_missing(work.num_open), room)):
                work.dispatch(self.problems.next())
        if selection.num_missing(0) > 0:
            counts = {"dispatched": len(work.dispatched), "dropped": len(work.dropped)}
            raise NothingToLearn(selection.shortage(step=step, max_refills=self.max_refills, **counts))
        return _collected(work)


def _collected(work: InFlight) -> Collected:
    selection, groups = work.selection, work.selection.groups
    chosen = selection.chosen()
    for entry in work.dispatched:
        if entry.number in groups:
            work.note("trained" if entry.number in chosen else "not_trained", entry)
    return Collected(
        kept=[groups[number] for number in chosen],
        generated=list(groups.values()),
        failed=work.dropped,
        refilled=len(work.dispatched) - selection.num_groups,
        backfilled=sum(number in selection.rejected for number in chosen),
        regenerated=work.regenerated,
        rescored=work.rescored,
        rollout_s=work.last_completion - work.started,
        reward_s=time.perf_counter() - work.last_completion,
    )
