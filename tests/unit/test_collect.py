"""The collector on workers that answer in any order; no Ray."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from r1ray.collect import MAX_REFILLS, Collector
from r1ray.engine.base import SamplingSpec
from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Group, Message, Problem, Score, VersionSpan


def problem(number: int) -> Problem:
    return Problem(
        id=f"p{number}",
        source="test",
        messages=(Message(role="user", content="same text for all"),),
        prompt_ids_T=np.array([1, 2], np.int32),
        verifier="none",
        payload={},
    )


def completion(seed: int, length: int = 3) -> Completion:
    return Completion(
        token_ids_T=np.full(length, seed % 97, np.int32),
        rollout_logprobs_T=np.zeros(length, np.float32),
        temperature=1.0,
        text=str(seed),
        finish="stop",
        versions=(VersionSpan(version=0, start=0, end=length),),
    )


def score(*, usable: bool = True, correct: bool = True) -> Score:
    status = "ok" if usable else "sandbox_error"
    return Score(
        reward=float(correct), correct=correct, parts={"a": 1.0}, statuses={"a": status}, usable=usable, seconds=0.0
    )


@dataclass
class ShuffledWorkers:
    """Answers are ready at once and handed out in an order drawn from `rng`, replies always before their scores."""

    score_of: Callable[[Problem, Sequence[Completion]], tuple[Score, ...]]
    rng: random.Random
    results: dict[int, Any] = field(default_factory=dict)
    waits_for: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> int:
        self.calls.append((problem.id, tuple(seeds)))
        return self._add(tuple(completion(seed) for seed in seeds))

    def score(self, problem: Problem, completions: int, context: RewardContext) -> int:
        ref = self._add(self.score_of(problem, self.results[completions]))
        self.waits_for[ref] = completions
        return ref

    def wait(self, refs: Sequence[int]) -> list[int]:
        possible = [ref for ref in refs if self.waits_for.get(ref) is None or self.waits_for[ref] in self.done]
        return self.rng.sample(possible, self.rng.randint(1, len(possible)))

    def result(self, ref: int) -> Any:
        self.done.add(ref)
        return self.results[ref]

    def _add(self, value: Any) -> int:
        self.results[len(self.results)] = value
        return len(self.results) - 1


class Count:
    def __init__(self) -> None:
        self.number = 0

    def next(self) -> tuple[Problem, int]:
        self.number += 1
        return problem(self.number - 1), 0


def collector(score_of: Any, *, keep: Callable[[Group], bool] = lambda group: True, seed: int = 0) -> Collector:
    return Collector(
        problems=Count(),
        workers=ShuffledWorkers(score_of=score_of, rng=random.Random(seed)),
        group_size=4,
        sampling=SamplingSpec(temperature=1.0, max_tokens=8),
        max_attempts=3,
        keep=keep,
        run_seed=7,
    )


def all_right(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
    return tuple(score() for _ in completions)


@pytest.mark.parametrize("seed", range(5))
def test_groups_come_in_dispatch_order_whatever_finishes_first(seed: int) -> None:
    collected = collector(all_right, seed=seed).take(6, step=1)
    assert [group.problem.id for group in collected.kept] == [f"p{i}" for i in range(6)]
    assert collected.generated == collected.kept


def test_one_step_goes_on_where_the_last_ended() -> None:
    c = collector(all_right)
    c.take(3, step=1)
    assert [group.problem.id for group in c.take(2, step=2).kept] == ["p3", "p4"]


def test_replies_of_a_group_have_different_seeds_and_problems_do_not_share_them() -> None:
    c = collector(all_right)
    c.take(8, step=1)
    seeds = [seed for _, group in c.workers.calls for seed in group]  # type: ignore[attr-defined]
    assert len(set(seeds)) == 32


def test_seeds_do_not_depend_on_the_order_of_answers() -> None:
    calls = []
    for seed in (0, 1):
        c = collector(all_right, seed=seed)
        c.take(4, step=1)
        calls.append(sorted(c.workers.calls))  # type: ignore[attr-defined]
    assert calls[0] == calls[1]


@pytest.mark.parametrize("seed", range(5))
def test_filter_keeps_the_first_in_dispatch_order_and_metrics_see_all(seed: int) -> None:
    def mixed(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(correct=int(problem.id[1:]) % 2 == 0 and k == 0) for k in range(len(completions)))

    collected = collector(mixed, keep=lambda group: group.solve_rate == 0.25, seed=seed).take(4, step=1)
    assert [group.problem.id for group in collected.kept] == ["p0", "p2", "p4", "p6"]
    assert len(collected.generated) > len(collected.kept)


def test_a_filter_that_nothing_satisfies_ends_with_what_it_saw() -> None:
    with pytest.raises(RuntimeError, match=rf"of {MAX_REFILLS * 2} generated groups only 0 .* Last solve rates: \[1.0"):
        collector(all_right, keep=lambda group: False).take(2, step=1)


def test_an_unusable_group_is_generated_again_with_other_seeds_then_dropped() -> None:
    def broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=problem.id != "p1") for _ in completions)

    c = collector(broken)
    collected = c.take(3, step=1)
    assert [group.problem.id for group in collected.kept] == ["p0", "p2", "p3"]
    assert collected.dropped == ["p1"] and collected.regenerated == 2
    attempts = [seeds for id, seeds in c.workers.calls if id == "p1"]  # type: ignore[attr-defined]
    assert len(attempts) == 3 and len(set(attempts)) == 3


def test_one_unusable_reply_does_not_cost_the_group() -> None:
    def one_broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=k > 0) for k in range(len(completions)))

    collected = collector(one_broken).take(2, step=1)
    assert [len(group.completions) for group in collected.kept] == [4, 4]
