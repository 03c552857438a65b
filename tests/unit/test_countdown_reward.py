"""Countdown's verifier with honest and hostile expressions."""

from fractions import Fraction

import pytest
import reward_samples
from reward_samples import completion

from r1ray.reward.accuracy import accuracy
from r1ray.reward.base import RewardContext
from r1ray.reward.countdown import BadExpression, evaluate, verify
from r1ray.types import Problem

CONTEXT = RewardContext(step=1, seed=0, max_response_length=100)


def problem(numbers, target) -> Problem:
    return reward_samples.problem(verifier="countdown", payload={"numbers": numbers, "target": target})


@pytest.mark.parametrize(
    "answer",
    ["2 * 3 + 5", "(2*3)+5", "5+3*2", "((((5)))+(3*2))", "5 + 3 * 2 = 11", "\t5+2 *\n3 "],
)
def test_correct_expressions_score_1(answer: str):
    assert verify(problem([5, 2, 3], 11), answer).correct is True


def test_intermediate_fractions_are_exact():
    assert verify(problem([8, 3, 8, 3], 24), "8 / (3 - 8 / 3)").correct is True
    assert verify(problem([1, 3, 3], 1), "1 / 3 * 3").correct is True


def test_number_can_be_used_as_often_as_it_is_given():
    assert verify(problem([4, 4, 4], 12), "4 + 4 + 4").correct is True
    assert verify(problem([4, 4, 4], 8), "4 + 4").correct is False
    assert verify(problem([4, 2], 8), "4 + 4").correct is False


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "11",
        "5 + 3 * 2 = 12",
        "5 + 3 * 2 = 11 = 11",
        "5 + 3 * 2 = 5 + 6",
        "5 + 6",
        "(5 + 3 * 2",
        "5 + 3 * 2)",
        ")5 + 3 * 2(",
        "5 + 3 * 2 +",
        "+ 5 + 3 * 2",
        "-(-5) + 3 * 2",
        "5 - -(3 * 2)",
        "5 + + 3 * 2",
        "5 + 3 2",
        "5 + 3(2)",
        "(5)(3)(2)",
        "()",
        "5 + 3 * 2 + ()",
        "5 / (3 - 3) * 2",
        "5 + 3 * 2 # 1",
        "5 + 3 \u00d7 2",
        "5 + 3 ** 2",
        "9**9**9",
        "5 + 3 * 2.0",
        "5 + 3 * 2e0",
        "5 + 3 * 0x2",
        "5 + 3 * 2_0",
        "5 // 2 + 3",
        "5 % 3 + 2",
        "5 ^ 3 ^ 2",
        "2 << 3 + 5",
        "\u0665 + \u0663 * \u0662",
        "\uff15 + \uff13 * \uff12",
        "5 + 3 * \u00b2",
        "5 + 3 * 2\u200b",
        "5 + 3 * 2; 11",
        "__import__('os').system('true')",
        "(lambda: 11)()",
        "[5, 3, 2][0]",
        "True + 10",
        "\\frac{22}{2}",
        "\\boxed{5 + 3 * 2}",
        "answer: 5 + 3 * 2",
        "(" * 100_000 + "5" + ")" * 100_000,
        "1" * 100_000,
        "9" * 13 + " + 5 + 3 * 2",
        "1*" * 50_000 + "1",
        "\0",
    ],
)
def test_incorrect_and_hostile_expressions_score_0(answer: str):
    score = verify(problem([5, 2, 3], 11), answer)
    assert (score.value, score.correct, score.status) == (0.0, False, "wrong_answer")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 - 2 - 3", -4),
        ("8 / 4 / 2", 1),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("7 / 2", Fraction(7, 2)),
        ("1 - (2 - 3)", 2),
    ],
)
def test_operators_have_precedence_and_left_associativity(expression: str, value):
    assert evaluate(expression)[0] == value


def test_numbers_are_listed_in_order():
    assert evaluate("(2 + 3) * 4 / 8") == (Fraction(5, 2), [2, 3, 4, 8])


def test_division_by_zero_is_an_invalid_expression():
    with pytest.raises(BadExpression, match="zero"):
        evaluate("1 / (2 - 2)")


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("<think>hm</think> <answer>5 + 3 * 2</answer>", True),
        ("<answer>5 + 3 * 2</answer>", True),
        ("<think>hm</think> <answer>5</answer> no, <answer>5 + 3 * 2</answer>", True),
        ("<think>hm</think> <answer>5 + 3 * 2</answer> no, <answer>5</answer>", False),
        ("<think><answer>5 + 3 * 2</answer></think> I give up", False),
        ("<think>a</think><think><answer>5 + 3 * 2</answer>", False),
        ("<think>5 + 3 * 2", False),
        ("<think>hm</think> 5 + 3 * 2", False),
        ("<think>hm</think> <answer>5 + 3 * 2", False),
        ("<think>hm</think> 5 + 3 * 2</answer>", False),
        ("", False),
    ],
)
def test_last_answer_after_the_thinking_counts(text: str, correct: bool):
    (score,) = accuracy(problem([5, 2, 3], 11), [completion(text)], CONTEXT)
    assert score.correct is correct
    assert score.value == float(correct)
