"""The collector with workers that finish in any order; without Ray."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1ray.collect import Collector
from r1ray.collect.outages import Outages
from r1ray.collect.reward_errors import RewardErrors
from r1ray.data.stream import Drawn, NothingToLearn
from r1ray.engine.base import SamplingSpec
from r1ray.reward.base import RewardContext
from r1ray.run.ledger import Ledger, audit, read_ledger
from r1ray.run.stop import Stopped
from r1ray.types import Collected, Completion, Group, Message, Problem, Score, VersionSpan


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
        finish_reason="stop",
        versions=(VersionSpan(version=0, start=0, end=length),),
    )


def score(*, usable: bool = True, correct: bool = True) -> Score:
    status = "ok" if usable else "sandbox_error"
    return Score(
        reward=float(correct),
        correct=correct,
        components={"a": 1.0},
        statuses={"a": status},
        usable=usable,
        seconds=0.0,
    )


@dataclass
class ShuffledWorkers:
    """Results are ready at once and returned in an order drawn from `rng`, completions always before their scores."""

    score_of: Callable[[Problem, Sequence[Completion]], tuple[Score, ...]]
    rng: random.Random
    results: dict[int, Any] = field(default_factory=dict)
    waits_for: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    sleeps: list[int] = field(default_factory=list)
    """Number of calls made before each sleep."""

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> int:
        self.calls.append((problem.id, tuple(seeds)))
        self.temperatures.append(sampling.temperature)
        return self._add(tuple(self.complete(problem, seed) for seed in seeds))

    def complete(self, problem: Problem, seed: int) -> Completion:
        return completion(seed)

    def score(
        self, problem: Problem, completions: int, context: RewardContext, *, avoid_worker_of: int | None = None
    ) -> int:
        ref = self._add(self.score_of(problem, self.results[completions]))
        self.waits_for[ref] = completions
        return ref

    def wait(self, refs: Sequence[int], *, until: Callable[[], bool] = lambda: False) -> list[int]:
        if until():
            return []
        possible = [ref for ref in refs if self.waits_for.get(ref) is None or self.waits_for[ref] in self.done]
        return self.rng.sample(possible, self.rng.randint(1, len(possible)))

    def result(self, ref: int) -> Any:
        self.done.add(ref)
        return self.results[ref]

    def sleep(self) -> None:
        self.sleeps.append(len(self.calls))

    def _add(self, value: Any) -> int:
        self.results[len(self.results)] = value
        return len(self.results) - 1


class Count:
    def __init__(self) -> None:
        self.number = 0

    def next(self) -> Drawn:
        self.number += 1
        return Drawn(problem(self.number - 1), 0, self.number - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number = state["number"]


class Rows:
    """A ledger in memory; `synced` are the rows that were on the disk at each sync."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.synced: list[int] = []

    def write(self, state: str, **fields: Any) -> None:
        self.rows.append({"state": state, **fields})

    def sync(self) -> None:
        self.synced.append(len(self.rows))


def no_event(kind: str, **fields: Any) -> None:
    raise AssertionError(f"{kind} {fields}")


def collector(
    score_of: Any,
    *,
    keep: Callable[[Group], bool] = lambda group: True,
    seed: int = 0,
    ledger: Any = None,
    outages: Outages | None = None,
    reward_errors: RewardErrors | None = None,
    min_share: float = 1.0,
    max_refills: int = 10,
    workers: type[ShuffledWorkers] = ShuffledWorkers,
) -> Collector:
    return Collector(
        problems=Count(),
        workers=workers(score_of=score_of, rng=random.Random(seed)),
        group_size=4,
        sampling=lambda step: SamplingSpec(temperature=step / 4, max_tokens=8),
        max_attempts=3,
        keep=keep,
        min_share=min_share,
        max_refills=max_refills,
        run_seed=7,
        ledger=ledger or Rows(),
        outages=outages or Outages(timeout_s=1800, event=no_event),
        reward_errors=reward_errors or RewardErrors(event=no_event),
    )


def all_correct(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
    return tuple(score() for _ in completions)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_returned_in_dispatch_order(seed: int) -> None:
    collected = collector(all_correct, seed=seed).collect(6, step=1)
    assert [group.problem.id for group in collected.kept] == [f"p{i}" for i in range(6)]
    assert collected.generated == collected.kept


def test_step_draws_the_problems_after_those_of_the_previous_step() -> None:
    c = collector(all_correct)
    c.collect(3, step=1)
    assert [group.problem.id for group in c.collect(2, step=2).kept] == ["p3", "p4"]


def test_sampling_settings_follow_the_step_number() -> None:
    c = collector(all_correct)
    steps_of(c, 3, groups=2)
    assert c.workers.temperatures == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]  # type: ignore[attr-defined]


def test_seeds_differ_between_completions_and_between_problems() -> None:
    c = collector(all_correct)
    c.collect(8, step=1)
    seeds = [seed for _, group in c.workers.calls for seed in group]  # type: ignore[attr-defined]
    assert len(set(seeds)) == 32


def test_seeds_do_not_depend_on_the_order_of_results() -> None:
    calls = []
    for seed in (0, 1):
        c = collector(all_correct, seed=seed)
        c.collect(4, step=1)
        calls.append(sorted(c.workers.calls))  # type: ignore[attr-defined]
    assert calls[0] == calls[1]


@pytest.mark.parametrize("seed", range(5))
def test_filter_keeps_the_first_in_dispatch_order_and_all_groups_are_reported(seed: int) -> None:
    def mixed(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(correct=int(problem.id[1:]) % 2 == 0 and k == 0) for k in range(len(completions)))

    collected = collector(mixed, keep=lambda group: group.solve_rate == 0.25, seed=seed).collect(4, step=1)
    assert [group.problem.id for group in collected.kept] == ["p0", "p2", "p4", "p6"]
    assert len(collected.generated) > len(collected.kept)


def outcome(number: int) -> int:
    """How many of the four completions of problem `number` are correct; without a pattern that a count of groups could follow."""
    return [0, 4, 1, 4, 0, 2, 4, 3, 0, 0, 4, 1, 4, 2][number * 5 % 14]


def by_outcome(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
    return tuple(score(correct=k < outcome(int(problem.id[1:]))) for k in range(len(completions)))


def is_mixed(group: Group) -> bool:
    return 0 < (group.solve_rate or 0) < 1


def numbers(groups: Sequence[Group]) -> list[int]:
    return [int(group.problem.id[1:]) for group in groups]


def expected(num_groups: int, *, required: int) -> tuple[list[int], list[int]]:
    """(trained, generated) when the rule is applied to one problem after another."""
    passed: list[int] = []
    refused: list[int] = []
    number = 0
    while len(passed) < required or len(passed) + len(refused) < num_groups:
        (passed if 0 < outcome(number) < 4 else refused).append(number)
        number += 1
    return sorted(passed[:num_groups] + refused[: num_groups - len(passed)]), list(range(number))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("min_share", "num_groups", "required"), [(1.0, 5, 5), (0.6, 5, 3), (0.5, 5, 3), (0.1, 10, 1), (0.0, 5, 0)]
)
def test_groups_trained_on_are_the_first_accepted_in_dispatch_order(
    seed: int, min_share: float, num_groups: int, required: int
) -> None:
    c = collector(by_outcome, keep=is_mixed, seed=seed, min_share=min_share)
    collected = c.collect(num_groups, step=1)
    trained, generated = expected(num_groups, required=required)
    assert numbers(collected.kept) == trained
    assert numbers(collected.generated) == generated, "no more groups than needed"
    assert collected.refilled == len(generated) - num_groups
    assert collected.backfilled == sum(not is_mixed(group) for group in collected.kept)


def test_required_groups_are_not_rounded_up_by_floating_point() -> None:
    assert 0.28 * 25 > 7
    c = collector(by_outcome, keep=lambda group: int(group.problem.id[1:]) < 7, min_share=0.28)
    assert c.collect(25, step=1).refilled == 0
    c = collector(by_outcome, keep=lambda group: int(group.problem.id[1:]) in (*range(6), 26), min_share=0.28)
    assert numbers(c.collect(25, step=1).kept) == [*range(24), 26]


class LongLast(ShuffledWorkers):
    """Completions of 1 to 200 tokens; the shortest is ready first, one result at a time."""

    def complete(self, problem: Problem, seed: int) -> Completion:
        return completion(seed, length=1 + seed % 200)

    def wait(self, refs: Sequence[int], *, until: Callable[[], bool] = lambda: False) -> list[int]:
        possible = [ref for ref in refs if self.waits_for.get(ref) is None or self.waits_for[ref] in self.done]
        return [min(possible, key=lambda ref: (self._longest(ref), ref))]

    def _longest(self, ref: int) -> int:
        completions = self.results[self.waits_for.get(ref, ref)]
        return max(len(c.token_ids_T) for c in completions)


def correct_when_long(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
    return tuple(score(correct=len(c.token_ids_T) > 80) for c in completions)


def mean_length(groups: Sequence[Group]) -> float:
    return float(np.mean([len(c.token_ids_T) for group in groups for c in group.completions]))


def steps_of(c: Collector, count: int, *, groups: int) -> list[Collected]:
    return [c.collect(groups, step=step) for step in range(1, count + 1)]


def test_long_completions_that_finish_last_are_kept() -> None:
    """Correctness grows with length, so a collector that took what is ready first would train on short, incorrect responses."""
    steps = steps_of(collector(correct_when_long, keep=is_mixed, workers=LongLast), 20, groups=8)
    for step in steps:
        accepted = [group for group in step.generated if is_mixed(group)]
        assert numbers(step.kept) == numbers(accepted), (
            "no accepted group is left out, for being slow or for another reason"
        )
        assert mean_length(step.kept) == mean_length(accepted)
    assert sum(step.refilled for step in steps) > 20, "the filter rejects some groups"


def test_without_a_filter_trained_lengths_are_the_generated_ones() -> None:
    for step in steps_of(collector(correct_when_long, workers=LongLast), 20, groups=8):
        assert step.kept == step.generated and step.refilled == 0


NOT_ENOUGH = {
    "all correct": (4, "8 all correct, 0 all incorrect, 0 mixed", "harder problems"),
    "all incorrect": (0, "0 all correct, 8 all incorrect, 0 mixed", "easier problems"),
    "mixed, but outside of the band": (2, "0 all correct, 0 all incorrect, 8 mixed", "a wider band"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", NOT_ENOUGH, ids=NOT_ENOUGH)
def test_filter_that_rejects_everything_ends_the_step_and_reports_solve_rates(case: str, seed: int) -> None:
    num_correct, counts, remedy = NOT_ENOUGH[case]

    def same(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(correct=k < num_correct) for k in range(len(completions)))

    c = collector(same, keep=lambda group: False, max_refills=4, seed=seed)
    with pytest.raises(NothingToLearn) as caught:
        c.collect(2, step=3)
    message = str(caught.value)
    assert "step 3: the filter accepted 0 of 8 generated groups" in message
    assert "may generate 8 (algo.filter.max_refills=4 x 2). 8 groups could be scored" in message
    assert counts in message and remedy in message and f"Last solve rates: {num_correct / 4:.2f}" in message
    assert c.problems.state_dict() == {"number": 0}, "its problems are drawn again"


def test_failing_rewards_end_the_step_and_report_dropped_problems() -> None:
    def broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=False) for _ in completions)

    c = collector(broken, max_refills=2, outages=Outages(timeout_s=0, event=no_event))
    with pytest.raises(
        NothingToLearn, match=r"0 groups could be scored.* 4 were dropped. Last solve rates: none.*rewards that work"
    ):
        c.collect(2, step=1)


def test_last_refill_can_still_fill_the_step() -> None:
    def unsolved_before_6(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(correct=int(problem.id[1:]) >= 6) for _ in completions)

    c = collector(unsolved_before_6, keep=lambda group: group.solve_rate == 1, max_refills=4)
    assert numbers(c.collect(2, step=1).kept) == [6, 7]


def test_unusable_group_is_regenerated_with_other_seeds_then_dropped() -> None:
    def broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=problem.id != "p1") for _ in completions)

    c = collector(broken)
    collected = c.collect(3, step=1)
    assert [group.problem.id for group in collected.kept] == ["p0", "p2", "p3"]
    assert collected.failed == ["p1"] and collected.regenerated == 2
    attempts = [seeds for id, seeds in c.workers.calls if id == "p1"]  # type: ignore[attr-defined]
    assert len(attempts) == 3 and len(set(attempts)) == 3


def test_one_unusable_completion_does_not_drop_the_group() -> None:
    def one_broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=k > 0) for k in range(len(completions)))

    collected = collector(one_broken).collect(2, step=1)
    assert [len(group.completions) for group in collected.kept] == [4, 4]


def stops_at(number: int) -> Callable[[], bool]:
    """True from the nth call on."""
    answers = iter([False] * (number - 1) + [True] * 99)
    return lambda: next(answers)


def test_problems_of_a_stopped_step_are_drawn_again() -> None:
    c = collector(all_correct)
    c.collect(2, step=1)
    c.stopping = stops_at(3)
    with pytest.raises(Stopped):
        c.collect(3, step=2)
    c.stopping = lambda: False
    assert [group.problem.id for group in c.collect(3, step=2).kept] == ["p2", "p3", "p4"]
    first, again = c.workers.calls[2:5], c.workers.calls[5:]  # type: ignore[attr-defined]
    assert first == again, "the same problems with the same seeds"


def test_workers_sleep_after_a_complete_step_and_not_after_a_stopped_one() -> None:
    c = collector(all_correct)
    c.collect(2, step=1)
    assert c.workers.sleeps == [len(c.workers.calls)] == [2]  # type: ignore[attr-defined]
    c.stopping = stops_at(3)
    with pytest.raises(Stopped):
        c.collect(3, step=2)
    assert c.workers.sleeps == [2]  # type: ignore[attr-defined]


def test_dispatch_is_written_to_disk_before_the_first_completion() -> None:
    c = collector(all_correct)
    c.collect(3, step=1)
    assert c.ledger.synced[0] == 3  # type: ignore[attr-defined]
    assert {row["state"] for row in c.ledger.rows[:3]} == {"dispatched"}  # type: ignore[attr-defined]


def audited(c: Collector, *, steps: int, groups_per_step: int) -> list[str]:
    for step in range(1, steps + 1):
        c.collect(groups_per_step, step=step)
    c.ledger.sync()
    return audit(read_ledger(c.ledger.path), steps=steps, groups_per_step=groups_per_step)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(3))
def test_audit_accepts_the_rows_of_a_collector(seed: int, tmp_path: Path) -> None:
    """With a filter, and with groups that can be scored only at the second attempt."""
    tries: dict[str, set[str]] = {}

    def moody(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        texts = tries.setdefault(problem.id, set())
        texts.add(completions[0].text)
        usable = int(problem.id[1:]) % 5 != 3 or len(texts) > 1
        return tuple(score(usable=usable, correct=int(problem.id[1:]) % 3 > 0) for _ in completions)

    c = collector(moody, keep=lambda group: group.solve_rate == 1, seed=seed, ledger=Ledger(tmp_path / "l", step=0))
    assert audited(c, steps=3, groups_per_step=4) == []
    assert max(len(texts) for texts in tries.values()) == 2
    states = {row["state"] for row in read_ledger(tmp_path / "l")}
    assert states == {"dispatched", "generated", "unscored", "scored", "trained", "not_trained"}


def test_audit_accepts_a_dropped_problem(tmp_path: Path) -> None:
    def broken(problem: Problem, completions: Sequence[Completion]) -> tuple[Score, ...]:
        return tuple(score(usable=problem.id != "p1") for _ in completions)

    c = collector(broken, ledger=Ledger(tmp_path / "l", step=0))
    assert audited(c, steps=2, groups_per_step=3) == []
    assert [row["draw"] for row in read_ledger(tmp_path / "l") if row["state"] == "dropped"] == [1]


def test_ledger_rows_of_a_stopped_step_do_not_count_once_it_is_repeated(tmp_path: Path) -> None:
    c = collector(all_correct, ledger=Ledger(tmp_path / "l", step=0))
    c.collect(2, step=1)
    c.stopping = stops_at(2)
    with pytest.raises(Stopped):
        c.collect(2, step=2)
    c.ledger.sync()
    c.ledger, c.stopping = Ledger(tmp_path / "l", step=1), lambda: False
    c.collect(2, step=2)
    c.ledger.sync()
    assert audit(read_ledger(tmp_path / "l"), steps=2, groups_per_step=2) == []
