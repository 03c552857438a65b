"""Rewards whose own code fails, as the collector and the evaluator meet them: shown, counted, and the end of the run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_collect import Count, collector, completion

from r1ray.actors.culprits import no_scores
from r1ray.collect import Collector, outages
from r1ray.collect.outages import Outages
from r1ray.collect.reward_errors import FEW, MANY, RewardErrors
from r1ray.engine.base import SamplingSpec
from r1ray.evaluator import Evaluator
from r1ray.failures import WorkerDied
from r1ray.plugin_errors import PluginFailed
from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.reward.compose import Component, Scorer
from r1ray.types import Completion, Problem, Score

CONTEXT = RewardContext(step=1, seed=0, max_response_length=10)


class World:
    def __init__(self, reward: Callable[..., Any], *, weight: float = 1.0, seed: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.scored: list[str] = []
        components = [
            Component(name="length", weight=1.0, reward=lambda p, completions_G, c: [1.0] * len(completions_G)),
            Component(name="mine", weight=weight, reward=reward),
        ]
        self.scorer = Scorer(components, truncated="score")
        self.errors = RewardErrors(event=self.event, say=self.said.append)
        quiet = Outages(timeout_s=1800, event=self.event, say=self.said.append)
        self.collector: Collector = collector(self.score, seed=seed, outages=quiet, reward_errors=self.errors)

    def event(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def score(self, problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        self.scored.append(problem.id)
        return self.scorer.score(problem, completions, CONTEXT)

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("a bug is no outage: there is nothing to wait for")

    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))


def typo(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[float]:
    return [lenght(completion.text) for completion in completions_G]  # type: ignore[name-defined]  # noqa: F821


def exits(*_: Any) -> list[float]:
    raise SystemExit(0)


BUGS: dict[str, Callable[..., Any]] = {
    "NameError": typo,
    "exit": exits,
    "nan": lambda p, completions_G, c: [math.nan] * len(completions_G),
    "inf": lambda p, completions_G, c: [math.inf] * len(completions_G),
    "1e308": lambda p, completions_G, c: [1e308] * len(completions_G),
    "too few": lambda p, completions_G, c: [1.0],
    "too many": lambda p, completions_G, c: [1.0] * (len(completions_G) + 1),
    "one number": lambda p, completions_G, c: 1.0,
    "texts": lambda p, completions_G, c: ["1.0"] * len(completions_G),
    "None": lambda p, completions_G, c: None,
    "a bad status": lambda p, completions_G, c: [ComponentScore(value=1.0, status="good")] * len(completions_G),  # type: ignore[arg-type]
    "its own ConnectionError": lambda *_: (_ for _ in ()).throw(ConnectionError("down")),
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize(("num_groups", "most"), [(1, 2), (4, 4), (64, MANY)])
def test_a_bug_on_every_completion_is_shown_at_once_and_ends_the_run(bug: str, num_groups: int, most: int) -> None:
    world = World(BUGS[bug])
    with pytest.raises(
        PluginFailed, match=r"step 1: reward component 'mine' failed on every completion of \d+ problems"
    ):
        world.collector.collect(num_groups, step=1)
    assert len(set(world.scored)) <= max(most, num_groups)
    assert "test_reward_errors.py" in world.said[0] and "problem p" in world.said[0]
    assert world.kinds()[0] == "reward_failed" and "alarm" not in world.kinds()
    first = world.events[0]
    assert first["component"] == "mine" and first["problem"].startswith("p") and "test_reward_errors" in first["place"]
    assert world.collector.problems.state_dict() == {"number": 0}, "a resumed run draws them again"


def test_the_traceback_has_the_users_line_and_no_other() -> None:
    world = World(typo)
    with pytest.raises(PluginFailed, match="name 'lenght' is not defined"):
        world.collector.collect(4, step=1)
    assert "return [lenght(completion.text)" in world.said[0] and "compose.py" not in world.said[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_reward_that_fails_for_some_problems_keeps_the_others(seed: int) -> None:
    def some(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[float]:
        return [1.0 / (int(problem.id[1:]) % 4)] * len(completions_G)

    world = World(some, seed=seed)
    collected = world.collector.collect(32, step=1)
    assert len(collected.kept) == 32 and all(int(group.problem.id[1:]) % 4 for group in collected.kept)
    assert collected.failed and all(int(name[1:]) % 4 == 0 for name in collected.failed)
    shown, counted = world.said
    assert "ZeroDivisionError" in shown and "which are unusable; first ZeroDivisionError" in counted
    row = next(event for event in world.events if event["kind"] == "reward_errors")
    assert row["problems"] == len(collected.failed) and row["completions"] == 4 * row["problems"]
    assert row["first"]["place"].endswith("in some")
    world.collector.collect(32, step=2)
    assert len(world.said) == 2, "the console has it once"
    assert [event["step"] for event in world.events if event["kind"] == "reward_errors"] == [1, 2]


def test_a_reward_that_fails_for_some_completions_makes_only_them_unusable() -> None:
    world = World(lambda p, completions_G, c: [math.nan, *[1.0] * (len(completions_G) - 1)])
    collected = world.collector.collect(40, step=1)
    assert collected.failed == [] and collected.rescored == 0
    assert all([score.usable for score in group.scores] == [False, True, True, True] for group in collected.kept)
    assert "40 completions of 40 problems" in world.said[1]


def test_a_reward_that_breaks_later_ends_the_run_too() -> None:
    """Some that it scored before may be followed by some that it cannot score; all of MANY are no accident."""
    broken: list[bool] = []

    def breaks(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[float]:
        if broken:
            raise KeyError("answer")
        return [1.0] * len(completions_G)

    world = World(breaks)
    world.collector.collect(8, step=1)
    broken.append(True)
    with pytest.raises(PluginFailed, match=rf"step 2: .* {MANY} problems .* last complete step, which is saved"):
        world.collector.collect(8, step=2)


def test_a_reward_that_often_fails_gets_more_chances() -> None:
    errors = RewardErrors(event=lambda kind, **fields: None, say=lambda text: None)
    good = Score(reward=1.0, correct=None, components={"mine": 1.0}, statuses={"mine": "ok"}, usable=True, seconds=0.0)
    (bad,) = World(typo).score(Count().next().problem, [completion(1)])

    def observe(score: Score) -> None:
        errors.observe("p", [score], step=1, num_problems=4, again=False)

    for _ in range(100):
        observe(good)
        observe(bad)
    for _ in range(25):
        observe(bad)
    with pytest.raises(PluginFailed, match=r"every completion of 2\d problems"):  # 0.5 ** 27 < 1e-8
        for _ in range(3):
            observe(bad)


def test_a_component_that_is_only_logged_is_shown_but_ends_nothing() -> None:
    world = World(typo, weight=0.0)
    assert len(world.collector.collect(40, step=1).kept) == 40
    assert "lenght" in world.said[0] and "160 completions of 40 problems" in world.said[1]


def test_an_outage_of_another_component_stays_an_outage() -> None:
    """The infrastructure fails on the same completions on which the bug shows only at times."""
    world = World(lambda p, completions_G, c: [ComponentScore(value=None, status="sandbox_error")] * len(completions_G))
    with pytest.raises(AssertionError, match="nothing to wait for"):
        world.collector.collect(8, step=1)
    assert world.kinds() == ["alarm"] and "reward outage (mine)" in world.said[0]


def test_a_group_that_ends_its_workers_is_dropped_and_not_scored_again() -> None:
    world = World(lambda p, completions_G, c: [1.0] * len(completions_G))
    whole, died = world.collector.workers.score_of, no_scores(4, worker="reward-0", error=WorkerDied("reward-0 died"))  # type: ignore[attr-defined]

    def some(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        scores = whole(problem, completions)
        return died if problem.id in ("p1", "p5") else scores

    world.collector.workers.score_of = some  # type: ignore[attr-defined]
    collected = world.collector.collect(6, step=1)
    assert sorted(collected.failed) == ["p1", "p5"] and len(collected.kept) == 6
    assert world.scored.count("p1") == 1 and collected.regenerated == collected.rescored == 0
    assert "the reward worker failed on problem p" in world.said[0] and "8 completions of 2 problems" in world.said[1]


def test_a_reward_that_ends_every_worker_ends_the_run() -> None:
    world = World(lambda p, completions_G, c: [1.0] * len(completions_G))
    died = no_scores(4, worker="reward-0", error=WorkerDied("reward-0 died"))
    world.collector.workers.score_of = lambda *_: died  # type: ignore[attr-defined]
    with pytest.raises(PluginFailed, match=rf"the reward worker failed on every completion of {FEW} problems"):
        world.collector.collect(32, step=1)


def evaluator(world: World, num_problems: int, record: Callable[..., None] = lambda *_: None) -> Evaluator:
    stream = Count()
    return Evaluator(
        workers=world.collector.workers,
        sets={"test": [replace(stream.next().problem, verifier="math") for _ in range(num_problems)]},
        sampling=SamplingSpec(temperature=1.0, max_tokens=8),
        num_samples=2,
        pass_at=[1],
        seed=0,
        reward_errors=world.errors,
        record=record,
    )


def test_a_bug_shows_in_the_first_evaluation() -> None:
    world = World(typo)
    with pytest.raises(PluginFailed, match=r"step 0: .*lenght.*no step was complete"):
        evaluator(world, 30)(0)
    assert "lenght" in world.said[0]


def test_an_evaluation_counts_what_it_could_not_score() -> None:
    def some(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[float]:
        return [1.0 / (int(problem.id[1:]) % 4)] * len(completions_G)

    world = World(some)
    assert evaluator(world, 40)(0)["eval/test/unusable"] == 0.25
    assert "20 completions of 10 problems" in world.said[1]
