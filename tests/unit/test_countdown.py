"""The problem generator and the traces of the built-in base model."""

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

import pytest

from r1ray.data.generators import countdown, oneliners, traces
from r1ray.data.generators.base import GeneratorArgs
from r1ray.reward.countdown import evaluate

LINE = re.compile(r"([a-l])\) (\d+) ([-+*/]) (\d+) = (\d+), (\d+) ([-+*/]) (\d+) = (\d+) (yes|no)")
NUM_TRACES = 3000


def generate(**args: Any) -> Iterator[dict[str, Any]]:
    return countdown.generate(countdown.CountdownArgs(**args))


def apply(left: str, sign: str, right: str) -> Fraction:
    return evaluate(f"{left} {sign} {right}")[0]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return list(traces.generate(GeneratorArgs(num_problems=NUM_TRACES, seed=3)))


@pytest.mark.parametrize("num_numbers", [3, 4])
def test_solutions_solve_their_problems(num_numbers):
    for row in generate(split="train", num_problems=50, seed=0, num_numbers=num_numbers):
        value, used = evaluate(row["solution"])
        assert value == row["target"]
        assert sorted(used) == sorted(row["numbers"]) and len(used) == num_numbers
        assert row["id"] == countdown.problem_id(row["numbers"], row["target"])


def test_question_names_target_and_numbers():
    assert countdown.question([5, 2, 3], 11) == "Make 11 from 5, 2, 3. Use each number once."


def test_problem_is_the_same_in_any_order_of_its_numbers():
    assert countdown.problem_id([5, 2, 3], 11) == countdown.problem_id([2, 3, 5], 11) == "countdown/2-3-5=11"
    assert countdown.split_of([5, 2, 3], 11) == countdown.split_of([3, 5, 2], 11)


def test_splits_are_decided_by_a_fixed_hash():
    found = [countdown.split_of([2, 3, 5], target) for target in range(10, 20)]
    assert found == ["test"] * 4 + ["train", "traces", "test", "train", "train", "train"]


def test_splits_are_large_enough_for_training_and_evaluation():
    sizes = countdown.SIZES[3]
    assert sizes["traces"] > traces.NUM_PROBLEMS and sizes["train"] > 3000 and sizes["test"] > 900


@pytest.mark.parametrize("num_numbers", [2, 3])
def test_known_sizes_equal_the_splits(num_numbers):
    sizes = dict.fromkeys(("traces", "train", "test"), 0)
    for numbers in combinations_with_replacement(range(1, countdown.MAX_NUMBER + 1), num_numbers):
        for target in countdown.reachable(numbers):
            if target >= countdown.MIN_TARGET:
                sizes[countdown.split_of(numbers, target)] += 1
    assert sizes == countdown.SIZES[num_numbers]


def test_whole_split_can_be_generated():
    whole = countdown.SIZES[3]["test"]
    ids = {row["id"] for row in generate(split="test", num_problems=whole, seed=0)}
    assert len(ids) == whole


def test_splits_share_no_problem_with_any_seed():
    ids = [
        {row["id"] for row in generate(split=split, num_problems=800, seed=seed)}
        for split, seed in (("traces", 0), ("train", 1), ("test", 2))
    ]
    assert all(len(found) == 800 for found in ids)
    assert len(set.union(*ids)) == 2400


def test_same_seed_gives_the_same_problems():
    first, again, other = (
        [row["id"] for row in generate(split="test", num_problems=20, seed=seed)] for seed in (7, 7, 8)
    )
    assert first == again != other


def test_too_many_problems_are_refused_before_sampling(monkeypatch):
    monkeypatch.setattr(countdown, "reachable", lambda numbers: pytest.fail("drawn"))
    with pytest.raises(ValueError, match="test has 1005 problems with 3 numbers, not 1006"):
        next(generate(split="test", num_problems=1006, seed=0))
    for num_numbers in (1, 6, "many"):
        with pytest.raises(ValueError, match="must be a number from 2 to 5"):
            next(generate(split="test", num_problems=1, seed=0, num_numbers=num_numbers))


@pytest.mark.parametrize(
    ("split", "num_problems", "message"), [("dev", 1, "'traces', 'train' or 'test'"), ("test", 10**6, "not 1000000")]
)
def test_invalid_arguments_are_refused(split, num_problems, message):
    with pytest.raises(ValueError, match=message):
        list(generate(split=split, num_problems=num_problems, seed=0))


def test_traces_come_from_their_own_split(rows):
    found = {row["question"] for row in rows if row["kind"] == "countdown"}
    assert len(found) > 1000
    for question in found:
        target, *numbers = map(int, re.findall(r"\d+", question))
        assert countdown.split_of(numbers, target) == "traces"


def test_searches_are_correct_and_end_with_their_last_attempt(rows):
    endings = dict.fromkeys(("yes", "no", "none left"), 0)
    for row in rows:
        if row["kind"] != "countdown":
            continue
        target, *numbers = map(int, re.findall(r"\d+", row["question"]))
        thought, answer = re.fullmatch(
            r"<think>(.*)\n</think> <answer>(.*)</answer>", row["response"], re.DOTALL
        ).groups()
        lines = thought.split("\n")
        tries = [LINE.fullmatch(line).groups() for line in lines if line != "none left"]
        for _, a, sign, b, value, left, sign_2, right, result, verdict in tries:
            assert apply(a, sign, b) == int(value) and apply(left, sign_2, right) == int(result)
            assert (verdict == "yes") == (int(result) == target)
        assert [verdict for *_, verdict in tries[:-1]].count("yes") == 0
        result, used = evaluate(answer)
        assert result == int(tries[-1][8]) and sorted(used) == sorted(numbers)
        listed = [step[:4] for step in traces.first_steps(numbers)]
        begun = [(letter, int(a), sign, int(b)) for letter, a, sign, b, *_ in tries]
        start = listed.index(begun[0])
        assert begun == listed[start : start + len(begun)], "a search follows the order of the list"
        if lines[-1] == "none left":
            assert begun[-1] == listed[-1]
        endings[lines[-1] if lines[-1] == "none left" else tries[-1][-1]] += 1
    assert all(endings.values()), endings
    assert 0.25 < endings["yes"] / sum(endings.values()) < 0.4


def test_letter_denotes_one_pair_and_operator():
    assert [step[:4] for step in traces.first_steps([5, 9, 6])] == [
        ("b", 9, "*", 6), ("c", 9, "-", 6), ("d", 9, "+", 6),
        ("f", 9, "*", 5), ("g", 9, "-", 5), ("h", 9, "+", 5),
        ("j", 6, "*", 5), ("k", 6, "-", 5), ("l", 6, "+", 5),
    ]  # fmt: skip


def test_every_one_liner_occurs_in_both_languages(rows):
    kinds = {row["kind"] for row in rows}
    assert kinds == {"countdown"} | {kind + end for kind in oneliners.KINDS for end in ("", "_zh")}


@pytest.mark.parametrize("kind", oneliners.KINDS)
def test_correct_and_incorrect_ways_of_a_one_liner_differ(kind):
    import numpy as np

    for seed in range(100):
        task = oneliners.KINDS[kind](np.random.default_rng(seed))
        (correct_thought, correct), (incorrect_thought, incorrect) = task.correct, task.incorrect
        assert correct != incorrect
        assert correct_thought.keys() == incorrect_thought.keys() == task.question.keys() == {"en", "zh"}


def test_every_puzzle_has_one_solution():
    for claims in oneliners.PUZZLES:
        assert len(oneliners._solutions(claims)) == 1
    assert len(oneliners.PUZZLES) > 10


def test_counts_of_numbers_get_equal_shares_while_problems_last() -> None:
    made = list(generate(split="train", num_problems=300, seed=0, num_numbers=[2, 4]))
    assert Counter(len(row["numbers"]) for row in made) == {2: 83, 3: 109, 4: 108}, (
        "there are only 83 problems with two numbers"
    )
    assert [len(row["numbers"]) for row in made[:6]] == [2, 3, 4, 2, 3, 4]


def test_more_problems_than_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"split train has 3284 problems with 2 to 3 numbers, not 3300"):
        next(generate(split="train", num_problems=3300, seed=0, num_numbers=[2, 3]))


@pytest.mark.parametrize("num_numbers", [[3, 2], [1, 3], [2, 3, 4], [3], "34"])
def test_invalid_range_of_numbers_is_refused(num_numbers: Any) -> None:
    with pytest.raises(ValueError, match="must be a number from 2 to 5"):
        next(generate(split="train", num_problems=3, seed=0, num_numbers=num_numbers))
