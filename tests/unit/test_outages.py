"""Reward outages: the step waits and keeps its completions. Workers and the clock are faked."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_collect import ShuffledWorkers, collector

from r1ray.collect import Collector, outages
from r1ray.collect.outages import MIN_FAILURES, Outages, RewardOutage, which_worked
from r1ray.collect.retries import MAX_RESCORES
from r1ray.reward.base import RewardContext
from r1ray.run.ledger import Ledger, audit, read_ledger
from r1ray.run.stop import Stopped
from r1ray.types import Completion, Problem, Score

JUDGED = {"format": 1.0, "judge": 0.5}


def score(**failed: bool) -> Score:
    """A score by a format check and a judge; the components named have failed."""
    return Score(
        reward=1.0,
        correct=True,
        components={component: None if failed.get(component) else value for component, value in JUDGED.items()},
        statuses={component: "sandbox_error" if failed.get(component) else "ok" for component in JUDGED},
        usable=not any(failed.values()),
        seconds=0.0,
    )


NOT_JUDGED = replace(score(), components={"format": 1.0, "judge": None})


@dataclass
class World:
    """A judge that is down at times; time passes only while the driver sleeps, and by `seconds` with every scoring."""

    down: Callable[[float], bool]
    poison: frozenset[str] = frozenset()
    """Problems that the judge can never score."""
    now: float = 0.0
    seconds: float = 0.0
    scored: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)
    """(problem, completions, when)."""
    events: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def score_of(self, problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        self.now += self.seconds
        self.scored.append((problem.id, tuple(c.text for c in completions), self.now))
        failed = self.down(self.now) or problem.id in self.poison
        return tuple(score(judge=failed) for _ in completions)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def event(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def times(self, problem: str) -> int:
        return sum(name == problem for name, _, _ in self.scored)


class LazyWorkers(ShuffledWorkers):
    """The judge scores when the result is fetched, not when the call is made."""

    def score(
        self, problem: Problem, completions: int, context: RewardContext, *, avoid_worker_of: int | None = None
    ) -> int:
        ref = self._add(lambda: self.score_of(problem, self.results[completions]))
        self.waits_for[ref] = completions
        return ref

    def result(self, ref: int) -> Any:
        value = super().result(ref)
        return value() if callable(value) else value


class FirstComeWorkers(LazyWorkers):
    """Problems are generated one after the other; rescoring comes before the next one."""

    def wait(self, refs: Sequence[int], *, until: Callable[[], bool] = lambda: False) -> list[int]:
        if until():
            return []
        possible = [ref for ref in refs if self.waits_for.get(ref) is None or self.waits_for[ref] in self.done]
        return [max(possible, key=lambda ref: (ref in self.waits_for, -ref))]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[World, Collector]]:
    def made(
        down: Callable[[float], bool], *, timeout_s: float = 1800, seed: int = 0, ledger: Any = None, **world: Any
    ) -> tuple[World, Collector]:
        w = World(down, **world)
        monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: w.now, sleep=w.sleep))
        state = Outages(timeout_s=timeout_s, event=w.event, say=w.said.append)
        c = collector(w.score_of, ledger=ledger, outages=state)
        c.workers = LazyWorkers(score_of=w.score_of, rng=random.Random(seed))
        return w, c

    return made


def never(now: float) -> bool:
    return False


def always(now: float) -> bool:
    return True


Make = Callable[..., tuple[World, Collector]]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_groups", [2, 3, 8])
def test_an_outage_that_ends_costs_only_time(make: Make, seed: int, num_groups: int, tmp_path: Path) -> None:
    _, calm = make(never, seed=seed)
    expected = calm.collect(num_groups, step=1)
    w, c = make(lambda now: now < 40, seed=seed, ledger=Ledger(tmp_path / "l", step=0))
    collected = c.collect(num_groups, step=1)
    generated, without = (workers.calls for workers in (c.workers, calm.workers))  # type: ignore[attr-defined]
    assert generated == without, "the same problems and seeds, each generated once"
    assert [g.completions[0].text for g in collected.kept] == [g.completions[0].text for g in expected.kept]
    assert collected.failed == [] and collected.regenerated == 0 and collected.rescored > 0
    alarm, over = w.events
    assert alarm == {"kind": "alarm", "name": "reward_outage", "step": 1, "components": ["judge"]}
    assert over["kind"] == "reward_outage_over" and 40 <= over["seconds"] < 70
    assert "reward outage (judge)" in w.said[0] and "rewards work again" in w.said[1]
    c.ledger.sync()
    assert audit(read_ledger(tmp_path / "l"), steps=1, groups_per_step=num_groups) == []


def test_the_waits_grow_to_a_minute_and_few_groups_are_tried(make: Make) -> None:
    w, c = make(lambda now: now < 150)
    c.collect(16, step=1)
    tries = sorted({round(when) for _, _, when in w.scored if 0 < when < 150})
    assert tries == [1, 3, 7, 15, 31, 63, 123]
    assert all(sum(round(when) == second for _, _, when in w.scored) == MIN_FAILURES for second in tries)


def test_an_outage_that_does_not_end_stops_the_run_with_component_and_remedy(make: Make) -> None:
    w, c = make(always, timeout_s=600)
    with pytest.raises(
        RewardOutage, match=r"step 1: no group .* 600 s .* component 'judge' .* resume=auto.*outage_timeout_s=0"
    ):
        c.collect(4, step=1)
    assert 600 <= w.now < 601
    assert [event["kind"] for event in w.events] == ["alarm"]
    assert c.problems.state_dict() == {"number": 0}, "a resumed run draws them again"


def test_one_group_that_cannot_be_scored_is_no_outage(make: Make) -> None:
    w, c = make(never, poison=frozenset({"p2"}))
    collected = c.collect(4, step=1)
    assert [group.problem.id for group in collected.kept] == ["p0", "p1", "p3", "p4"]
    assert collected.failed == ["p2"] and collected.regenerated == 2
    assert w.events == [] and w.now == 0
    assert w.times("p2") == 3 * (1 + MAX_RESCORES)


def test_a_step_of_one_problem_that_cannot_be_scored_draws_another(make: Make) -> None:
    w, c = make(never, poison=frozenset({"p0"}))
    assert [group.problem.id for group in c.collect(1, step=1).kept] == ["p1"]
    assert w.events == []


@pytest.mark.parametrize("seed", range(20))
def test_several_groups_that_cannot_be_scored_among_others_are_no_outage(make: Make, seed: int) -> None:
    """They are all rescored together at the end of the step; that is no evidence about the other groups."""
    poison = frozenset({"p1", "p4", "p9", "p12"})
    w, c = make(never, poison=poison, seed=seed)
    c.collect(1, step=1)
    assert set(c.collect(24, step=2).failed) == poison
    assert w.events == []


def test_an_outage_that_begins_among_the_last_groups_is_confirmed_by_their_replacements(make: Make) -> None:
    w, c = make(lambda now: 10 < now < 90)
    c.collect(3, step=1)
    w.now = 11
    assert len(c.collect(2, step=2).failed) < MIN_FAILURES
    assert [event["kind"] for event in w.events] == ["alarm", "reward_outage_over"]


def test_a_group_that_can_never_be_scored_is_dropped_after_an_outage(make: Make) -> None:
    w, c = make(lambda now: now < 40, poison=frozenset({"p1"}))
    collected = c.collect(6, step=1)
    assert collected.failed == ["p1"] and len(collected.kept) == 6
    assert [event["kind"] for event in w.events] == ["alarm", "reward_outage_over"]


def test_problems_without_the_failed_component_do_not_hide_the_outage(make: Make) -> None:
    """A mixture in which half of the problems are not judged."""
    w, c = make(lambda now: now < 20)
    judged = w.score_of

    def mixed(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        if int(problem.id[1:]) % 2:
            return (NOT_JUDGED,) * len(completions)
        return judged(problem, completions)

    c.workers.score_of = mixed  # type: ignore[attr-defined]
    collected = c.collect(12, step=1)
    assert collected.failed == [] and collected.regenerated == 0
    assert w.events[0]["components"] == ["judge"]


def test_failures_of_a_component_that_scores_do_not_need_are_no_outage(make: Make) -> None:
    w, c = make(never)
    unneeded = Score(
        reward=1.0,
        correct=True,
        components=JUDGED,
        statuses={"format": "ok", "judge": "sandbox_error"},
        usable=True,
        seconds=0,
    )
    c.workers.score_of = lambda problem, completions: (unneeded,) * len(completions)  # type: ignore[attr-defined]
    assert c.collect(8, step=1).rescored == 0
    assert w.events == []


def test_timeout_zero_drops_what_cannot_be_scored(make: Make) -> None:
    tries = iter(range(10_000))
    w, c = make(lambda now: next(tries) < 200, timeout_s=0)
    collected = c.collect(4, step=1)
    assert len(collected.kept) == 4 and len(collected.failed) > 10
    assert w.now == 0 and w.events == []


def test_a_run_asked_to_stop_does_not_wait_for_the_rewards(make: Make) -> None:
    w, c = make(always)
    c.stopping = lambda: w.now > 100
    with pytest.raises(Stopped):
        c.collect(4, step=1)
    assert w.now < 100 + 2 * outages.POLL_S
    assert c.problems.state_dict() == {"number": 0}


def test_a_second_outage_is_logged_again(make: Make) -> None:
    w, c = make(lambda now: now < 10 or 500 < now < 520)
    c.collect(4, step=1)
    w.now = 501
    c.collect(4, step=2)
    assert [event["kind"] for event in w.events] == ["alarm", "reward_outage_over"] * 2
    assert w.events[2]["step"] == 2


def test_an_outage_that_returns_within_the_step_is_another_pause_and_drops_nothing(make: Make) -> None:
    _, c = make(lambda now: now < 40 or 42 < now < 60, seconds=0.25)
    collected = c.collect(12, step=1)
    assert collected.failed == [] and collected.regenerated == 0


def test_aborted_completions_are_generated_again_and_not_scored_again(make: Make) -> None:
    _, c = make(never)
    aborted = replace(score(), usable=False)
    whole = c.workers.result

    def once(ref: int) -> Any:
        value = whole(ref)
        if isinstance(value[0], Completion) and ref == 0:
            return tuple(replace(completion, finish_reason="abort") for completion in value)
        return (aborted,) * len(value) if isinstance(value[0], Score) and ref == 1 else value

    c.workers.result = once  # type: ignore[method-assign]
    collected = c.collect(2, step=1)
    assert (collected.rescored, collected.regenerated) == (0, 1)


def test_nothing_is_dispatched_during_a_pause(make: Make) -> None:
    """Not even in place of groups that are not judged, finish last and are rejected."""
    w, c = make(lambda now: now < 40)
    judged, when = w.score_of, {}

    def mixed(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        when.setdefault(problem.id, w.now)
        return (NOT_JUDGED,) * len(completions) if problem.id in ("p6", "p7") else judged(problem, completions)

    c.workers = FirstComeWorkers(score_of=mixed, rng=random.Random(0))
    c.keep = lambda group: group.problem.id not in ("p6", "p7")
    assert len(c.collect(8, step=1).kept) == 8
    assert when["p7"] < 40 <= when["p8"]


def test_a_group_that_fails_fast_waits_for_slower_groups_to_show_an_outage(make: Make) -> None:
    w, c = make(lambda now: now < 20)
    c.workers = FirstComeWorkers(score_of=w.score_of, rng=random.Random(0))
    collected = c.collect(6, step=1)
    assert w.times("p0") > 1 + MAX_RESCORES and collected.regenerated == 0


def test_rescoring_uses_the_same_completions(make: Make) -> None:
    w, c = make(lambda now: now < 5)
    c.collect(4, step=1)
    for name in ("p0", "p3"):
        assert len({completions for problem, completions, _ in w.scored if problem == name}) == 1
        assert w.times(name) > 1


def test_a_component_worked_if_it_scored_two_completions() -> None:
    nothing = Score(reward=0.0, correct=None, components={"x": None}, statuses={"x": "ok"}, usable=True, seconds=0.0)
    assert which_worked([score(judge=True)] * 4) == {"format": True, "judge": False}
    assert which_worked([score(judge=True)] * 3 + [score()]) == {"format": True, "judge": False}
    assert which_worked([score(judge=True)] * 2 + [score()] * 2) == {"format": True, "judge": True}
    assert which_worked([score()]) == {"format": True, "judge": True}
    assert which_worked([nothing]) == {}


def test_a_problem_that_can_never_be_scored_does_not_prolong_the_pause(make: Make) -> None:
    """It was the last evidence of the outage, and no other group of the step is left to show that the judge works again."""
    w, c = make(lambda now: 10 < now < 60, poison=frozenset({"p6"}))
    c.collect(3, step=1)
    w.now = 11
    assert len(c.collect(2, step=2).kept) == 2
    assert [event["kind"] for event in w.events] == ["alarm", "reward_outage_over"] and w.now < 300
