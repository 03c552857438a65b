"""The evaluation cases of tests/golden/algorithms.json."""

from typing import Any

import numpy as np
import pytest
from golden_cases import cases_of, check

from r1ray.data.eval_metrics import (
    avg_at_k,
    expected_maj_at_k,
    maj_at_k,
    pass_at_k,
    same_answer,
    standard_error,
    voted_for,
)


def majorities(x: dict[str, Any]) -> dict[str, Any]:
    """Of one problem with an equivalence of answers, or of several whose answers are compared as text."""
    if isinstance(x["gold"], str):
        right = [same_answer(x["gold"], answer) for answer in x["answers"]]
        voted = voted_for(x["answers"], right)
        assert voted is not None
        return {"voted_class": x["answers"][voted], "score": maj_at_k(x["answers"], right)}
    pairs = list(zip(x["answers"], x["gold"], strict=True))
    rights = [[answer == gold for answer in answers] for answers, gold in pairs]
    voted = [voted_for(answers, right) for (answers, _), right in zip(pairs, rights, strict=True)]
    scores = [maj_at_k(answers, right) for (answers, _), right in zip(pairs, rights, strict=True)]
    chosen = [None if i is None else answers[i] for i, (answers, _) in zip(voted, pairs, strict=True)]
    return {"voted": chosen, "score": scores, "mean": float(np.mean(scores))}


COMPUTE = {
    ("eval", "cases"): lambda x: [pass_at_k(n, c, k) for n, c, k in x["cases"]],
    ("eval", "correct"): lambda x: avg_at_k(x["correct"]),
    ("eval", "answers gold"): majorities,
    ("eval", "answers gold k"): lambda x: expected_maj_at_k(
        x["answers"], [answer == x["gold"] for answer in x["answers"]], x["k"]
    ),
    ("eval", "per_problem"): lambda x: standard_error(x["per_problem"]),
}


@pytest.mark.parametrize("case", cases_of("test_golden_eval"), ids=lambda case: case["id"])
def test_golden(case: dict[str, Any]) -> None:
    check(case, COMPUTE)
