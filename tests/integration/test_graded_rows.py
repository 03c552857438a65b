"""Maths answers as they came from outside, and variants of their kinds: every reward is the right one."""

import pytest
from graded_variants import CORRECT, INCORRECT

from r1ray.reward.math import compare
from tests.graded_rows import maths_cases, wrong

pytestmark = pytest.mark.integration


def test_every_row_gets_its_right_reward() -> None:
    cases = maths_cases()
    assert len(cases) > 400
    assert [str(case) for case in wrong(cases)] == []


@pytest.mark.parametrize(("gold", "answer"), CORRECT)
def test_variants_are_accepted(gold: str, answer: str) -> None:
    assert compare(answer, (gold,)) == "correct"


@pytest.mark.parametrize(("gold", "answer"), INCORRECT)
def test_near_misses_are_rejected(gold: str, answer: str) -> None:
    assert compare(answer, (gold,)) == "incorrect"
