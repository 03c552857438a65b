"""The scorer: weighted sum, correctness from the named component, truncation, failures that cost no completion its reward."""

import itertools
import logging
import math
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction as Rational

import numpy as np
import pytest
import reward_samples
from reward_samples import completion

from r1ray import reward
from r1ray.config import RewardComponentConfig, RewardConfig
from r1ray.config.base import Fraction
from r1ray.plugin import Args, arguments
from r1ray.reward import base
from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.reward.compose import Component, Scorer
from r1ray.types import Problem

CONTEXT = RewardContext(step=1, seed=5, max_response_length=100)
CORRECT, INCORRECT = "<think>a</think> <answer>5 + 3 * 2</answer>", "<answer>5</answer>"


def problem(**changes) -> Problem:
    countdown = {"source": "countdown", "verifier": "countdown", "payload": {"numbers": [5, 2, 3], "target": 11}}
    return reward_samples.problem(**(countdown | changes))


def config(components: dict, truncated: str = "zero") -> RewardConfig:
    made = {name: RewardComponentConfig(**component) for name, component in components.items()}
    return RewardConfig.model_construct(components=made, truncated=truncated)


def fixed(*values):
    return lambda problem, completions_G, context: [
        value if isinstance(value, ComponentScore) else ComponentScore(value=value) for value in values
    ]


def scorer(truncated: str = "zero", **components) -> Scorer:
    return Scorer([Component(name=n, weight=w, reward=f) for n, (w, f) in components.items()], truncated=truncated)


def test_r1_zero_scores_a_group():
    scores = reward.make(config({"accuracy": {"weight": 1.0}, "format": {"weight": 0.1}})).score(
        problem(), [completion(CORRECT), completion(INCORRECT)], CONTEXT
    )
    assert [s.reward for s in scores] == [1.1, 0.0]
    assert [s.correct for s in scores] == [True, False]
    assert scores[0].components == {"accuracy": 1.0, "format": 1.0}
    assert scores[0].statuses == {"accuracy": "ok", "format": "ok"}
    assert scores[1].statuses == {"accuracy": "wrong_answer", "format": "wrong_answer"}
    assert all(s.usable for s in scores)


def test_component_that_does_not_apply_is_excluded_from_the_sum():
    scores = scorer(a=(1.0, fixed(1.0, 0.5)), b=(0.5, fixed(None, 0.2))).score(problem(), [completion()] * 2, CONTEXT)
    assert [s.reward for s in scores] == pytest.approx([1.0, 0.6])
    assert scores[0].components == {"a": 1.0, "b": None}
    assert all(s.usable for s in scores)


def test_component_of_weight_0_still_decides_correctness():
    made = reward.make(config({"accuracy": {"weight": 0.0}, "format": {"weight": 1.0}}))
    (score,) = made.score(problem(), [completion("<answer>5 + 3 * 2</answer>")], CONTEXT)
    assert (score.reward, score.correct, score.components["accuracy"]) == (0.0, True, 1.0)


def test_correctness_comes_from_the_component_that_the_problem_names():
    made = scorer(
        accuracy=(1.0, fixed(ComponentScore(value=1.0, correct=True))),
        judge=(1.0, fixed(ComponentScore(value=0.0, correct=False))),
    )
    assert made.score(problem(accuracy="judge"), [completion()], CONTEXT)[0].correct is False
    assert made.score(problem(accuracy="accuracy"), [completion()], CONTEXT)[0].correct is True
    assert made.score(problem(accuracy="nothing"), [completion()], CONTEXT)[0].correct is None


@pytest.mark.parametrize(
    ("truncated", "expected"), [("zero", (0.0, False)), ("score", (1.1, True)), ("mask", (1.1, True))]
)
def test_reward_of_a_truncated_completion(truncated: str, expected: tuple):
    made = reward.make(config({"accuracy": {"weight": 1.0}, "format": {"weight": 0.1}}, truncated))
    cut, whole = made.score(problem(), [completion(CORRECT, "length"), completion(CORRECT)], CONTEXT)
    assert (cut.reward, cut.correct) == expected
    assert cut.components == whole.components
    assert cut.usable
    assert (whole.reward, whole.correct) == (1.1, True)


def test_truncation_does_not_set_correctness_where_it_does_not_apply():
    (score,) = scorer(style=(1.0, fixed(0.7))).score(problem(), [completion("x", "length")], CONTEXT)
    assert (score.reward, score.correct) == (0.0, None)


def test_aborted_completion_is_unusable():
    (score,) = scorer(style=(1.0, fixed(0.7))).score(problem(), [completion("x", "abort")], CONTEXT)
    assert not score.usable


def boom(problem, completions_G, context):
    raise RuntimeError("the judge's server is down")


def test_exception_makes_the_group_unusable_and_is_logged_once(caplog):
    made = scorer(accuracy=(1.0, fixed(1.0, 0.0)), judge=(1.0, boom))
    with caplog.at_level(logging.ERROR):
        scores = made.score(problem(), [completion()] * 2, CONTEXT)
        made.score(problem(), [completion()] * 2, CONTEXT)
    assert [s.usable for s in scores] == [False, False]
    assert scores[0].components == {"accuracy": 1.0, "judge": None}
    assert scores[0].statuses["judge"] == "sandbox_error"
    assert len(caplog.records) == 1
    assert "the judge's server is down" in caplog.text


def test_failure_of_one_completion_leaves_the_others_usable():
    made = scorer(judge=(1.0, fixed(1.0, ComponentScore(value=None, status="sandbox_error"))))
    assert [s.usable for s in made.score(problem(), [completion()] * 2, CONTEXT)] == [True, False]


def test_failing_component_of_weight_0_keeps_samples_usable_unless_it_is_accuracy():
    made = scorer(accuracy=(0.0, boom), style=(1.0, fixed(1.0)), watcher=(0.0, boom))
    assert made.score(problem(accuracy="style"), [completion()], CONTEXT)[0].usable
    assert not made.score(problem(accuracy="accuracy"), [completion()], CONTEXT)[0].usable


def test_weight_can_depend_on_the_step():
    made = reward.make(
        config({"accuracy": {}, "format": {"weight": 0, "schedule": {20: 1, 10: 0.5}}}, truncated="score")
    )
    weights = []
    for step in (1, 9, 10, 19, 20, 500):
        (score,) = made.score(problem(), [completion(CORRECT)], replace(CONTEXT, step=step))
        weights.append(score.reward - 1.0)
    assert weights == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


def test_component_has_weight_0_before_the_first_step_of_its_schedule():
    scheduled = Component(
        name="scheduled",
        weight=0.0,
        schedule={5: 1.0},
        reward=fixed(ComponentScore(value=None, status="sandbox_error")),
    )
    made = Scorer([scheduled], truncated="score")
    early, later = (made.score(problem(), [completion()], replace(CONTEXT, step=step))[0] for step in (4, 5))
    assert (early.usable, later.usable) == (True, False)


def test_component_can_be_limited_to_some_sources():
    made = reward.make(config({"accuracy": {}, "format": {"sources": ["other"]}}, truncated="score"))
    (ours,) = made.score(problem(), [completion(CORRECT)], CONTEXT)
    (others,) = made.score(problem(source="other"), [completion(CORRECT)], CONTEXT)
    assert (ours.reward, ours.components["format"], ours.usable) == (1.0, None, True)
    assert (others.reward, others.components["format"]) == (2.0, 1.0)


def test_timeout_caused_by_the_completion_is_scored():
    made = scorer(accuracy=(1.0, fixed(ComponentScore(value=0.0, status="timeout", correct=False))))
    (score,) = made.score(problem(), [completion()], CONTEXT)
    assert (score.usable, score.reward, score.statuses["accuracy"]) == (True, 0.0, "timeout")


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, -math.inf, 1e308, -1e39, 10**400, np.float64(1e200), np.float32("inf")),
        *("a", "1.0", b"1", [1.0], {"score": 1.0}, (1.0, "why"), 1j, object(), np.array([1.0, 2.0])),
        *(ComponentScore(value=math.nan), ComponentScore(value=1e308), ComponentScore(value="1")),  # type: ignore[arg-type]
        ComponentScore(value=1.0, status="fine"),  # type: ignore[arg-type]
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_a_value_that_is_no_reward_makes_its_completion_unusable(value: object):
    made = scorer(a=(1.0, lambda problem, completions_G, context: [value, 0.5]))
    bad, good = made.score(problem(), [completion()] * 2, CONTEXT)
    assert (bad.usable, bad.statuses["a"], bad.components["a"]) == (False, "sandbox_error", None)
    assert "it returned" in bad.errors["a"].message and "test_compose.py" in bad.errors["a"].place
    assert (good.usable, good.reward, dict(good.errors)) == (True, 0.5, {})


@pytest.mark.parametrize(
    "returned",
    [
        *((1.0,), (1.0, 0.0, 0.0), [], 1.0, None, "11", b"11", {"a": 1.0, "b": 2.0}, {1.0, 2.0}, np.array(1.0)),
        itertools.repeat(1.0),
    ],
    ids=repr,
)
def test_what_is_no_list_of_g_scores_makes_the_group_unusable(returned: object):
    made = scorer(a=(1.0, lambda problem, completions_G, context: returned))
    scores = made.score(problem(), [completion()] * 2, CONTEXT)
    assert [(s.usable, s.statuses["a"]) for s in scores] == [(False, "sandbox_error")] * 2
    assert all("test_compose.py" in s.errors["a"].place for s in scores)


@pytest.mark.parametrize(
    "returned",
    [[1, 0.5], (True, 0.5), np.array([1, 0.5], np.float32), iter([Rational(1), Decimal("0.5")]), [1, np.float16(0.5)]],
)
def test_any_numbers_are_rewards(returned: object):
    made = scorer(a=(1.0, lambda problem, completions_G, context: returned))
    assert [s.reward for s in made.score(problem(), [completion()] * 2, CONTEXT)] == [1.0, 0.5]


def test_a_sum_beyond_float32_is_refused_though_each_component_is_not():
    made = scorer(a=(1e20, fixed(1e20, 1.0)), b=(1.0, fixed(1.0, 1.0)))
    bad, good = made.score(problem(), [completion()] * 2, CONTEXT)
    assert not bad.usable and math.isfinite(bad.reward) and "1e+40" in bad.errors[base.SUM].message
    assert good.usable and not good.errors


class CoinArgs(Args):
    p: Fraction = 0.5


@arguments(CoinArgs)
def coin(problem, completions_G, context, args: CoinArgs):
    """A control that ignores the completion. Plain numbers are allowed."""
    return [float(np.random.default_rng(context.seed + k).random() < args.p) for k in range(len(completions_G))]


def test_reward_from_outside_is_an_import_path_with_arguments():
    made = reward.make(config({"coin": {"name": f"{__name__}:coin", "args": {"p": 1.0}}}))
    (score,) = made.score(problem(), [completion()], CONTEXT)
    assert (score.reward, score.correct) == (1.0, None)


def test_the_same_seed_draws_the_same_rewards():
    made = reward.make(config({"coin": {"name": f"{__name__}:coin"}}))
    first, again = ([s.reward for s in made.score(problem(), [completion()] * 16, CONTEXT)] for _ in range(2))
    assert first == again
    assert 0 < sum(first) < 16


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"acuracy": {}}, "did you mean accuracy"),
        ({"mine": {"name": "format_"}}, "did you mean format"),
        ({"mine": {"name": "no.such.package:reward"}}, "cannot be imported"),
        ({"mine": {"name": f"{__name__}:nothing"}}, "cannot be imported"),
        ({"coin": {"name": f"{__name__}:coin", "args": {"q": 1}}}, "reward.components.coin.args"),
        ({"coin": {"name": f"{__name__}:coin", "args": {"p": 2}}}, "reward.components.coin.args"),
        ({"accuracy": {"args": {"strict": True}}}, "reward.components.accuracy.args"),
    ],
)
def test_reward_that_cannot_be_built_is_reported_with_the_remedy(components: dict, message: str):
    with pytest.raises(ValueError, match=message):
        reward.make(config(components))


def test_unknown_verifier_is_a_failure_that_names_it(caplog):
    (score,) = reward.make(config({"accuracy": {}})).score(problem(verifier="maths"), [completion(CORRECT)], CONTEXT)
    assert not score.usable
    assert "did you mean math" in caplog.text


def test_tokens_are_read_by_rewards_of_lengths_and_by_rewards_from_outside():
    reading = {name for name, known in reward.REWARDS.items() if base.reads_tokens(known)}
    assert reading == {"cosine", "length", "overlong", "repetition"}
    assert reward.reads_tokens(config({"coin": {"name": f"{__name__}:coin"}}))
    assert not reward.reads_tokens(config({"accuracy": {}, "verdict": {"name": "judge"}}))
