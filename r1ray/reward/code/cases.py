"""The tests of a programming problem, whatever form its dataset gives them.

[{"type": "stdin_stdout", "input": "1 2\\n", "output": "3\\n"}, ...]                         a program: standard input and output
[{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": 3}, ...]               a function
{"fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}, ...]}                            the same
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from r1ray.sandbox.base import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """What goes in and what has to come out. `function`: the one that is called; None for a whole program."""

    function: str | None
    inputs: Sequence[Any]
    """Texts of standard input, or lists of arguments."""
    expected: Sequence[Any]
    """Texts of standard output, or values."""


def read_cases(tests: Any) -> Cases:
    """Raises ValueError for what is none of the forms above; they may be JSON in a string."""
    try:
        tests = json.loads(tests) if isinstance(tests, str) else tests
        found = _of_functions(cast(Mapping[str, Any], tests)) if isinstance(tests, Mapping) else _of_rows(tests)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"tests are none of the known forms ({type(error).__name__}: {error})") from error
    if not found.inputs:
        raise ValueError("there are no tests")
    for given, expected in zip(found.inputs, found.expected, strict=True):
        texts = isinstance(given, str) and isinstance(expected, str)
        if not (texts if found.function is None else isinstance(given, list)):
            raise ValueError(
                f"tests have to be two texts, or a list of arguments and a value, not {given!r} and {expected!r}"
            )
    return found


def _of_functions(tests: Mapping[str, Any]) -> Cases:
    cases = list(tests["cases"])
    return Cases(
        function=str(tests["fn_name"]),
        inputs=[case["args"] for case in cases],
        expected=[case["expected"] for case in cases],
    )


def _of_rows(tests: Any) -> Cases:
    rows = [cast(Mapping[str, Any], test) for test in tests]
    names = {row["fn_name"] if row.get("type") == "function_call" else None for row in rows}
    if len(names) > 1:
        raise ValueError(f"they are of different kinds: {names}")
    return Cases(
        function=next(iter(names), None),
        inputs=[row["input"] for row in rows],
        expected=[row["output"] for row in rows],
    )


def read_limits(given: Mapping[str, Any] | None) -> Limits:
    """{"cpu": seconds, "wall": seconds, "memory_mb", "output_bytes"}, each of which may be left out (wall: three times cpu)."""
    given = given or {}
    default = Limits()
    cpu_s = float(given.get("cpu", default.cpu_s))
    return Limits(
        cpu_s=cpu_s,
        wall_s=float(given.get("wall", 3 * cpu_s)),
        memory_bytes=int(given.get("memory_mb", default.memory_bytes >> 20)) << 20,
        output_bytes=int(given.get("output_bytes", default.output_bytes)),
    )
