"""Alarms: a real jump raises one alarm, noise none."""

from collections.abc import Sequence

import numpy as np
import pytest

from r1ray.run.alarms import CHECKED, ZERO, Alarm, AlarmState, check_step


def alarms_of(shares: Sequence[float], *, groups: int, name: str = ZERO) -> list[tuple[int, Alarm]]:
    """(step, alarm) of one share, from step 0 on."""
    state, found = AlarmState(), []
    for step, share in enumerate(shares):
        state, alarms = check_step(state, {name: share, "groups/generated": groups})
        found += [(step, alarm) for alarm in alarms]
    return found


def noisy(
    rng: np.random.Generator, p: float, *, steps: int, groups: int, size: int = 8, alike: float = 0.7
) -> list[float]:
    """Shares over random groups, whose completions are all zero or all not with probability `alike`."""
    together = rng.random((steps, groups)) < alike
    one = rng.random((steps, groups)) < p
    each = rng.random((steps, groups, size)) < p
    return np.where(together, one, each.mean(axis=2)).mean(axis=1).tolist()


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize(
    ("p", "jump", "groups"), [(0.3, 0.95, 16), (0.02, 0.5, 16), (0.0, 0.3, 64), (0.6, 0.98, 64), (0.05, 0.25, 256)]
)
def test_a_real_jump_alarms_within_three_steps_and_once(name: str, p: float, jump: float, groups: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shares = noisy(rng, p, steps=15, groups=groups) + noisy(rng, jump, steps=40, groups=groups)
        found = alarms_of(shares, groups=groups, name=name)
        assert [alarm.over for _, alarm in found][:1] == [False], (seed, found)
        step, alarm = found[0]
        assert 15 <= step < 18
        assert abs(alarm.normal - p) < 0.15 and alarm.now > alarm.normal + 0.1
        assert len(found) == 1, "one alarm as long as the share stays there"


def test_broken_verification_raises_an_alarm_although_few_completions_were_correct() -> None:
    rng = np.random.default_rng(0)
    (step, alarm), *more = alarms_of([*noisy(rng, 0.88, steps=12, groups=64), *[1.0] * 20], groups=64)
    assert 12 <= step < 15 and alarm.now == 1.0 and not more


@pytest.mark.parametrize("groups", [2, 4, 8, 64, 512])
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_noise_raises_no_alarm(groups: int, alike: float) -> None:
    """60 runs of 200 steps for each size, with shares from rare to common."""
    false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)[seed % 8]
        false += bool(alarms_of(noisy(rng, p, steps=200, groups=groups, alike=alike), groups=groups))
    assert false == 0


def test_learning_raises_no_alarm() -> None:
    rng = np.random.default_rng(1)
    shares = [noisy(rng, p, steps=1, groups=32)[0] for p in np.linspace(0.9, 0.2, 200)]
    assert alarms_of(shares, groups=32) == []


def test_an_alarm_ends_and_the_next_jump_raises_another() -> None:
    shares = [0.1] * 10 + [0.9] * 5 + [0.1] * 10 + [0.9] * 5
    found = alarms_of(shares, groups=64)
    assert [(step, alarm.over) for step, alarm in found] == [(10, False), (17, True), (25, False)]
    assert found[0][1] == Alarm(name=ZERO, normal=0.1, now=0.9)


def test_an_active_alarm_does_not_become_normal() -> None:
    found = alarms_of([0.1] * 10 + [0.9] * 50 + [0.1, 0.1, 0.9] + [0.1] * 3, groups=64)
    assert [(step, alarm.over) for step, alarm in found] == [(10, False), (65, True)]


def test_no_alarm_before_there_are_enough_steps() -> None:
    assert alarms_of([0.0] * 4 + [1.0], groups=512) == []
    assert len(alarms_of([0.0] * 5 + [1.0], groups=512)) == 1


def test_jumps_below_the_margin_raise_no_alarm() -> None:
    assert alarms_of([0.01] * 20 + [0.09] * 20, groups=100_000) == []


def test_steps_without_groups_and_missing_values_change_nothing() -> None:
    state = AlarmState()
    for _ in range(10):
        state, _ = check_step(state, {ZERO: 0.1, "groups/generated": 64})
    for metrics in (
        {},
        {"eval/a/accuracy": 0.5},
        {ZERO: None, "groups/generated": 64},
        {ZERO: 1.0, "groups/generated": 0},
    ):
        same, alarms = check_step(state, metrics)
        assert same == state and alarms == []


def test_the_shares_do_not_hide_each_other() -> None:
    state = AlarmState()
    for _ in range(10):
        state, _ = check_step(state, dict.fromkeys(CHECKED, 0.0) | {"groups/generated": 64})
    _, alarms = check_step(
        state, dict.fromkeys(CHECKED, 0.0) | {"status/timeout": 0.9, ZERO: 0.9, "groups/generated": 64}
    )
    assert [alarm.name for alarm in alarms] == [ZERO, "status/timeout"]
