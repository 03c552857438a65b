"""Alarms: a share of completions jumps although nothing was changed. Broken verification shows up like this, not as an error.

`zero_reward/fraction` and the statuses of failures are checked. A share jumps when the last step, or the mean of the last RECENT
steps, is MARGIN or more above the median of the WINDOW steps before (above their mean if that is higher: the median of rare events
is 0), and this is unlikely by chance. The probability that n groups with mean q and the N groups before with mean p have the same
distribution is about (Chernoff bound; Hoeffding 1963, theorem 1, for independent values in [0, 1])

    exp(-n KL(q || m) - N KL(p || m))      m = (n q + N p) / (n + N),  KL(q || m) = q ln(q / m) + (1 - q) ln((1 - q) / (1 - m))

and must be less than CHANCE. Groups are counted, not completions: the completions of one problem are correct or incorrect together,
groups are independent. So a step of four groups raises an alarm only when nearly all of them change, a step of five hundred when a
tenth does.

While an alarm is active its share raises no other, and the normal value is not updated. It ends when the share has come back at
least half of the way for RECENT steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

ZERO = "zero_reward/fraction"
FAILURES = ("timeout", "memory", "runtime_error", "output_limit", "compile_error", "sandbox_error")
CHECKED = (ZERO, *(f"status/{name}" for name in FAILURES))
WINDOW, RECENT, MIN_STEPS = 10, 3, 5
"""Number of steps whose median is normal; of last steps whose mean is checked, besides the last one; of steps before any alarm."""
HISTORY = 100
"""Steps before a resume that are read again to restore the normal values and the active alarms."""
MARGIN = 0.1
CHANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A share that jumped from `normal` to `now`; with `over` it is back to normal."""

    name: str
    normal: float
    now: float
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveAlarm:
    """An alarm that is not over."""

    alarm: Alarm
    calm: int = 0
    """Steps in a row in which the share has been back to normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmState:
    """What is kept between steps."""

    shares: Mapping[str, Sequence[tuple[float, float]]] = field(
        default_factory=dict[str, Sequence[tuple[float, float]]]
    )
    """{name: (share, groups) of the last normal steps}, the latest last."""
    active: Mapping[str, ActiveAlarm] = field(default_factory=dict[str, ActiveAlarm])


def check_step(state: AlarmState, metrics: Mapping[str, float | None]) -> tuple[AlarmState, list[Alarm]]:
    """The alarms that one more step raises or ends, and the state after it. Steps without groups (an evaluation) change nothing.

    Example: after ten steps of 64 groups with 30 % of zeros, a step with 80 % raises an alarm; with 4 groups a step it does not.
    """
    groups = metrics.get("groups/generated")
    if not groups:
        return state, []
    shares, active, alarms = dict(state.shares), dict(state.active), list[Alarm]()
    for name in CHECKED:
        now = metrics.get(name)
        if now is None:
            continue
        if name in active:
            alarm, calm = active[name].alarm, active[name].calm + 1
            if now > (alarm.normal + alarm.now) / 2:
                active[name] = ActiveAlarm(alarm=alarm)
            elif calm < RECENT:
                active[name] = ActiveAlarm(alarm=alarm, calm=calm)
            else:
                alarms.append(Alarm(name=name, normal=alarm.normal, now=now, over=True))
                del active[name]
            continue
        steps = [*shares.get(name, ()), (now, groups)][-(WINDOW + RECENT) :]
        if jump := _jump(name, steps):
            active[name] = ActiveAlarm(alarm=jump)
            alarms.append(jump)
        else:
            shares[name] = steps
    return AlarmState(shares=shares, active=active), alarms


def _jump(name: str, steps: Sequence[tuple[float, float]]) -> Alarm | None:
    for recent in (1, RECENT):
        before, after = steps[:-recent][-WINDOW:], steps[-recent:]
        if len(before) < MIN_STEPS:
            continue
        normal, (now, num_after), (mean, num_before) = median(share for share, _ in before), _mean(after), _mean(before)
        usual = max(normal, mean)
        merged = (now * num_after + usual * num_before) / (num_after + num_before)
        surprise = num_after * _divergence(now, merged) + num_before * _divergence(usual, merged)
        if now - usual >= MARGIN and surprise >= -math.log(CHANCE):
            return Alarm(name=name, normal=normal, now=now)
    return None


def _mean(steps: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(share over all groups of these steps, number of groups)."""
    groups = sum(number for _, number in steps)
    return sum(share * number for share, number in steps) / groups, groups


def _divergence(q: float, p: float) -> float:
    """KL(q || p) of two Bernoulli distributions, in nats."""
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)
