"""avg@k, pass@k, maj@k and their standard errors against the golden cases and by enumeration."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from reward_samples import completion, problem

from r1ray.data.evalmath import avg_at_k, maj_at_k, pass_at_k, standard_error
from r1ray.evaluate import Evaluator
from r1ray.types import Group, Score

GOLDEN = {
    c["id"]: c for c in json.loads((Path(__file__).parents[1] / "golden" / "algorithms.json").read_text())["cases"]
}


def test_golden_pass_at_k():
    case = GOLDEN["eval_pass_at_k_unbiased"]
    assert [pass_at_k(n, c, k) for n, c, k in case["inputs"]["cases"]] == pytest.approx(case["expected"], abs=1e-6)


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 3), (5, 5, 1), (5, 0, 5), (7, 1, 7)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_reply(n: int, c: int, k: int):
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_more_than_was_sampled_does_not_exist():
    with pytest.raises(ValueError, match=r"eval.samples"):
        pass_at_k(4, 1, 8)


def test_golden_avg_at_k():
    case = GOLDEN["eval_pass_at_1_avg"]
    assert avg_at_k(case["inputs"]["correct"]) == pytest.approx(case["expected"])


def test_golden_majority():
    case = GOLDEN["eval_majority_vote"]
    scores = [
        maj_at_k(answers, [answer == gold for answer in answers])
        for answers, gold in zip(case["inputs"]["answers"], case["inputs"]["gold"], strict=True)
    ]
    assert scores == case["expected"]["score"]
    assert np.mean(scores) == case["expected"]["mean"]


def test_golden_majority_by_equivalence():
    case = GOLDEN["eval_majority_equivalence"]
    answers = case["inputs"]["answers"]
    assert maj_at_k(answers, [True, True, True, False, False]) == case["expected"]["score"]
    # The same votes when 3 is the gold: the wrong answers must still be one class of three.
    assert maj_at_k(answers, [False, False, False, True, True]) == 0.0


def test_right_answers_are_one_class_however_they_are_written():
    answers = ["2 * 3 + 5", "5 + 3 * 2", "1", "1", "(2 * 3) + 5"]
    assert maj_at_k(answers, [True, True, False, False, True]) == 1.0


def test_replies_without_an_answer_do_not_vote():
    assert maj_at_k([None, None, None, "7"], [False, False, False, True]) == 1.0
    assert maj_at_k([None, None], [False, False]) == 0.0


def test_of_equal_classes_the_first_seen_wins():
    assert maj_at_k(["1", "2", "2", "1"], [False, True, True, False]) == 0.0
    assert maj_at_k(["2", "1", "2", "1"], [True, False, True, False]) == 1.0


def test_golden_standard_error():
    case = GOLDEN["eval_stderr"]
    assert standard_error(case["inputs"]["per_problem"]) == pytest.approx(case["expected"], abs=1e-9)


def test_the_standard_error_counts_problems_not_replies():
    few, many = ([[1, 0]] * 2 + [[0, 0]] * 2, [[1, 0] * 50] * 2 + [[0, 0] * 50] * 2)
    assert standard_error([np.mean(r) for r in few]) == standard_error([np.mean(r) for r in many])
    assert np.isnan(standard_error([1.0]))


def test_every_golden_eval_case_is_used_or_named_here():
    used = {
        "eval_pass_at_k_unbiased",
        "eval_pass_at_1_avg",
        "eval_majority_vote",
        "eval_majority_equivalence",
        "eval_stderr",
    }
    # The expectation of maj@k over subsets of the replies: nothing reports it.
    unused = {"eval_maj_expected_subsample"}
    assert {name for name, case in GOLDEN.items() if case["category"] == "eval"} == used | unused


def test_problems_that_could_not_be_scored_are_no_wrong_answers() -> None:
    wrong = Score(reward=0.0, correct=False, parts={}, statuses={}, usable=True, seconds=0.0)
    right, failed = replace(wrong, correct=True), replace(wrong, correct=None, usable=False)
    replies = (completion("\\boxed{1}"), completion("\\boxed{2}"))
    evaluator = Evaluator(workers=None, sets={}, sampling=None, samples=2, pass_at=[1, 2], seed=0)  # type: ignore[arg-type]
    groups = [Group(problem=problem(), completions=replies, scores=s) for s in ((right, wrong), (right, failed))]
    metrics = evaluator.summarise(groups)
    assert (metrics["accuracy"], metrics["pass@2"], metrics["unusable"]) == (0.5, 1.0, 0.25)
    assert "accuracy" not in evaluator.summarise(groups[1:])
