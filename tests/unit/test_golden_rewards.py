"""The reward cases of tests/golden/algorithms.json; where r1ray differs on purpose, its value is listed next to the case's."""

from pathlib import Path
from typing import Any

import pytest
from golden_cases import CASES, cases_of, check
from reward_samples import completion, context, given, of_length, problem, value

from r1ray.reward.code.difficulty import soft_points, strict_points
from r1ray.reward.code.fraction import cut
from r1ray.reward.code.ioi import subtask_score
from r1ray.reward.compose import Component, Scorer
from r1ray.reward.cosine import cosine
from r1ray.reward.format import format_reward
from r1ray.reward.length import length
from r1ray.reward.overlong import overlong
from r1ray.reward.repetition import penalty, repetition, words
from r1ray.reward.steps import reasoning_steps
from r1ray.reward.swe import similarity

OURS: dict[str, Any] = {"reward_format_openr1": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]}
"""Open-R1's expression requires newlines inside the tags, and accepts a doubled tag and text after the answer; ours does not."""
ELSEWHERE = {"reward_accuracy_math_verify": "test_math_verify"}
"""Needs a separate process."""


def kimi(x: dict[str, Any]) -> list[float | None]:
    correct_G = [bool(correct) for correct in x["correct"]]
    return given(length, problem(), [of_length(n) for n in x["lengths"]], context(correct_G))


def scaled(x: dict[str, Any], *, correct: bool) -> list[float | None]:
    args = {
        name.replace("wrong", "incorrect"): x[name] for name in ("min_wrong", "max_wrong", "min_correct", "max_correct")
    }
    completions_G = [of_length(n) for n in x["lengths"]]
    about = context([correct] * len(completions_G), max_response_length=x["max_len"])
    return given(cosine, problem(), completions_G, about, **args)


def cosines(x: dict[str, Any]) -> dict[str, list[float | None]]:
    if max(x["lengths"]) > x["max_len"]:
        return {"clamped_correct": scaled(x, correct=True)}
    return {"correct": scaled(x, correct=True), "wrong": scaled(x, correct=False)}


def by_texts(x: dict[str, Any]) -> list[float | None]:
    """Two rewards have only texts as input: only those of one have tags."""
    reward = format_reward if any("<think>" in text for text in x["texts"]) else reasoning_steps
    return [value(reward, text) for text in x["texts"]]


def summed(columns: dict[str, tuple[float, list[float | None]]]) -> list[float]:
    """The scorer's sums for {component: (weight, value of each completion)}."""
    components = [
        Component(name=name, weight=weight, reward=lambda *_, v=values: v) for name, (weight, values) in columns.items()
    ]
    (size,) = {len(values) for _, values in columns.values()}
    scores = Scorer(components, truncated="score").score(problem(), [completion()] * size, context())
    return [score.reward for score in scores]


def weighted(x: dict[str, Any]) -> list[float]:
    columns = zip(x["weights"], map(list, zip(*x["rewards"], strict=True)), strict=True)
    return summed({str(i): column for i, column in enumerate(columns)})


def stages(x: dict[str, Any]) -> dict[str, float]:
    of_stage = {"r1_stage1": ("accuracy", "language"), "r1_zero": ("accuracy", "format")}
    return {
        stage: summed({component: (1.0, [x[component]]) for component in components})[0]
        for stage, components in of_stage.items()
    }


def levels(x: dict[str, Any]) -> list[tuple[float, list[bool]]]:
    return [(level["points"], [bool(passed) for passed in level["tests"]]) for level in x["levels"]]


COMPUTE = {
    ("reward", "cache lengths max_len"): lambda x: given(
        overlong, problem(), [of_length(n) for n in x["lengths"]], context(), max_length=x["max_len"], cache=x["cache"]
    ),
    ("reward", "lengths max_correct max_len max_wrong min_correct min_wrong"): cosines,
    ("reward", "correct lengths"): kimi,
    ("reward", "cases"): lambda x: [
        penalty(words(case["text"]), n=case["n"], max_penalty=case["max_penalty"]) for case in x["cases"]
    ],
    ("reward", "ids max_penalty n"): lambda x: given(
        repetition,
        problem(),
        [completion(token_ids=ids) for ids in x["ids"]],
        context(),
        n=x["n"],
        max_penalty=x["max_penalty"],
    ),
    ("reward", "max_penalty n segments"): lambda x: penalty(x["segments"], n=x["n"], max_penalty=x["max_penalty"]),
    ("reward", "texts"): by_texts,
    ("reward", "oracle pred"): lambda x: similarity(x["pred"], x["oracle"]),
    ("reward", "passed total"): lambda x: {
        name: [cut(passed / x["total"], threshold=threshold) for passed in x["passed"]]
        for name, threshold in (("fraction", None), ("binary", 0.99))
    },
    ("reward", "points score_precision test_scores"): lambda x: {
        "score": (score := subtask_score(x["test_scores"], precision=x["score_precision"])),
        "weighted": score * x["points"],
    },
    ("reward", "levels"): lambda x: {"strict": strict_points(levels(x)), "soft": soft_points(levels(x))},
    ("reward", "rewards weights"): weighted,
    ("reward", "accuracy format language"): stages,
}


@pytest.mark.parametrize(
    "case",
    [case for case in cases_of("test_golden_rewards") if case["id"] not in ELSEWHERE],
    ids=lambda case: case["id"],
)
def test_golden(case: dict[str, Any]) -> None:
    check({**case, "expected": OURS.get(case["id"], case["expected"])}, COMPUTE, left_out=["unclamped_correct"])


def test_listed_exceptions_exist() -> None:
    assert OURS.keys() | ELSEWHERE.keys() <= {case["id"] for case in CASES}
    for name, test in ELSEWHERE.items():
        found = list(Path(__file__).parents[1].rglob(f"{test}.py"))
        assert found and name in found[0].read_text(), f"{name} is not in {test}"
