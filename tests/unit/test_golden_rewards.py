"""The rewards of tests/golden/algorithms.json; where r1ray decides otherwise, its own value stands beside the case's."""

import json
from pathlib import Path
from typing import Any

import pytest
from reward_samples import completion, context, of_length, problem, value

from r1ray.reward.code.difficulty import soft_points, strict_points
from r1ray.reward.code.fraction import cut
from r1ray.reward.code.ioi import subtask_score
from r1ray.reward.cosine import cosine
from r1ray.reward.length import length
from r1ray.reward.overlong import overlong
from r1ray.reward.repetition import penalty, repetition, words
from r1ray.reward.steps import reasoning_steps
from r1ray.reward.swe import similarity

CASES = json.loads((Path(__file__).parents[1] / "golden/algorithms.json").read_text())["cases"]


def kimi(x: dict[str, Any]) -> list[float | None]:
    correct_G = [bool(correct) for correct in x["correct"]]
    return length(problem(), [of_length(n) for n in x["lengths"]], context(correct_G))


def scaled(x: dict[str, Any], *, correct: bool) -> list[float | None]:
    args = {name: x[name] for name in ("min_wrong", "max_wrong", "min_correct", "max_correct")}
    replies_G = [of_length(n) for n in x["lengths"]]
    return cosine(problem(), replies_G, context([correct] * len(replies_G), max_response_length=x["max_len"]), **args)


def levels(x: dict[str, Any]) -> list[tuple[float, list[bool]]]:
    return [(level["points"], [bool(passed) for passed in level["tests"]]) for level in x["levels"]]


COMPUTE = {
    "reward_dapo_overlong": lambda x: overlong(
        problem(), [of_length(n) for n in x["lengths"]], context(), max_length=x["max_len"], cache=x["cache"]
    ),
    "reward_cosine_function_defaults": lambda x: {
        "correct": scaled(x, correct=True),
        "wrong": scaled(x, correct=False),
    },
    "reward_cosine_past_max": lambda x: {"clamped_correct": scaled(x, correct=True)},
    "reward_kimi_length": kimi,
    "reward_kimi_length_wrong_short": kimi,
    "reward_repetition": lambda x: [
        penalty(words(case["text"]), n=case["n"], max_penalty=case["max_penalty"]) for case in x["cases"]
    ],
    "reward_repetition_token_ids": lambda x: repetition(
        problem(), [completion(token_ids=ids) for ids in x["ids"]], context(), n=x["n"], max_penalty=x["max_penalty"]
    ),
    "reward_repetition_zh": lambda x: penalty(x["segments"], n=x["n"], max_penalty=x["max_penalty"]),
    "reward_reasoning_steps": lambda x: [value(reasoning_steps, text) for text in x["texts"]],
    "reward_swe_rl": lambda x: similarity(x["pred"], x["oracle"]),
    "reward_code_fraction": lambda x: {
        name: [cut(passed / x["total"], threshold=threshold) for passed in x["passed"]]
        for name, threshold in (("fraction", None), ("binary", 0.99))
    },
    "reward_ioi_subtask": lambda x: {
        "score": (score := subtask_score(x["test_scores"], precision=x["score_precision"])),
        "weighted": score * x["points"],
    },
    "reward_mimo_test_difficulty": lambda x: {"strict": strict_points(levels(x)), "soft": soft_points(levels(x))},
}
ELSEWHERE = {
    "reward_r1_stage_sum": "test_compose",
    "reward_none_is_skipped": "test_compose",
    "reward_format_openr1": "test_format",
    "reward_accuracy_math_verify": "test_math_verify",
}


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] in COMPUTE], ids=lambda case: case["id"])
def test_golden(case: dict[str, Any]) -> None:
    got, want = COMPUTE[case["id"]](case["inputs"]), case["expected"]
    if isinstance(got, dict):
        assert got == {name: pytest.approx(want[name], abs=case["tolerance"]) for name in got}
    else:
        assert got == pytest.approx(want, abs=case["tolerance"])


def test_every_case_is_known() -> None:
    assert {c["id"] for c in CASES if c["category"] == "reward"} == {*COMPUTE, *ELSEWHERE}
    for name, test in ELSEWHERE.items():
        found = list(Path(__file__).parents[1].rglob(f"{test}.py"))
        assert found and name in found[0].read_text(), f"{name} is not in {test}"
