"""avg@k, pass@k, maj@k and their standard errors, by enumeration and in edge cases; plain cases are in tests/golden."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from reward_samples import completion, problem

from r1ray.data.eval_metrics import expected_maj_at_k, maj_at_k, pass_at_k, standard_error
from r1ray.evaluator import Evaluator
from r1ray.types import Group, Score


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 3), (5, 5, 1), (5, 0, 5), (7, 1, 7)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_completion(n: int, c: int, k: int):
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match=r"eval.num_samples"):
        pass_at_k(4, 1, 8)


def test_equal_incorrect_answers_are_one_class():
    assert maj_at_k(["1/2", "0.5", "\\frac{1}{2}", "3", "3"], [False, False, False, True, True]) == 0.0


def test_correct_answers_are_one_class_in_any_notation():
    answers = ["2 * 3 + 5", "5 + 3 * 2", "1", "1", "(2 * 3) + 5"]
    assert maj_at_k(answers, [True, True, False, False, True]) == 1.0


def test_completions_without_an_answer_do_not_vote():
    assert maj_at_k([None, None, None, "7"], [False, False, False, True]) == 1.0
    assert maj_at_k([None, None], [False, False]) == 0.0


def test_the_first_of_equally_large_classes_wins():
    assert maj_at_k(["1", "2", "2", "1"], [False, True, True, False]) == 0.0
    assert maj_at_k(["2", "1", "2", "1"], [True, False, True, False]) == 1.0


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_the_expected_majority_is_the_mean_over_subsets(k: int):
    answers = ["A", "B", "A", None, "C", "B", "A", "B"]
    wins = []
    for subset in combinations(answers, k):
        counts = Counter(answer for answer in subset if answer is not None)
        first = [answer for answer, votes in counts.items() if votes == max(counts.values())]
        wins.append(1 / len(first) if "A" in first else 0.0)
    found = expected_maj_at_k(answers, [answer == "A" for answer in answers], k)
    assert found == pytest.approx(np.mean(wins))


def test_the_expected_majority_without_votes_and_with_too_few_samples():
    assert expected_maj_at_k([None, "B"], [False, False], 2) == 0.0
    assert expected_maj_at_k([None] * 3 + ["A"] * 61, [False] * 3 + [True] * 61, 32) == 1.0
    with pytest.raises(ValueError, match=r"eval.num_samples"):
        expected_maj_at_k(["A"], [True], 2)


def test_the_standard_error_counts_problems_not_completions():
    few, many = ([[1, 0]] * 2 + [[0, 0]] * 2, [[1, 0] * 50] * 2 + [[0, 0] * 50] * 2)
    assert standard_error([np.mean(r) for r in few]) == standard_error([np.mean(r) for r in many])
    assert np.isnan(standard_error([1.0]))


def test_problems_that_could_not_be_scored_do_not_count_as_incorrect() -> None:
    wrong = Score(reward=0.0, correct=False, components={}, statuses={}, usable=True, seconds=0.0)
    right, failed = replace(wrong, correct=True), replace(wrong, correct=None, usable=False)
    completions = (completion("\\boxed{1}"), completion("\\boxed{2}"))
    nothing: Any = None
    evaluator = Evaluator(
        workers=nothing,
        sets={},
        sampling=nothing,
        num_samples=2,
        pass_at=[1, 2],
        seed=0,
        reward_errors=nothing,
        record=nothing,
    )
    groups = [Group(problem=problem(), completions=completions, scores=s) for s in ((right, wrong), (right, failed))]
    metrics = evaluator.summarise(groups)
    assert (metrics["accuracy"], metrics["pass@2"], metrics["unusable"]) == (0.5, 1.0, 0.25)
    assert "accuracy" not in evaluator.summarise(groups[1:])
