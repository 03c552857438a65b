"""A program against its tests: run in the sandbox, compared outside of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from r1ray.reward.code.assertions import Assertions
from r1ray.reward.code.cases import Cases
from r1ray.reward.code.checker import Checker
from r1ray.reward.code.compare import same_output, same_results
from r1ray.sandbox.base import Limits, Program, Runner, RunResult
from r1ray.types import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one test. The status `sandbox_error` is no fault of the program."""

    correct: bool
    status: Status


def verdicts(
    code: str,
    cases: Cases,
    *,
    limits: Limits,
    sandbox: Runner,
    checker: Checker | None = None,
    assertions: Assertions | None = None,
) -> Iterator[Verdict]:
    """One for every test, lazily: a caller that needs no more stops iterating.

    A whole program is run once for every input, a function once for all of them: it may keep state between calls. Output is correct
    if it equals the expected output or the problem's checker accepts it.
    """
    program = code.encode(errors="replace")
    if cases.function is None:
        for text, expected in zip(cases.inputs, cases.expected, strict=True):
            allowed = _with_room(limits, expected)
            result = sandbox.run(Program(code=program, stdin=text.encode(), language=cases.language, limits=allowed))
            same: bool | None = same_output(result.stdout, expected, floats=cases.floats)
            if not same and checker is not None and result.status == "ok":
                same = checker.accepts(text, expected, result.stdout)
            yield _verdict(result, same)
        return
    if assertions is not None:
        for correct, status in assertions.verdicts(program, limits=limits, sandbox=sandbox):
            yield Verdict(correct=correct, status=status)
        return
    stdin = "".join(json.dumps(arguments) + "\n" for arguments in cases.inputs).encode()
    allowed = _with_room(limits, json.dumps(cases.expected))
    asked = Program(code=program, stdin=stdin, function=cases.function, integer_keys=cases.wrapped, limits=allowed)
    result = sandbox.run(asked)
    for same in same_results(result.stdout, cases.expected, wrapped=cases.wrapped, floats=cases.floats):
        yield _verdict(result, same)


def _with_room(limits: Limits, expected: str) -> Limits:
    """The limits with room for the expected output, in any of its notations, where that is large."""
    return replace(limits, output_bytes=max(limits.output_bytes, 4 * len(expected)))


def _verdict(result: RunResult, same: bool | None) -> Verdict:
    """Output of a run that was ended does not count: what the run was ended for may have produced it."""
    if result.status != "ok":
        return Verdict(correct=False, status=result.status)
    if same is None:
        return Verdict(correct=False, status="sandbox_error")
    return Verdict(correct=same, status="ok" if same else "wrong_answer")
