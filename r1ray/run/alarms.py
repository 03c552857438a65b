"""Alarms: a share of completions that jumps although nothing was changed. Broken verification looks like this, and not like an
error.

Watched are `zero_reward/fraction` and the failing statuses. A share jumps when the last step, or the mean of the last RECENT,
lies MARGIN or more above the median of the WINDOW steps before (above their mean, where that is more: of what is rare the median
is 0), and chance hardly does that. That n groups with mean q and the N groups before with mean p are of one kind is by Chernoff's
bound (Hoeffding 1963, theorem 1, for independent values in [0, 1]) about as likely as

    exp(-n KL(q || m) - N KL(p || m))      m = (n q + N p) / (n + N),  KL(q || m) = q ln(q / m) + (1 - q) ln((1 - q) / (1 - m))

which must be less than CHANCE. Groups are counted, not completions: the completions to one problem are right or wrong together,
groups are independent. So a step of four groups alarms only when nearly all of them turn, one of five hundred when a tenth does.

A share that has alarmed is quiet until it has come back half of the way for RECENT steps; until then what is normal stays what it
was.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

ZERO = "zero_reward/fraction"
WATCHED = (
    ZERO,
    *(
        f"status/{name}"
        for name in ("timeout", "memory", "runtime_error", "output_limit", "compile_error", "sandbox_error")
    ),
)
WINDOW, RECENT, MIN_STEPS = 10, 3, 5
"""Steps: that say what is normal, that are also looked at together, and that must be there."""
MEMORY = 100
"""Steps before a resume that are looked at again, for what is normal and which alarms stand."""
MARGIN = 0.1
CHANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One share, and from what to what it went. `over`: it is back to normal."""

    name: str
    normal: float
    now: float
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An alarm that is not over, and for how many steps in a row the share has been back."""

    alarm: Alarm
    calm: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What `watch` has to know of the steps before."""

    shares: Mapping[str, Sequence[tuple[float, float]]] = field(
        default_factory=dict[str, Sequence[tuple[float, float]]]
    )
    """{name: (share, groups) of the last normal steps}, the latest last."""
    standing: Mapping[str, Standing] = field(default_factory=dict[str, Standing])


def watch(seen: Seen, metrics: Mapping[str, float | None]) -> tuple[Seen, list[Alarm]]:
    """What one more step tells, and what is to be known for the next. Steps without groups (an evaluation) change nothing.

    Example: after ten steps of 64 groups with 30 % of zeros, one with 80 % alarms; of 4 groups it does not.
    """
    groups = metrics.get("groups/generated")
    if not groups:
        return seen, []
    shares, standing, alarms = dict(seen.shares), dict(seen.standing), list[Alarm]()
    for name in WATCHED:
        now = metrics.get(name)
        if now is None:
            continue
        if name in standing:
            alarm, calm = standing[name].alarm, standing[name].calm + 1
            if now > (alarm.normal + alarm.now) / 2:
                standing[name] = Standing(alarm=alarm)
            elif calm < RECENT:
                standing[name] = Standing(alarm=alarm, calm=calm)
            else:
                alarms.append(Alarm(name=name, normal=alarm.normal, now=now, over=True))
                del standing[name]
            continue
        steps = [*shares.get(name, ()), (now, groups)][-(WINDOW + RECENT) :]
        if jump := _jump(name, steps):
            standing[name] = Standing(alarm=jump)
            alarms.append(jump)
        else:
            shares[name] = steps
    return Seen(shares=shares, standing=standing), alarms


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
    """(share over all groups of these steps, their number)."""
    groups = sum(number for _, number in steps)
    return sum(share * number for share, number in steps) / groups, groups


def _divergence(q: float, p: float) -> float:
    """KL(q || p) of two coins, in nats."""
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)
