"""Alarms about a level: something is wrong from the first step on, so that no share jumps (`r1ray.run.alarms` looks for jumps).

    no_signal    the completions of each group have equal rewards, so that all advantages are 0 and nothing is learned
    truncated    at least TRUNCATED of the completions are cut at the length limit, before most of them have given an answer

An alarm begins after STEPS steps in a row at which its condition holds, and ends after as many at which it does not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from r1ray.run.console import number

STEPS = 5
TRUNCATED = 0.4
Metrics = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelAlarm:
    name: str
    text: str
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelState:
    """What is kept between steps."""

    active: frozenset[str] = frozenset()
    streaks: Mapping[str, int] = field(default_factory=dict[str, int])
    """{name: steps in a row that contradict `active`}."""


def check_levels(state: LevelState, metrics: Metrics) -> tuple[LevelState, list[LevelAlarm]]:
    """The alarms that one more step begins or ends, and the state after it. Steps without groups (an evaluation) change nothing."""
    if not metrics.get("groups/generated"):
        return state, []
    active, streaks, alarms = set(state.active), dict(state.streaks), list[LevelAlarm]()
    for name, condition in CONDITIONS.items():
        text = condition(metrics)
        streaks[name] = 0 if (text is not None) == (name in active) else streaks.get(name, 0) + 1
        if streaks[name] == STEPS:
            streaks[name] = 0
            active ^= {name}
            alarms.append(LevelAlarm(name=name, text=text or f"{name} is over", over=text is None))
    return LevelState(active=frozenset(active), streaks=streaks), alarms


def no_signal(metrics: Metrics) -> str | None:
    """The alarm's text if this step has no signal, else None."""
    if metrics.get("train/zero_advantage/fraction") != 1 and metrics.get("reward/std") != 0:
        return None
    reward, rate = metrics.get("reward/mean"), metrics.get("solve_rate") or 0.0
    rewards = (
        f"all rewards are {number(reward or 0.0)}" if metrics.get("reward/std") == 0 else "equal rewards in each group"
    )
    if rate >= 0.5:
        remedy = "use harder problems"
    elif (metrics.get("truncated/fraction") or 0) >= TRUNCATED:
        remedy = "most responses are cut before their answer: raise rollout.max_response_length"
    else:
        remedy = (
            "compare the prompts (check=true shows them) and the completions (report.html) with the form that the reward reads; "
            "if they fit, use easier problems or a stronger model"
        )
    return f"there is nothing to learn from: {rewards}, so every advantage is 0 (solve rate {number(rate)}). Remedy: {remedy}"


def truncated(metrics: Metrics) -> str | None:
    share = metrics.get("truncated/fraction") or 0.0
    if share < TRUNCATED:
        return None
    return (
        f"{share:.0%} of the completions are cut at rollout.max_response_length. Remedy: raise it; or, where the completions go on "
        "after their answer, name the text that ends one in rollout.stop"
    )


CONDITIONS: Mapping[str, Callable[[Metrics], str | None]] = {"no_signal": no_signal, "truncated": truncated}
"""{name: the text of the alarm if its condition holds at a step, else None}."""
