"""A program against its tests: run in the sandbox, compared outside of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from r1ray.reward.code.cases import Cases
from r1ray.reward.code.checker import Checker
from r1ray.reward.code.compare import same_output, same_results
from r1ray.sandbox.base import Ended, Limits, Program, Runner
from r1ray.types import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one test. `sandbox_error` is not the program's doing."""

    correct: bool
    status: Status


def verdicts(
    code: str, cases: Cases, *, limits: Limits, sandbox: Runner, checker: Checker | None = None
) -> Iterator[Verdict]:
    """One for every test, as they are run: who needs no more stops asking.

    A whole program is run once for every input; a function once for all of them, for what it leaves behind is its own affair. What
    a program wrote is correct if it equals the expected output, or the problem's checker says so.
    """
    program = code.encode(errors="replace")
    if cases.function is None:
        for text, expected in zip(cases.inputs, cases.expected, strict=True):
            ended = sandbox.run(Program(code=program, stdin=text.encode(), language=cases.language, limits=limits))
            same: bool | None = same_output(ended.stdout, expected)
            if not same and checker is not None and ended.status == "ok":
                same = checker.accepts(text, expected, ended.stdout)
            yield _verdict(ended, same)
        return
    stdin = "".join(json.dumps(arguments) + "\n" for arguments in cases.inputs).encode()
    ended = sandbox.run(Program(code=program, stdin=stdin, function=cases.function, limits=limits))
    for same in same_results(ended.stdout, cases.expected, wrapped=cases.wrapped):
        yield _verdict(ended, same)


def _verdict(ended: Ended, same: bool | None) -> Verdict:
    """What came out before a run was ended does not count: it may have been ended for how it came by it."""
    if ended.status != "ok":
        return Verdict(correct=False, status=ended.status)
    if same is None:
        return Verdict(correct=False, status="sandbox_error")
    return Verdict(correct=same, status="ok" if same else "wrong_answer")
