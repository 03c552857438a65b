"""Outages: a reward component (a judge, a sandbox, a model) is down, so nothing that needs it can be scored.

Only failures of the infrastructure count; a reward's own code is the matter of `r1ray.collect.reward_errors`.

A single group that cannot be scored may itself be at fault (tests that can never run). So a component counts as down after it has
failed on MIN_FAILURES problems in a row; only the first scoring of a problem counts. In a step of fewer problems,
failures on all of them are enough, but at least two.

Then the step pauses. Nothing is regenerated or dropped, and scoring is retried with growing waits until the component works, the
run is to stop, or reward.outage_timeout_s has passed. Nothing new is dispatched, except one problem per retry when few groups are
waiting: those alone might never show that the component is back. Completions are kept, so an outage costs only time.

One exception: if the outage begins when fewer than MIN_FAILURES problems of a step are unscored, these are too few to detect it.
They are regenerated and dropped as if they were at fault. The problems dispatched in their place fail too, which confirms the
outage.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from r1ray.types import Score

MIN_FAILURES = 4
"""Problems in a row. If one problem in a hundred can never be scored, this happens by chance once in 10**8 problems."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
POLL_S = 0.1


class RewardOutage(RuntimeError):
    """A reward component was down for longer than reward.outage_timeout_s. The last complete step is saved."""


def which_worked(scores_G: Sequence[Score]) -> dict[str, bool]:
    """{reward component: whether it could score this group}, without components that do not apply. Two scored completions are
    enough.

    Example: a judge that failed on all completions, and a format check that did not: `{"judge": False, "format": True}`.
    """
    failed: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    for score in scores_G:
        for component, status in score.statuses.items():
            if status == "sandbox_error":
                failed[component] += 1
            elif score.components.get(component) is not None:
                scored[component] += 1
    return {
        component: scored[component] >= min(2, scored[component] + failed[component])
        for component in {**scored, **failed}
    }


def down_on(score: Score, component: str) -> bool:
    """Whether the infrastructure failed on this completion, and not the component's own code."""
    return score.statuses.get(component) == "sandbox_error" and component not in score.errors


@dataclass(slots=True, kw_only=True)
class Outages:
    """The state of the reward components, and the pause while one is down. Lives as long as the collector.

    Args:
        timeout_s: the longest pause (reward.outage_timeout_s); 0 disables pauses.
        event: writes to events.jsonl (`RunDir.event`).
    """

    timeout_s: float
    event: Callable[..., None]
    say: Callable[[str], None] = print
    components: list[str] = field(default_factory=list[str])
    """The components that are down now; [] when there is no outage."""
    _failing: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """{component that has failed since it last worked: the draws that count as evidence}."""
    _began: float = 0.0
    _next_try: float = 0.0
    _wait_s: float = FIRST_WAIT_S

    def worked(self, components: Collection[str]) -> None:
        for component in components:
            self._failing.pop(component, None)

    def failed(self, components: Collection[str], *, draw: int | None) -> None:
        """Record a failure on this draw; None if it does not count as evidence."""
        for component in components:
            self._failing.setdefault(component, set()).update([] if draw is None else [draw])

    def suspected(self, components: Collection[str]) -> bool:
        """Whether one of these has failed and has not worked since."""
        return self.timeout_s > 0 and any(component in self._failing for component in components)

    def update(self, *, step: int, num_groups: int) -> bool:
        """Begin or end a pause; True when one has just ended.

        Raises RewardOutage when the pause has lasted too long.
        """
        if not self.timeout_s:
            return False
        now = time.monotonic()
        down = [component for component, draws in self._failing.items() if len(draws) >= failures_needed(num_groups)]
        if not self.components and down:
            self.components, self._began = down, now
            self._wait_s, self._next_try = FIRST_WAIT_S, now + FIRST_WAIT_S
            self.event("alarm", name="reward_outage", step=step, components=down)
            self.say(
                f"r1ray: step {step}: reward outage ({', '.join(down)}). The completions are kept and scored again until the "
                f"rewards work, for at most {self.timeout_s:.0f} s (reward.outage_timeout_s)"
            )
        elif self.components and not self.suspected(self.components):
            seconds = round(now - self._began, 1)
            self.event("reward_outage_over", step=step, components=self.components, seconds=seconds)
            names = ", ".join(self.components)
            self.say(f"r1ray: step {step}: rewards work again after {seconds:.0f} s ({names}), the step continues")
            self.components = []
            return True
        elif self.components and now >= self._began + self.timeout_s:
            names = ", ".join(map(repr, self.components))
            raise RewardOutage(
                f"step {step}: no group could be scored for {self.timeout_s:.0f} s (reward.outage_timeout_s) because reward "
                f"{'components' if len(self.components) > 1 else 'component'} {names} failed on every completion. Check what the "
                "rewards need (an endpoint, a sandbox, a model; errors are in logs/reward-*.log), then continue with "
                "resume=auto: the last complete step is saved. With reward.outage_timeout_s=0 such problems are dropped instead."
            )
        return False

    def action_due(self) -> bool:
        """Whether there is a pause and it is time to retry or to end it."""
        return bool(self.components) and time.monotonic() >= min(self._next_try, self._began + self.timeout_s)

    def start_retry(self) -> bool:
        """Whether it is time for another retry; if so, the next one is due after twice the wait."""
        if not self.action_due():
            return False
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)
        self._next_try = time.monotonic() + self._wait_s
        return True


def failures_needed(num_groups: int) -> int:
    """How many failures in a row are an outage, in a step of this many problems."""
    return max(2, min(MIN_FAILURES, num_groups))


def sleep_until(condition: Callable[[], bool]) -> tuple[()]:
    """Wait for the condition when no call is pending. Returns (), like `Workers.wait` when nothing is ready."""
    while not condition():
        time.sleep(POLL_S)
    return ()
