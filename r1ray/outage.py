"""An outage of the rewards: a judge, a sandbox or a model is down, and nothing that needs it can be scored.

One group that cannot be scored may be its own fault (tests that nobody can run). So a component counts as out when it fails on SURE
problems in a row, each seen for the first time (all of a step's problems, at least two, where those are fewer).

Then the step pauses: nothing is generated again or dropped, and scoring is tried again with growing waits until the component
works, the run is to stop, or reward.outage_timeout_s is over. Nothing new is dispatched but a problem a try where too few groups
are waiting: they alone might never tell that the component is back. Completions are kept, so an outage costs time and nothing
else, unless it begins when a step has fewer than SURE problems left: then those are treated as if it were their fault, until
those drawn in their place make it sure.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from r1ray.types import Score

SURE = 4
"""Problems in a row. With one in a hundred that nobody can score, chance does this once in 10**8 problems."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
NAP_S = 0.1


class RewardOutage(RuntimeError):
    """The rewards did not come back in time. The last whole step is saved, the same command goes on with it."""


def verdicts(scores_G: Sequence[Score]) -> dict[str, bool]:
    """{reward component: whether it could score this group}, without the components that do not apply. Two completions are
    enough, as ever.

    Example: of a judge that failed on all completions, beside a format that did not, `{"judge": False, "format": True}`.
    """
    failed: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for score in scores_G:
        for component, status in score.statuses.items():
            if status == "sandbox_error":
                failed[component] += 1
            elif score.components.get(component) is not None:
                told[component] += 1
    return {
        component: told[component] >= min(2, told[component] + failed[component]) for component in {**told, **failed}
    }


@dataclass(slots=True, kw_only=True)
class Outages:
    """What is known of the reward components, and the pause that is on. Lives as long as the collector.

    Args:
        timeout_s: the longest pause (reward.outage_timeout_s); 0: there are none.
        event: writes to events.jsonl (`RunDir.event`).
    """

    timeout_s: float
    event: Callable[..., None]
    say: Callable[[str], None] = print
    components: list[str] = field(default_factory=list[str])
    """Those that are out now; [] when the rewards work."""
    _failing: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """{component that has failed since it last worked: the draws that are evidence against it}."""
    _began: float = 0.0
    _next_try: float = 0.0
    _wait_s: float = FIRST_WAIT_S

    def worked(self, components: Collection[str]) -> None:
        for component in components:
            self._failing.pop(component, None)

    def failed(self, components: Collection[str], *, draw: int | None) -> None:
        """On this draw; None: on one that is no evidence."""
        for component in components:
            self._failing.setdefault(component, set()).update([] if draw is None else [draw])

    def suspected(self, components: Collection[str]) -> bool:
        """Whether one of these has not worked since it failed."""
        return self.timeout_s > 0 and any(component in self._failing for component in components)

    def look(self, *, step: int, num_groups: int) -> bool:
        """Begin a pause, or end it: True when it has just ended.

        Raises RewardOutage when it has lasted too long.
        """
        if not self.timeout_s:
            return False
        now = time.monotonic()
        out = [component for component, draws in self._failing.items() if len(draws) >= enough(num_groups)]
        if not self.components and out:
            self.components, self._began = out, now
            self._wait_s, self._next_try = FIRST_WAIT_S, now + FIRST_WAIT_S
            self.event("alarm", name="reward_outage", step=step, components=out)
            self.say(
                f"r1ray: rewards are out ({', '.join(out)}): step {step} keeps its completions, waits and scores them again, for at "
                f"most {self.timeout_s:.0f} s (reward.outage_timeout_s)"
            )
        elif self.components and not self.suspected(self.components):
            seconds = round(now - self._began, 1)
            self.event("reward_outage_over", step=step, components=self.components, seconds=seconds)
            self.say(
                f"r1ray: rewards are back after {seconds:.0f} s ({', '.join(self.components)}), step {step} goes on"
            )
            self.components = []
            return True
        elif self.components and now >= self._began + self.timeout_s:
            raise RewardOutage(
                f"step {step}: no group could be scored for {self.timeout_s:.0f} s (reward.outage_timeout_s) because reward "
                f"{'components' if len(self.components) > 1 else 'component'} {', '.join(map(repr, self.components))} failed on all. See to what it "
                "needs (an endpoint, a sandbox, a model; its errors are in logs/reward-*.log), then go on with resume=auto: "
                "the last whole step is saved. reward.outage_timeout_s=0 drops such problems instead of waiting."
            )
        return False

    def due(self) -> bool:
        """Whether a pause is on and something is to be done about it: another try, or its end."""
        return bool(self.components) and time.monotonic() >= min(self._next_try, self._began + self.timeout_s)

    def try_now(self) -> bool:
        """Whether it is time for another try; the next one is then due after twice the wait."""
        if not self.due():
            return False
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)
        self._next_try = time.monotonic() + self._wait_s
        return True


def enough(num_groups: int) -> int:
    """Failures in a row that make an outage, in a step of so many problems."""
    return max(2, min(SURE, num_groups))


def nap(until: Callable[[], bool]) -> tuple[()]:
    """Wait while no worker has anything to do: as `Workers.wait` when nothing is ready."""
    while not until():
        time.sleep(NAP_S)
    return ()
