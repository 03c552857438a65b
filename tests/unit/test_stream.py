"""The stream: a resumed stream equals an uninterrupted one, weights are respected, no problem repeats within an epoch."""

import json
from collections import Counter

import numpy as np
import pytest

from r1ray.data.stream import ProblemStream
from r1ray.types import Message, Problem


def problems(source: str, count: int) -> list[Problem]:
    return [
        Problem(
            id=f"{source}/{n}",
            source=source,
            messages=(Message(role="user", content="?"),),
            prompt_ids_T=np.array([n], np.int32),
            verifier="countdown",
            payload={},
        )
        for n in range(count)
    ]


SOURCES = {"a": problems("a", 7), "b": problems("b", 30)}
WEIGHTS = {"a": 3.0, "b": 1.0}


def stream(*, sources=SOURCES, weights=WEIGHTS, seed: int = 0, shuffle: bool = True) -> ProblemStream:
    return ProblemStream(sources, weights=weights, seed=seed, shuffle=shuffle)


def take(stream: ProblemStream, count: int) -> list[tuple[str, int]]:
    return [(drawn.problem.id, drawn.epoch) for drawn in (stream.next() for _ in range(count))]


@pytest.mark.parametrize("cut", [0, 1, 6, 7, 8, 50, 199])
def test_resumed_stream_equals_an_uninterrupted_one(cut: int):
    whole = take(stream(), 200)
    first = stream()
    assert take(first, cut) == whole[:cut]
    state = json.loads(json.dumps(first.state_dict()))
    second = stream()
    take(second, 13)
    second.load_state_dict(state)
    assert take(second, 200 - cut) == whole[cut:]


def test_state_has_only_integers():
    made = stream()
    take(made, 20)
    state = made.state_dict()
    numbers = [state["draws"], *(n for source in state["sources"].values() for n in source.values())]
    assert all(type(n) is int for n in numbers)
    assert state["draws"] == 20


def test_no_problem_repeats_within_an_epoch_of_its_source():
    drawn = take(stream(), 400)
    assert len(set(drawn)) == len(drawn)
    epochs = Counter(epoch for name, epoch in drawn if name.startswith("a"))
    assert all(epochs[epoch] == 7 for epoch in range(max(epochs)))


def test_epochs_differ_in_order_and_cover_the_same_problems():
    drawn = take(stream(sources={"b": SOURCES["b"]}, weights={"b": 1.0}), 60)
    assert [e for _, e in drawn] == [0] * 30 + [1] * 30
    assert drawn[:30] != [(name, 0) for name, _ in drawn[30:]]
    assert {name for name, _ in drawn[:30]} == {name for name, _ in drawn[30:]}


def test_weights_are_shares_of_the_draws():
    drawn = Counter(name[0] for name, _ in take(stream(), 4000))
    assert drawn["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_without_shuffle_problems_come_in_file_order():
    drawn = take(stream(sources={"a": SOURCES["a"]}, weights={"a": 1.0}, shuffle=False), 9)
    assert drawn == [(f"a/{n}", 0) for n in range(7)] + [("a/0", 1), ("a/1", 1)]


def test_order_depends_only_on_the_seed():
    assert take(stream(), 50) == take(stream(), 50)
    assert take(stream(), 50) != take(stream(seed=1), 50)


def test_sources_of_equal_size_have_different_orders():
    twins = {"a": problems("a", 30), "b": problems("b", 30)}
    drawn = take(stream(sources=twins, weights={"a": 1.0, "b": 1.0}), 100)
    first = {s: [name[2:] for name, epoch in drawn if name[0] == s and epoch == 0] for s in "ab"}
    assert first["a"][:20] != first["b"][:20]


def test_state_of_other_problems_is_refused():
    state = stream().state_dict()
    for other in ({"a": SOURCES["a"][:5], "b": SOURCES["b"]}, {"a": SOURCES["a"]}):
        with pytest.raises(ValueError, match="training problems"):
            stream(sources=other).load_state_dict(state)


def test_empty_source_is_refused():
    with pytest.raises(ValueError, match="'a' has no problems"):
        stream(sources={"a": []}, weights={"a": 1.0})
