"""Rewards for length, repetition and steps, beyond the golden cases."""

import math
import time
from typing import Any

import pytest
from pydantic import ValidationError
from reward_samples import completion, context, given, of_length, problem, value

from r1ray import reward
from r1ray.config import RewardComponentConfig, RewardConfig
from r1ray.reward.answered import answered
from r1ray.reward.cosine import cosine
from r1ray.reward.length import length
from r1ray.reward.mixed import mixed
from r1ray.reward.overlong import overlong
from r1ray.reward.repetition import repetition, words
from r1ray.types import Completion


def test_equally_long_completions_get_no_length_reward() -> None:
    assert given(length, problem(), [of_length(5)] * 3, context([True, False, None])) == [0.0, 0.0, None]


def test_completion_of_unknown_correctness_is_not_shaped() -> None:
    completions_G = [of_length(5), of_length(9)]
    assert given(length, problem(), completions_G, context([None, True])) == [None, -0.5]
    assert given(cosine, problem(), completions_G, context([None, True]))[0] is None


def test_shaping_without_an_accuracy_is_an_error() -> None:
    for shaping in (length, cosine):
        with pytest.raises(ValueError, match="zip"):
            given(shaping, problem(), [of_length(5), of_length(6)], context())


def test_cosine_is_scaled_to_the_maximum_response_length() -> None:
    correct_G = [True, True]
    short = given(cosine, problem(), [of_length(50)] * 2, context(correct_G, max_response_length=100))
    assert short == pytest.approx([0.75, 0.75])
    assert given(cosine, problem(), [of_length(50)] * 2, context(correct_G), max_length=100) == short


@pytest.mark.parametrize(
    ("reward", "args"),
    [
        (overlong, {"cache": 0}),
        (overlong, {"cache": "77"}),
        (repetition, {"max_penalty": 0.1}),
        (repetition, {"n": 0}),
        (repetition, {"of": "letters"}),
        (length, {"correct_scale": 2.0}),
        (mixed, {"max_foreign": 1.0}),
        (cosine, {"max_length": 0}),
        (cosine, {"max_correct": math.inf}),
    ],
)
def test_invalid_arguments_are_refused_by_name(reward: Any, args: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(args))):
        reward.Args(**args)


def test_overlong_uses_the_maximum_response_length() -> None:
    completions_G = [of_length(n) for n in (60, 80, 100)]
    assert given(overlong, problem(), completions_G, context(max_response_length=100), cache=40) == [0.0, -0.5, -1.0]


def test_words_of_any_language_are_counted() -> None:
    assert words("We ADD, 我们加 x=3") == ["we", "add,", "我", "们", "加", "x=3"]
    assert value(repetition, "我们我们我们", n=2, of="words") == pytest.approx(-(1 - 2 / 5))


def test_shaped_reward_uses_the_accuracy_wherever_it_is_listed() -> None:
    """Also when the shaped reward comes first in the configuration, and when accuracy has weight 0."""
    components = {"length": RewardComponentConfig(), "accuracy": RewardComponentConfig(weight=0.0)}
    scorer = reward.make(RewardConfig.model_construct(components=components, truncated="score"))

    def response(answer: str, num_tokens: int) -> Completion:
        return completion(f"\\boxed{{{answer}}}", token_ids=[7] * num_tokens)

    scores = scorer.score(problem(), [response("1", 10), response("2", 20), response("1", 30)], context())
    assert [score.reward for score in scores] == [0.5, 0.0, -0.5]
    assert [score.correct for score in scores] == [True, False, True]
    assert list(scores[0].components) == ["length", "accuracy"]


@pytest.mark.parametrize("name", sorted(reward.REWARDS.keys() - {"judge"}))
def test_rewards_are_fast_on_a_long_hostile_completion(name: str) -> None:
    """A rule reward reads every response: seconds for one would delay the step."""
    pieces = ("<think>", "</think>", "<answer>", "$", "`", "\\(", "a ", "1", "<<<<<<< SEARCH\n", "{", "\n")
    payload = {"answers": ["1"], "files": {"a.py": "a\n" * 4000}, "patched": {"a.py": "b\n" * 4000}}
    for piece in pieces:
        response = completion(f"<think>{piece * 20_000}</think><answer>{piece * 5000}</answer>", token_ids=[3] * 30_000)
        start = time.process_time()
        given(reward.REWARDS[name], problem(payload=payload), [response], context([False]))
        assert time.process_time() - start < 2, piece


def test_length_reward_of_correct_completions_can_have_another_weight() -> None:
    completions_G, known = [of_length(5), of_length(9)], context([True, True])
    assert given(length, problem(), completions_G, known, correct_scale=0.5) == [0.25, -0.25]
    assert given(length, problem(), completions_G, context([False, False]), correct_scale=0.5) == [0.0, -0.5]


@pytest.mark.parametrize(
    ("text", "reward", "status"),
    [
        ("<answer>7</answer>", 1.0, "ok"),
        ("<think>a</think> <answer> no equation </answer>", 1.0, "ok"),
        ("<think><answer>7</answer>", 0.0, "wrong_answer"),
        ("7", 0.0, "wrong_answer"),
    ],
)
def test_answered_rewards_any_answer(text: str, reward: float, status: str) -> None:
    (score,) = answered(problem(verifier="countdown"), [completion(text)], context())
    assert (score.value, score.status, score.correct) == (reward, status, None)


@pytest.mark.parametrize(
    ("text", "changes", "penalty"),
    [
        ("<think>We add the numbers</think> 7", {}, 0.0),
        ("<think>We add 我们 numbers</think> 7", {}, -1.0),
        ("<think>We add the numbers</think> 我们", {}, 0.0),
        ("<think>我们 加</think>", {"language": "zh"}, 0.0),
        ("12 + 5", {}, 0.0),
        ("<think>We add</think>\n```python\nprint(1)\n```", {}, -1.0),
        ("<think>We add</think>\n```python\nprint(1)\n```", {"verifier": "code"}, 0.0),
    ],
)
def test_mixing_languages_or_code_is_penalised(text: str, changes: dict[str, str], penalty: float) -> None:
    assert value(mixed, text, asked=problem(**changes)) == penalty


def test_small_share_of_another_language_is_allowed() -> None:
    text = "<think>" + "word " * 19 + "我</think>"
    assert value(mixed, text) == 0.0
    assert value(mixed, text, max_foreign=0.04) == -1.0
