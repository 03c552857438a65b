"""Tests that are assertions: LeetCode's `check(candidate)`, KodCode's pytest functions, MBPP's list. They do not run in the process
of the program, which could change there what they compare with.

Two processes of the sandbox take turns. One runs the assertions, with a stand-in for the function (`r1ray.reward.code.driver`), and
reports the calls whose outcome it needs. The other runs the program and answers them. The assertions, which contain the expected
values, stay on this machine.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

from r1ray.reward.code import driver, wire
from r1ray.sandbox.base import Limits, Program, Runner
from r1ray.types import Status

MAX_ROUNDS = 50
ENDED = ("passed", "failed")
LIMITS = Limits(cpu_s=10.0, wall_s=60.0, output_bytes=32 << 20)
"""Of one round of the assertions."""
WIRE = Path(wire.__file__).read_text()
DRIVER = (
    WIRE + Path(driver.__file__).read_text().replace("from r1ray.reward.code.wire import decoded, encoded\n", "")
).encode()
CALLED = """

def r1ray_call(text, kept={{}}):
    if not kept:
        exec({wire!r}, kept)
    return kept["called"](globals(), {name!r}, text)
"""
"""Appended to a program. It is as free as the program: an outcome that it forges is only another result."""


def units_of(assertions: Any) -> tuple[str, list[str]]:
    """(text that runs before each test, texts of the tests). Raises ValueError where there is no assertion.

    Example: `units_of(["assert f(1) == 2"])` is ("", ["assert f(1) == 2"]).
    """
    several: list[Any] = [assertions] if isinstance(assertions, str) else list(assertions or ())
    if not several or not all(isinstance(text, str) for text in several):
        raise ValueError("assertions must be a text of Python or a list of texts")
    try:
        trees = [ast.parse(text) for text in several]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"assertions are not Python ({error})") from error
    names = [part.name for tree in trees for part in tree.body if isinstance(part, ast.FunctionDef)]
    if "check" in names:
        return "\n".join(several), ["check(candidate)"]
    if tests := list(dict.fromkeys(name for name in names if name.startswith("test"))):
        return "\n".join(several), [f"{name}()" for name in tests]
    if not all(any(isinstance(part, ast.Assert) for part in ast.walk(tree)) for tree in trees):
        raise ValueError("assertions have none: no check(candidate), no function test..., no assert")
    return "", several


class Assertions:
    """The assertions of one problem. Raises ValueError where they do not work, whatever the program."""

    def __init__(self, setup: str, tests: list[str], function: str, sandbox: Runner) -> None:
        self._request = {"setup": setup, "tests": tests, "name": function}
        self._function, self._num_tests, self._sandbox = function, len(tests), sandbox
        first = self._judged({})
        if first is None:
            raise RuntimeError("the assertions were not tried: the sandbox failed")
        for test, state in zip(tests, first, strict=True):
            if state == "failed":
                raise ValueError(
                    f"the assertions cannot be used: their process ends or takes more than {LIMITS.cpu_s} s"
                )
            if state[0] == "broken":
                raise ValueError(f"the assertions cannot be used, {test!r:.80}: {state[1]}")
        self._first = first

    def verdicts(self, code: bytes, *, limits: Limits, sandbox: Runner) -> Iterator[tuple[bool, Status]]:
        """(correct, status) of every test."""
        known: dict[str, str] = {}
        states, status = self._first, cast(Status, "ok")
        program = code + CALLED.format(wire=WIRE, name=self._function).encode()
        for _ in range(MAX_ROUNDS):
            asked = list(dict.fromkeys(chain.from_iterable(state for state in states if state not in ENDED)))
            if not asked or not set(asked) - known.keys():
                break
            stdin = "".join(json.dumps([call]) + "\n" for call in asked).encode()
            result = sandbox.run(Program(code=program, stdin=stdin, function="r1ray_call", limits=limits))
            status = result.status
            lines = result.stdout.decode(errors="replace").split("\n")
            if status != "ok" or len(lines) != len(asked) + 1:
                break
            known |= dict(zip(asked, lines, strict=False))
            judged = self._judged(known)
            if judged is None:
                status = "sandbox_error"
                break
            states = judged
        for state in states:
            if state not in ENDED and status != "ok":
                yield False, status
            else:
                yield state == "passed", "ok" if state == "passed" else "wrong_answer"

    def _judged(self, known: Mapping[str, str]) -> list[Any] | None:
        """The state of every test (`driver.judge`); None when the sandbox failed. Tests that end their process have all failed."""
        stdin = (json.dumps([{**self._request, "known": known}]) + "\n").encode()
        result = self._sandbox.run(Program(code=DRIVER, stdin=stdin, function="judge", limits=LIMITS))
        if result.status == "sandbox_error":
            return None
        return json.loads(result.stdout) if result.status == "ok" and result.stdout else ["failed"] * self._num_tests
