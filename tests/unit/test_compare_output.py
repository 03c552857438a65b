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
