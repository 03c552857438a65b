"""When the output of a program equals the expected output, and the result of a function the expected value."""

from typing import Any

import pytest

from r1ray.reward.code.compare import same_output, same_results, same_value


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("3\n", "3\n"),
        ("3", "3\n\n"),
        ("1 2 \n3\t\n", "1 2\n3"),
        ("3.0\n", "3"),
        ("1e3 +2\n", "1000 2.00"),
        ("1   2", "1 2"),
        ("\n3", "3"),
        ("3", "\n3\n"),
        ("", ""),
        ("\n\n", ""),
        ("0.1 0.25\n", "0.10 .25\n"),
        ("1\r\n2\r\n", "1\n2\n"),
    ],
)
def test_equal_output(written: str, expected: str) -> None:
    assert same_output(written.encode(), expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", "3"),
        ("3 4", "3"),
        ("3\n4", "3"),
        ("1\n2\n3", "1\n2\n3\n4"),
        ("1\n\n2", "1\n2"),
        ("A", "a"),
        (" 3x", "3"),
        ("٣", "3"),
        ("３", "3"),  # noqa: RUF001
        ("3\u200b", "3"),
        ("nan", "nan "[:2]),
        ("inf", "1"),
        ("3\b4", "4"),
        ("0x3", "3"),
        ("1_0", "10"),
        ("a  b", "a b"),
        ("*\n  ***", "  *\n ***"),
        ("11", "0011"),
        ("0011", "11"),
        ("x 3.0", "x 3"),
        ("1" * 400 + ".0", "1" * 400),
    ],
)
def test_different_output(written: str, expected: str) -> None:
    assert not same_output(written.encode(), expected)


@pytest.mark.parametrize(
    ("written", "expected", "exact", "close"),
    [
        ("0.3333333333333333", "0.333333", False, True),
        ("0.333333", "0.3333333333333333", False, True),
        ("0.50", "0.5", True, True),
        ("1e-9", "0.000000", False, True),
        ("2.0", "2", True, True),
        ("2.0000000001", "2", False, True),
        ("1.9999999999", "2", False, True),
        ("2", "2.0000000001", False, True),
        ("1000000008", "1000000007", False, False),
        ("1000000008.0", "1000000007", False, False),
        ("50000000000000001", "50000000000000000", False, False),
        ("123456.7", "123456.6", False, True),
        ("123458.7", "123456.7", False, False),
        ("0.34", "0.33", False, False),
        ("0.001", "0.0", False, False),
        ("-0.0", "0.0", True, True),
        ("-0.5", "0.5", False, False),
        ("1.5 2.000001", "1.500001 2.0", False, True),
        ("1.5 2.1", "1.5 2.0", False, False),
        ("1.5", "1.5 2.0", False, False),
        ("1.5\n2.5", "1.5 2.5", False, False),
        ("Case #1: 0.3333333", "Case #1: 0.33333", False, True),
        ("Case #2: 0.3333333", "Case #1: 0.33333", False, False),
        ("case #1: 0.5", "Case #1: 0.5", False, False),
        ("nan", "0.5", False, False),
        ("inf", "1e300", False, False),
        ("1e400", "1e401", False, False),
        ("00.5", "0.5", False, False),
        ("*  *", "* *", False, False),
        ("YES", "NO", False, False),
        ("0.33333x", "0.33333", False, False),
        ("1" * 250 + ".5", "1" * 250 + ".6", False, True),
    ],
)
def test_floats_in_output_by_the_rule_of_their_source(written: str, expected: str, exact: bool, close: bool) -> None:
    assert same_output(written.encode(), expected) is exact
    assert same_output(written.encode(), expected, floats="exact") is exact
    assert same_output(written.encode(), expected, floats="close") is close


@pytest.mark.parametrize(
    ("got", "expected", "exact", "usual", "close"),
    [
        (0.1 + 0.2, 0.3, False, True, True),
        (0.33333, 1 / 3, False, False, True),
        (0.34, 1 / 3, False, False, False),
        (2.0, 2, True, True, True),
        (2, 2.0, True, True, True),
        (2.0000001, 2, False, False, True),
        (2, 2.0000001, False, False, True),
        (3, 2, False, False, False),
        (10**9 + 8, 10**9 + 7, False, False, False),
        (1000000008.0, 10**9 + 7, False, False, False),
        ([0.1 + 0.2, {"a": [0.5]}], [0.3, {"a": [0.5]}], False, True, True),
        (True, 1.0, False, False, False),
        ("0.3000001", 0.3, False, False, False),
        (10**400, 1e300, False, False, False),
        (1e-9, 0.0, False, False, True),
    ],
)
def test_float_values_by_the_rule_of_their_source(
    got: Any, expected: Any, exact: bool, usual: bool, close: bool
) -> None:
    assert same_value(got, expected, floats="exact") is exact
    assert same_value(got, expected) is usual
    assert same_value(got, expected, floats="close") is close


def test_output_that_is_not_text_is_incorrect() -> None:
    assert not same_output(b"3\xff", "3")
    assert not same_output(b"3\x00", "3")


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        ([1, [2, {"a": None}]], [1, [2, {"a": None}]], True),
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        ("1", 1, False),
        (None, 0, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"0": 1}, [1], False),
        (10**400, 1.0, False),
        (1000000000.0, 999999999, False),
        (1.2345678901234568e17, 123456789012345678, False),
        (2.0, 2, True),
        (10**400, 10**400, True),
        (10**400 + 1, 10**400, False),
        (3.00001, 3, False),
    ],
)
def test_result_values_are_compared(got: Any, expected: Any, same: bool) -> None:
    assert same_value(got, expected) is same


def test_values_nested_deeper_than_the_stack_are_compared() -> None:
    def deep(leaf: int) -> Any:
        value: Any = leaf
        for _ in range(100_000):
            value = [value]
        return value

    assert same_value(deep(1), deep(1)) and not same_value(deep(1), deep(2))


@pytest.mark.parametrize(
    ("written", "correct"),
    [
        (b"9\n[1,2]\n", [True, True]),
        (b"9\n", [True, False]),
        (b"", [False, False]),
        (b"9\n[1,2]", [False, False]),
        (b"9\n[1,2]\n9\n", [False, False]),
        (b"[1,2]\n9\n", [False, False]),
        (b"nonsense\n[1,2]\n", [False, True]),
        (b"NaN\n[1,2]\n", [False, True]),
        (b"[" * 100_000 + b"\n[1,2]\n", [False, True]),
        (b"9" * 100_000 + b"\n[1,2]\n", [False, True]),
        (b"\xff\n[1,2]\n", [False, True]),
    ],
)
def test_results_of_calls_are_compared(written: bytes, correct: list[bool]) -> None:
    assert same_results(written, [9, [1, 2]]) == correct
