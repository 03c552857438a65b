"""tests/same_numbers.py finds every difference between two runs, and only differences."""

from typing import Any

import pytest
from same_numbers import (
    COMMON,
    DEFAULT_RUNS,
    NAMES,
    OVERRIDES,
    PATTERNS,
    Difference,
    added,
    compare,
    is_clock,
    is_spelling,
    new_name,
)

from r1ray.run.metrics import CATALOGUE


def rows() -> dict[str, list[dict[str, Any]]]:
    """Two stages as a run writes them, with different numbers in each row."""
    first = {"step": 0, "eval/countdown/accuracy": 0.25, "time/step": 3.5}
    later = [
        {"step": step, "reward/mean": 0.1 * step, "zero/fraction": 0.5, "grad_norm": None, "time/step": 1.0 + step}
        for step in (1, 2)
    ]
    return {"short": [first, *later], "long": [{"step": 1, "logprob_gap/max": 1e-6}]}


def only(differences: list[Difference]) -> tuple[str, int | None, str, str, str]:
    (found,) = differences
    return found.stage, found.step, found.name, found.old, found.new


def found(new: dict[str, list[dict[str, Any]]]) -> list[Difference]:
    return list(compare(rows(), new))


def test_equal_rows_have_no_differences() -> None:
    assert found(rows()) == []


def test_names_are_mapped_and_times_excluded() -> None:
    new = rows()
    for row in new["short"]:
        row["time/step"] *= 2
        row["tokens_per_second/train"] = 17.0
        if "zero/fraction" in row:
            row["zero_reward/fraction"] = row.pop("zero/fraction")
    new["long"][0]["mismatch/logprob_gap/max"] = new["long"][0].pop("logprob_gap/max")
    assert found(new) == []


def test_changed_value_is_found_to_the_last_bit() -> None:
    new = rows()
    new["short"][2]["reward/mean"] = 0.20000000000000004
    assert only(found(new)) == ("short", 2, "reward/mean", "0.2", "0.20000000000000004")


@pytest.mark.parametrize(("value", "shown"), [(-0.0, "-0.0"), (None, "null"), (1, "1.0")])
def test_similar_values_are_distinguished(value: float | None, shown: str) -> None:
    old, new = {"rl": [{"step": 1, "x": 0.0}]}, {"rl": [{"step": 1, "x": value}]}
    assert only(list(compare(old, new))) == ("rl", 1, "x", "0.0", shown)


def test_integers_and_equal_floats_are_equal() -> None:
    assert not list(compare({"rl": [{"step": 1, "x": 2}]}, {"rl": [{"step": 1, "x": 2.0}]}))


def test_missing_row_is_found() -> None:
    new = rows()
    del new["short"][1]
    assert only(found(new)) == ("short", 1, "(the row)", "there", "missing")
    assert only(list(compare(new, rows()))) == ("short", 1, "(the row)", "missing", "there")


def test_missing_stage_is_found() -> None:
    new = rows()
    del new["long"]
    assert only(found(new)) == ("long", None, "(the stage)", "there", "missing")


def test_metric_that_only_the_present_has_is_listed_and_changes_no_number() -> None:
    new = rows()
    new["short"][1]["entropy"] = 0.5
    assert found(new) == [] and added(rows(), new) == ["entropy"]
    assert only(list(compare(new, rows()))) == ("short", 1, "entropy", "0.5", "absent")
    assert added(new, rows()) == []


def test_metric_of_some_rows_that_is_in_another_row_is_found() -> None:
    new = rows()
    new["short"][0]["reward/mean"] = 0.5
    assert only(found(new)) == ("short", 0, "reward/mean", "absent", "0.5") and added(rows(), new) == []


def test_null_differs_from_absent() -> None:
    new = rows()
    del new["short"][1]["grad_norm"]
    assert only(found(new)) == ("short", 1, "grad_norm", "null", "absent")


def test_metric_under_both_names_is_refused() -> None:
    both = {"rl": [{"step": 1, "zero/fraction": 0.5, "zero_reward/fraction": 0.5}]}
    with pytest.raises(ValueError, match="zero_reward/fraction"):
        list(compare(both, both))


def test_repeated_step_is_refused() -> None:
    twice = {"rl": [{"step": 1}, {"step": 1}]}
    with pytest.raises(ValueError, match="step 1"):
        list(compare(twice, twice))


def test_new_names_are_not_mapped() -> None:
    for name in (*NAMES.values(), *(new + "max" for _, new in PATTERNS)):
        assert new_name(name) == name


def test_only_times_are_excluded() -> None:
    assert {name for name in CATALOGUE if is_clock(name)} == {
        *("time/<phase>", "tokens_per_second/<phase>", "memory/<role>", "gpu_memory/<role>")
    }


def test_default_runs_are_deterministic() -> None:
    assert set(DEFAULT_RUNS) <= OVERRIDES.keys()
    assert "deterministic=true" in COMMON


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (["steps=3", "new=1"], True),
        (["steps=3", "old=1"], True),
        (["steps=4", "old=1"], False),
        (["steps=3", "other=1"], False),
        (["steps=3"], False),
    ],
)
def test_kept_results_are_reused_only_for_the_same_overrides(given: list[str], same: bool) -> None:
    assert is_spelling(given, ["steps=3", ("new=1", "old=1")]) == same
