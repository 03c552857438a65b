"""The tests of a programming problem, in any of the forms that datasets have:

[{"type": "stdin_stdout", "input": "1 2\\n", "output": "3\\n"}, ...]                         a program: standard input and output
[{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": 3}, ...]               a function
{"fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}, ...]}                            the same
{"inputs": ["1 2\\n", ...], "outputs": ["3\\n", ...]}                                         a program (APPS, TACO, verl)
{"fn_name": "f", "inputs": [[1, 2], ...], "outputs": [[3], ...]}                             a function; values may be lists of one

{"fn_name": "f", "assertions": "def check(candidate): ..."}                                  a function (`code.assertions`)

Arguments and values may also be JSON in a text, one argument in a line: {"input": "[1, 2]\\n3", "output": "4"}.

A payload may also have "subtasks", for rewards that give points. These are IOI's subtasks, or MiMo's levels of difficulty, the
easiest first:

[{"points": 30, "tests": [0, 1]}, {"points": 70, "tests": [1, 2, 3]}, ...]                   tests by their index, from 0

"floats", "exact" or "close": how floats are compared (`r1ray.reward.code.compare.Floats`); tests in the form of APPS are "close",

and, for whole programs, a "checker" (`r1ray.reward.code.checker`), where more than one output is correct.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from r1ray.plugin import Args
from r1ray.reward.code.assertions import units_of
from r1ray.reward.code.compare import Floats
from r1ray.reward.text import HALF, lone_surrogate
from r1ray.sandbox.base import Language, Limits

PROGRAM_VERIFIERS = ("code", "program")
"""Verifiers of programs: `code` runs the last fenced block of a completion, `program` the whole completion."""
MAX_LIMIT = 1e9
INT_DIGITS = 50_000
"""Digits of an integer in tests and results, as in LiveCodeBench's harness. Python's own limit is 4,300, against texts that take
long to read: one of 50,000 digits takes 20 ms."""
if 0 < sys.get_int_max_str_digits() < INT_DIGITS:
    sys.set_int_max_str_digits(INT_DIGITS)


class ProgramArgs(Args):
    """Arguments of the verifiers `code` and `program`."""

    language: Language = "python"
    """Of the programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Inputs and expected outputs."""

    function: str | None
    """The function that is called; None for a whole program."""
    inputs: Sequence[Any]
    """Texts of standard input, or lists of arguments."""
    expected: Sequence[Any]
    """Texts of standard output, or values."""
    wrapped: bool = False
    """APPS's form: an expected list of one value also means that value, and an object as first argument has integers as keys."""
    floats: Floats = "usual"
    setup: str | None = None
    """Of assertions: runs before each test, which are the inputs; None for other tests."""
    language: Language = "python"
    """Of the programs."""


def read_language(given: Any) -> Language:
    """A payload's language; None means Python. Raises ValueError for one that cannot be run."""
    if given not in (None, *get_args(Language)):
        raise ValueError(
            f"programs in {given!r} cannot be run: language must be one of {', '.join(get_args(Language))}"
        )
    return given or "python"


def read_floats(given: Any) -> Floats | None:
    """A payload's rule for floats; None: that of the form of its tests. Raises ValueError for one that is not known."""
    if given not in (None, *get_args(Floats)):
        raise ValueError(f"floats={given!r:.60} must be one of {', '.join(get_args(Floats))}")
    return given


def function_of(tests: Any) -> str | None:
    """The name of the function that tests of any form call; None for whole programs, and where the tests cannot be read."""
    try:
        tests = json.loads(tests) if isinstance(tests, str) else tests
        first = cast("Mapping[str, Any]", tests if isinstance(tests, Mapping) else tests[0])
        name = first.get("fn_name")
        return None if name is None else str(name).rpartition(".")[2]
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def read_cases(tests: Any, *, language: Language = "python", floats: Floats | None = None) -> Cases:
    """`tests` may also be JSON in a string. Raises ValueError for any other form than those above, and for functions in C++."""
    try:
        tests = json.loads(tests) if isinstance(tests, str) else tests
        found = _of_object(cast(Mapping[str, Any], tests)) if isinstance(tests, Mapping) else _of_rows(tests)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"tests have none of the known forms ({type(error).__name__}: {error})") from error
    if not found.inputs:
        raise ValueError("there are no tests")
    if language == "cpp" and found.function is not None:
        raise ValueError("tests call a function, but C++ programs are run as a whole, on standard input")
    if len(found.inputs) != len(found.expected):
        raise ValueError(f"there are {len(found.inputs)} inputs and {len(found.expected)} outputs")
    if found.function is not None and not found.function.isidentifier():
        raise ValueError(f"fn_name={found.function!r:.60} is not the name of a function")
    for given, expected in zip(found.inputs, found.expected, strict=True):
        texts = isinstance(given, str) and isinstance(expected, str)
        if not (texts if found.function is None or found.setup is not None else isinstance(given, list)):
            raise ValueError(
                f"tests must be two texts each, or a list of arguments and a value, not {given!r} and {expected!r}"
            )
    return replace(found, language=language, floats=floats or found.floats)


def load_cases(tests: Any, *, language: Language = "python", floats: Floats | None = None) -> Cases:
    """As `read_cases`, for tests that are read for the first time: their texts are checked too, which no program could read."""
    cases = read_cases(tests, language=language, floats=floats)
    if found := lone_surrogate([cases.inputs, cases.expected, cases.setup]):
        raise ValueError(f"a test contains {found}, {HALF}")
    return cases


def _of_object(tests: Mapping[str, Any]) -> Cases:
    if "assertions" in tests:
        setup, texts = units_of(tests["assertions"])
        function = str(tests["fn_name"]).rpartition(".")[2]  # LeetCode: Solution().f
        return Cases(function=function, inputs=texts, expected=[""] * len(texts), setup=setup)
    if "inputs" in tests:
        inputs, outputs, function = list(tests["inputs"]), list(tests["outputs"]), tests.get("fn_name")
        if function is None:
            inputs, outputs = list(map(_joined, inputs)), list(map(_joined, outputs))
            return Cases(function=None, inputs=inputs, expected=outputs, floats="close")
        if len(inputs) != len(outputs):
            raise ValueError(f"there are {len(inputs)} inputs and {len(outputs)} outputs")
        return replace(_calls(str(function), zip(inputs, outputs, strict=True)), wrapped=True, floats="close")
    return _calls(str(tests["fn_name"]), ((case["args"], case["expected"]) for case in tests["cases"]))


def _calls(function: str, pairs: Iterable[tuple[Any, Any]]) -> Cases:
    """Arguments and value, as they are or as text: JSON, one argument in a line (verl's form of APPS, LiveCodeBench's own)."""
    read = [
        ([json.loads(line) for line in given.split("\n") if line.strip()], json.loads(expected))
        if isinstance(given, str)
        else (given, expected)
        for given, expected in pairs
    ]
    return Cases(function=function, inputs=[given for given, _ in read], expected=[expected for _, expected in read])


def _joined(lines: Any) -> Any:
    """Some datasets have a list of lines instead of a text: the lines joined."""
    parts = cast("list[Any]", lines) if isinstance(lines, list) else []
    return "\n".join(parts) if parts and all(isinstance(part, str) for part in parts) else cast(Any, lines)


def _of_rows(tests: Any) -> Cases:
    rows = [cast(Mapping[str, Any], test) for test in tests]
    names = {row["fn_name"] if row.get("type") == "function_call" else None for row in rows}
    if len(names) > 1:
        raise ValueError(f"they mix whole programs and functions, or several functions: {names}")
    function, pairs = next(iter(names), None), [(row["input"], row["output"]) for row in rows]
    if function is not None:
        return _calls(function, pairs)
    return Cases(function=None, inputs=[given for given, _ in pairs], expected=[expected for _, expected in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtask:
    """Points for passing some of the tests together."""

    points: float
    tests: tuple[int, ...]
    """Indices in the list of tests. A test may be in several subtasks, or in none."""


def read_subtasks(given: Any, *, num_tests: int) -> tuple[Subtask, ...]:
    """() where there are none. `given` may also be JSON in a string. Raises ValueError for another form than the one above.

    Example: `read_subtasks([{"points": 30, "tests": [0, 1]}], num_tests=2)`.
    """
    try:
        rows = json.loads(given) if isinstance(given, str) else given
        found = tuple(_subtask(row, num_tests) for row in rows or ())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"subtasks must be [{{points, tests}}, ...] ({type(error).__name__}: {error})") from error
    if found and not any(subtask.points for subtask in found):
        raise ValueError("all subtasks have 0 points")
    return found


def _subtask(row: Mapping[str, Any], num_tests: int) -> Subtask:
    points, tests = row["points"], list(row["tests"])
    if type(points) not in (int, float) or not math.isfinite(points) or points < 0:
        raise ValueError(f"points={points!r} must be a number, 0 or more")
    if not tests or len(set(tests)) < len(tests) or not all(type(n) is int and 0 <= n < num_tests for n in tests):
        raise ValueError(f"tests={tests!r} must be different indices of the {num_tests} tests, from 0")
    return Subtask(points=points, tests=tuple(tests))


def read_limits(given: Mapping[str, Any] | None) -> Limits:
    """{"cpu": seconds, "wall": seconds, "memory_mb", "output_bytes"}; each may be left out (wall: three times cpu)."""
    given = given or {}
    if not isinstance(cast(Any, given), Mapping):
        raise ValueError(f"limits={given!r:.60} must be {{cpu, wall, memory_mb, output_bytes}}")
    default = Limits()

    def positive(name: str, usual: float) -> float:
        try:
            value = float(given.get(name, usual))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"limits.{name}={given[name]!r:.60} must be a number") from error
        if not 0 < value <= MAX_LIMIT:
            raise ValueError(f"limits.{name}={value} must be more than 0, and at most {MAX_LIMIT:g}")
        return value

    cpu_s = positive("cpu", default.cpu_s)
    return Limits(
        cpu_s=cpu_s,
        wall_s=positive("wall", 3 * cpu_s),
        memory_bytes=int(positive("memory_mb", default.memory_bytes >> 20)) << 20,
        output_bytes=int(positive("output_bytes", default.output_bytes)),
    )
