"""Curricula: what is drawn after which results, what is kept in the state, and that a resumed run equals an uninterrupted one."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from r1ray.config import CurriculumConfig, SourceConfig
from r1ray.data import curriculum
from r1ray.data.sources import load_source
from r1ray.data.stream import Drawn, NothingToLearn, Problems, ProblemStream
from r1ray.run.metrics import is_metric
from r1ray.seeds import seed_of
from r1ray.types import Completion, Group, Message, Problem, Score


def problem(source: str, number: int, meta: Mapping[str, Any]) -> Problem:
    return Problem(
        id=f"{source}/{number}",
        source=source,
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.array([number], np.int32),
        verifier="countdown",
        payload={},
        meta=meta,
    )


def problems(source: str, count: int, levels: Sequence[Any] = ()) -> list[Problem]:
    """Problem n has level n modulo the number of levels."""
    metas = [{"difficulty": levels[n % len(levels)]} if levels else {} for n in range(count)]
    return [problem(source, n, meta) for n, meta in enumerate(metas)]


PUZZLES = problems("puzzles", 60, levels=[3, 4, 5])


def make(name: str, *sources: list[Problem], seed: int = 0, **args: Any) -> Problems:
    named = {given[0].source: given for given in sources or [problems("a", 20), problems("b", 10)]}
    stream = ProblemStream(named, weights=dict.fromkeys(named, 1.0), seed=seed, shuffle=True)
    return curriculum.make(CurriculumConfig(name=name, args=args), stream)


def group(drawn: Drawn, rate: float | None) -> Group:
    """Four completions, of which the share `rate` is correct."""
    completion = Completion(
        token_ids_T=np.zeros(1, np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text="",
        finish_reason="stop",
        versions=(),
    )
    scores = tuple(
        Score(
            reward=0.0,
            correct=None if rate is None else k < 4 * rate,
            components={},
            statuses={},
            usable=True,
            seconds=0.0,
        )
        for k in range(4)
    )
    return Group(problem=drawn.problem, completions=(completion,) * 4, scores=scores, epoch=drawn.epoch)


Rate = Callable[[Drawn], float | None]


def play(made: Problems, steps: int, rate: Rate, *, per_step: int = 8) -> tuple[list[Drawn], list[dict[str, float]]]:
    """All draws, and the metrics of every step."""
    draws: list[Drawn] = []
    metrics: list[dict[str, float]] = []
    for _ in range(steps):
        step = [made.next() for _ in range(per_step)]
        draws += step
        metrics.append(made.observe([group(drawn, rate(drawn)) for drawn in step]))
    return draws, metrics


def moody(drawn: Drawn) -> float:
    """Solved, mixed or hopeless, depending only on the problem and the epoch."""
    return (0.0, 0.5, 1.0)[seed_of(0, drawn.problem.id, drawn.epoch, 0, 0) % 3]


def ids(draws: Iterable[Drawn]) -> list[str]:
    return [drawn.problem.id for drawn in draws]


def by_level(drawn: Drawn) -> float:
    """A model that solves problems up to level 4."""
    return 1.0 if drawn.problem.meta.get("difficulty", 0) <= 4 else 0.0


ALL: Mapping[str, tuple[list[list[Problem]], dict[str, Any], Rate]] = {
    "none": ([], {}, moody),
    "easy_pool": ([], {"probability": 0.3}, moody),
    "history": ([problems("a", 300)], {}, moody),
    "difficulty": ([PUZZLES, problems("b", 10)], {"window": 10}, by_level),
}


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
@pytest.mark.parametrize("name", ALL)
def test_resumed_stream_equals_an_uninterrupted_one(name: str, cut: int) -> None:
    sources, args, rate = ALL[name]
    whole = play(made := make(name, *sources, **args), 30, rate)
    assert play(make(name, *sources, seed=1, **args), 30, rate) != whole
    first, second = make(name, *sources, **args), make(name, *sources, **args)
    before = play(first, cut, rate)
    state = json.loads(json.dumps(first.state_dict()))
    play(second, 3, rate)  # its previous state must be replaced
    second.load_state_dict(state)
    after = play(second, 30 - cut, rate)
    assert (before[0] + after[0], before[1] + after[1]) == whole
    assert second.state_dict() == made.state_dict()


@pytest.mark.parametrize("name", ALL)
def test_step_that_is_rolled_back_is_drawn_again(name: str) -> None:
    """The collector does this when a run is asked to stop while completions are generated."""
    sources, args, rate = ALL[name]
    made = make(name, *sources, **args)
    play(made, 5, rate)
    state = made.state_dict()
    taken = [made.next() for _ in range(8)]
    made.load_state_dict(state)
    assert [made.next() for _ in range(8)] == taken
    made.load_state_dict({})
    assert play(made, 5, rate) == play(make(name, *sources, **args), 5, rate)


@pytest.mark.parametrize("name", ALL)
def test_draws_have_no_gaps_and_no_repeated_epoch(name: str) -> None:
    sources, args, rate = ALL[name]
    draws, metrics = play(make(name, *sources, **args), 40, rate)
    assert [drawn.number for drawn in draws] == list(range(320))
    assert len({(drawn.problem.id, drawn.epoch) for drawn in draws}) == 320, (
        "the ledger and the seeds identify draws by these"
    )
    assert all(is_metric(metric) for step in metrics for metric in step)


def test_curriculum_none_is_the_plain_stream() -> None:
    made = make("none")
    assert isinstance(made, ProblemStream)
    assert set(made.state_dict()) == {"draws", "sources"}, "checkpoints from before curricula existed load"


def test_state_of_another_curriculum_is_refused() -> None:
    for saved, present in (("none", "history"), ("easy_pool", "none"), ("history", "easy_pool")):
        with pytest.raises(ValueError, match=rf"name={saved} and cannot be resumed with {present}: keep it"):
            make(present).load_state_dict(make(saved).state_dict())


# Easy pool


def test_solved_problems_are_drawn_from_the_pool_at_the_configured_rate() -> None:
    easy = {f"a/{n}" for n in range(10)}
    made = make("easy_pool", problems("a", 200), probability=0.1)
    play(made, 60, lambda drawn: float(drawn.problem.id in easy))  # more than two epochs: all ten are solved
    draws, metrics = play(made, 400, lambda drawn: float(drawn.problem.id in easy))
    assert set(ids(drawn for drawn in draws if drawn.epoch >= 0)).isdisjoint(easy)
    from_pool = [drawn for drawn in draws if drawn.epoch < 0]
    assert set(ids(from_pool)) == easy
    assert len(from_pool) / len(draws) == pytest.approx(0.1, abs=0.02)
    assert {step["curriculum/pool_size"] for step in metrics} == {10}
    assert sum(step["curriculum/pool_draws"] for step in metrics) == len(from_pool)


def test_forgotten_problem_returns_to_the_stream() -> None:
    made = make("easy_pool", problems("a", 8), probability=0.5)
    play(made, 1, lambda drawn: 1.0)  # one epoch
    draws, _ = play(made, 1, lambda drawn: 0.5)
    assert all(drawn.epoch < 0 for drawn in draws), "all problems were in the pool"
    forgotten = set(ids(draws))
    later, _ = play(made, 3, lambda drawn: 0.5)
    assert set(ids(drawn for drawn in later if drawn.epoch >= 0)) >= forgotten


def test_draws_from_the_pool_have_their_own_seeds() -> None:
    draws, _ = play(make("easy_pool", problems("a", 1)), 3, lambda drawn: 1.0, per_step=2)
    assert [drawn.epoch for drawn in draws] == [0, 1, -1, -2, -3, -4]


def test_pool_stays_empty_without_correctness() -> None:
    _, metrics = play(make("easy_pool"), 10, lambda drawn: None)
    assert metrics[-1] == {"curriculum/pool_size": 0, "curriculum/pool_draws": 0}


# History


def test_solved_problems_are_excluded_from_later_epochs() -> None:
    rates = {f"a/{n}": (0.0, 0.5, 1.0, None)[n % 4] for n in range(40)}
    draws, metrics = play(make("history", problems("a", 40)), 15, lambda drawn: rates[drawn.problem.id])
    per_epoch = {epoch: Counter(ids(d for d in draws if d.epoch == epoch)) for epoch in (0, 1, 2)}
    assert per_epoch[0] == Counter(rates.keys())
    assert per_epoch[1] == per_epoch[2] == Counter(name for name, rate in rates.items() if rate != 1)
    assert metrics[4]["curriculum/left_out"] == metrics[-1]["curriculum/left_out"] == 10


def test_share_of_a_solved_source_goes_to_the_others() -> None:
    made = make("history", problems("a", 20), problems("b", 10))
    play(made, 20, lambda drawn: float(drawn.problem.source == "b"))
    draws, _ = play(made, 5, lambda drawn: 0.5)
    assert {drawn.problem.source for drawn in draws} == {"a"}


def test_stage_ends_when_everything_is_solved() -> None:
    made = make("history", problems("a", 16))
    play(made, 2, lambda drawn: 1.0)
    state = made.state_dict()
    with pytest.raises(NothingToLearn, match=r"all 16 problems .* have been solved .*easy_pool"):
        made.next()
    assert made.state_dict() == state


# Difficulty


def levels_of(metrics: Iterable[Mapping[str, float]], source: str = "puzzles") -> list[float]:
    return [step[f"curriculum/{source}/level"] for step in metrics]


def test_level_follows_the_solve_rate() -> None:
    made = make("difficulty", PUZZLES, window=16)
    draws, up = play(made, 6, lambda drawn: 1.0)
    assert levels_of(up) == [3, 4, 4, 5, 5, 5], "16 groups per level: two steps, and the window starts again"
    assert [drawn.problem.meta["difficulty"] for drawn in draws[::8]] == [3, 3, 4, 4, 5, 5]
    _, down = play(made, 6, lambda drawn: 0.0)
    assert levels_of(down) == [5, 4, 4, 3, 3, 3]


def test_level_stays_within_the_band() -> None:
    _, metrics = play(
        make("difficulty", PUZZLES, low=0.25, high=0.75, window=4), 20, lambda drawn: (0.25, 0.75)[drawn.number % 2]
    )
    assert set(levels_of(metrics)) == {3}


def test_level_settles_at_the_ability_of_the_model() -> None:
    """Correct with 0.95, 0.5 and 0.1 at the three levels: the second is in the band."""
    rate = {3: 0.95, 4: 0.5, 5: 0.1}

    def model(drawn: Drawn) -> float:
        rng = np.random.default_rng(drawn.number)
        return float(np.mean(rng.random(4) < rate[drawn.problem.meta["difficulty"]]))

    _, metrics = play(make("difficulty", PUZZLES, window=32), 60, model)
    assert set(levels_of(metrics)[20:]) == {4}


def test_source_without_levels_is_drawn_as_without_a_curriculum() -> None:
    draws, metrics = play(make("difficulty", PUZZLES, problems("b", 10), window=8), 40, lambda drawn: 1.0)
    shares = Counter(drawn.problem.source for drawn in draws)
    assert shares["b"] / 320 > 0.3
    assert set(metrics[0]) == {"curriculum/puzzles/level"}


@pytest.mark.parametrize(
    ("source", "args", "levels"),
    [
        ("knights_and_knaves", {"num_people": [2, 4]}, [2, 3, 4]),
        ("countdown", {"num_numbers": [2, 4]}, [2, 3, 4]),
    ],
)
def test_generated_puzzles_have_a_level(source: str, args: dict[str, Any], levels: list[int]) -> None:
    cfg = SourceConfig(source=source, args={"split": "train", "num_problems": 30, **args})
    made = [problem(source, n, item.meta) for n, item in enumerate(load_source(source, cfg).items)]
    _, metrics = play(make("difficulty", made, window=8), 4, lambda drawn: 1.0)
    assert levels_of(metrics, source) == [*levels[1:], levels[-1], levels[-1]]


@pytest.mark.parametrize(
    ("meta", "level"),
    [({"difficulty": 3}, 3), ({"level": "Level 5"}, 5), ({"level": 2.5}, 2.5), ({"level": "hard"}, None), ({}, None)],
)
def test_levels_are_read_from_meta(meta: dict[str, Any], level: float | None) -> None:
    assert curriculum.difficulty.level_of(problem("a", 0, meta)) == level


WRONG: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("histry", {}, "did you mean history"),
    "argument": ("easy_pool", {"probabilty": 0.1}, "probabilty"),
    "probability": ("easy_pool", {"probability": 2}, "probability\n.*less than or equal to 1"),
    "text": ("easy_pool", {"probability": "often"}, "probability\n.*valid number"),
    "band": ("difficulty", {"low": 0.7, "high": 0.3}, "must be below high=0.3"),
    "window": ("difficulty", {"window": 0}, "window\n.*greater than or equal to 1"),
    "no levels": ("difficulty", {}, "no source of a, b has problems of two levels .*num_people"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_arguments_are_refused(case: str) -> None:
    name, args, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make(name, **args)


def test_missing_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="source 'a': 1 of 4 problems have no level"):
        make("difficulty", [*problems("a", 3, levels=[1, 2]), problem("a", 9, {})])
