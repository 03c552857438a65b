"""tests/golden/algorithms.json: numbers computed with numpy and math only, most also by hand; and which test computes which.

Cases are dispatched by category and input names, never by id: a new case is computed, or fails because no test computes it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden/algorithms.json").read_text())["cases"]
CLAIMED = {
    **dict.fromkeys(
        ("advantage", "gae", "policy_loss", "kl", "aggregation", "sampling", "sft", "schedule"), "test_golden"
    ),
    "eval": "test_golden_eval",
    "reward": "test_golden_rewards",
}
"""{category: the test file that computes all of its cases}."""
NOT_YET = ("preference", "data")
"""Categories whose code does not exist yet."""

Computers = Mapping[tuple[str, str], Callable[[Any], Any]]
"""{(category, input names in order): function from inputs to the expected values}."""


def cases_of(test: str) -> list[dict[str, Any]]:
    return [case for case in CASES if CLAIMED.get(case["category"]) == test]


def signature(case: Mapping[str, Any]) -> tuple[str, str]:
    return case["category"], " ".join(sorted(case["inputs"]))


def check(case: Mapping[str, Any], computers: Computers, *, left_out: Sequence[str] = ()) -> None:
    """Fails for a case that no function computes, and for an expected key that was not computed and is not left out.

    Args:
        left_out: expected keys that describe incorrect results.
    """
    compute = computers.get(signature(case))
    assert compute, f"{case['id']}: nothing here computes {signature(case)}"
    got, want = compute(case["inputs"]), case["expected"]
    assert isinstance(got, dict) == isinstance(want, dict)
    if not isinstance(want, dict):
        got, want = {"value": got}, {"value": want}
    assert got.keys() == want.keys() - set(left_out)
    for key in got:
        assert_close(got[key], want[key], atol=case["tolerance"])


def assert_close(got: Any, want: Any, *, atol: float) -> None:
    """Numbers within the tolerance, everything else equal; lists of any depth."""
    if isinstance(want, list):
        assert len(got) == len(want)
        for inner_got, inner_want in zip(got, want, strict=True):
            assert_close(inner_got, inner_want, atol=atol)
    elif isinstance(want, int | float):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=atol)
    else:
        assert got == want
