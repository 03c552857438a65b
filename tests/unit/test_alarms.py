"""Alarms: real jumps are told once, noise is not."""

from collections.abc import Sequence

import numpy as np
import pytest

from r1ray.run.alarms import WATCHED, ZERO, Alarm, Seen, watch


def alarms_of(shares: Sequence[float], *, groups: int, name: str = ZERO) -> list[tuple[int, Alarm]]:
    """(step, alarm) of one share, from step 0 on."""
    seen, found = Seen(), []
    for step, share in enumerate(shares):
        seen, alarms = watch(seen, {name: share, "groups/generated": groups})
        found += [(step, alarm) for alarm in alarms]
    return found


def noisy(
    rng: np.random.Generator, p: float, *, steps: int, groups: int, size: int = 8, alike: float = 0.7
) -> list[float]:
    """Shares as groups give them: a problem is drawn, and its completions are zeros together with probability `alike`."""
    together = rng.random((steps, groups)) < alike
    one = rng.random((steps, groups)) < p
    each = rng.random((steps, groups, size)) < p
    return np.where(together, one, each.mean(axis=2)).mean(axis=1).tolist()


@pytest.mark.parametrize("name", WATCHED)
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
        assert len(found) == 1, "as long as it stays there"


def test_verification_that_calls_everything_wrong_is_found_where_little_was_right() -> None:
    rng = np.random.default_rng(0)
    (step, alarm), *more = alarms_of([*noisy(rng, 0.88, steps=12, groups=64), *[1.0] * 20], groups=64)
    assert 12 <= step < 15 and alarm.now == 1.0 and not more


@pytest.mark.parametrize("groups", [2, 4, 8, 64, 512])
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_noise_is_no_alarm(groups: int, alike: float) -> None:
    """60 runs of 200 steps at each size, of shares from rare to common: at most one in a hundred of them alarms."""
    false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)[seed % 8]
        false += bool(alarms_of(noisy(rng, p, steps=200, groups=groups, alike=alike), groups=groups))
    assert false == 0


def test_learning_is_no_alarm() -> None:
    rng = np.random.default_rng(1)
    shares = [noisy(rng, p, steps=1, groups=32)[0] for p in np.linspace(0.9, 0.2, 200)]
    assert alarms_of(shares, groups=32) == []


def test_back_to_normal_is_told_and_the_next_jump_alarms_again() -> None:
    shares = [0.1] * 10 + [0.9] * 5 + [0.1] * 10 + [0.9] * 5
    found = alarms_of(shares, groups=64)
    assert [(step, alarm.over) for step, alarm in found] == [(10, False), (17, True), (25, False)]
    assert found[0][1] == Alarm(name=ZERO, normal=0.1, now=0.9)


def test_what_stands_does_not_become_normal() -> None:
    found = alarms_of([0.1] * 10 + [0.9] * 50 + [0.1, 0.1, 0.9] + [0.1] * 3, groups=64)
    assert [(step, alarm.over) for step, alarm in found] == [(10, False), (65, True)]


def test_a_share_alone_says_nothing_before_there_are_steps_to_compare_with() -> None:
    assert alarms_of([0.0] * 4 + [1.0], groups=512) == []
    assert len(alarms_of([0.0] * 5 + [1.0], groups=512)) == 1


def test_small_jumps_of_large_steps_are_left_alone() -> None:
    assert alarms_of([0.01] * 20 + [0.09] * 20, groups=100_000) == []


def test_steps_without_groups_and_missing_values_change_nothing() -> None:
    seen = Seen()
    for _ in range(10):
        seen, _ = watch(seen, {ZERO: 0.1, "groups/generated": 64})
    for metrics in (
        {},
        {"eval/a/accuracy": 0.5},
        {ZERO: None, "groups/generated": 64},
        {ZERO: 1.0, "groups/generated": 0},
    ):
        same, alarms = watch(seen, metrics)
        assert same == seen and alarms == []


def test_the_shares_do_not_hide_each_other() -> None:
    seen = Seen()
    for _ in range(10):
        seen, _ = watch(seen, dict.fromkeys(WATCHED, 0.0) | {"groups/generated": 64})
    _, alarms = watch(seen, dict.fromkeys(WATCHED, 0.0) | {"status/timeout": 0.9, ZERO: 0.9, "groups/generated": 64})
    assert [alarm.name for alarm in alarms] == [ZERO, "status/timeout"]
