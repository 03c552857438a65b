"""The tests of a problem: read once for all of its completions, and run once for each program, however many rewards use them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from r1ray.reward.base import ComponentScore
from r1ray.reward.code.assertions import Assertions
from r1ray.reward.code.cases import (
    Subtask,
    function_of,
    read_cases,
    read_floats,
    read_language,
    read_limits,
    read_subtasks,
)
from r1ray.reward.code.checker import Checker
from r1ray.reward.code.extract import last_program
from r1ray.reward.code.packed import is_packed, unpacked
from r1ray.reward.code.verdicts import Verdict, verdicts
from r1ray.sandbox.current import local_sandbox, sandbox
from r1ray.types import Problem


def program_in(problem: Problem, text: str) -> str | None:
    """The program in a completion, in the problem's language; the whole completion where the verifier is `program`."""
    if problem.verifier == "program":
        return text
    language, tests = read_language(problem.payload.get("language")), problem.payload.get("tests")
    return last_program(text, language, function=lambda: function_of(tests))


class CachedVerdicts:
    """The verdicts on one program: iterating gives those that are known, then runs further tests in the sandbox."""

    def __init__(self, found: Iterator[Verdict], *, num_tests: int) -> None:
        self._found, self._num_tests = found, num_tests
        self._known: list[Verdict] = []
        self.failed = False
        """The sandbox failed: the next reward or attempt must run the tests again."""

    def __iter__(self) -> Iterator[Verdict]:
        for index in range(self._num_tests):
            if index == len(self._known):
                self.failed = True  # until there is a verdict
                verdict = next(self._found)
                self.failed = verdict.status == "sandbox_error"
                self._known.append(verdict)
            yield self._known[index]


class ProblemTests:
    """The tests of one problem. Raises ValueError for tests, subtasks or limits of no known form, and for a checker that does not
    work."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tests = problem.payload["tests"]
        language = read_language(problem.payload.get("language"))
        floats = read_floats(problem.payload.get("floats"))
        tests = unpacked(tests, local_sandbox()) if is_packed(tests) else tests
        self.cases = read_cases(tests, language=language, floats=floats)
        self.subtasks = read_subtasks(problem.payload.get("subtasks"), num_tests=len(self.cases.inputs))
        self._limits = read_limits(problem.payload.get("limits"))
        self._checker: Checker | None = None
        if (code := problem.payload.get("checker")) and self.cases.function is None:
            self._checker = Checker(code, local_sandbox(), given=self.cases.inputs[0], expected=self.cases.expected[0])
        self._assertions: Assertions | None = None
        if self.cases.function is not None and self.cases.setup is not None:
            texts = [str(text) for text in self.cases.inputs]
            self._assertions = Assertions(self.cases.setup, texts, self.cases.function, local_sandbox())
        self._runs: dict[str, CachedVerdicts] = {}

    def verdicts(self, program: str) -> Iterator[Verdict]:
        """One for every test, in order. Raises SandboxUnavailable where no sandbox was opened."""
        if program not in self._runs or self._runs[program].failed:
            found = verdicts(
                program,
                self.cases,
                limits=self._limits,
                sandbox=sandbox(),
                checker=self._checker,
                assertions=self._assertions,
            )
            self._runs[program] = CachedVerdicts(found, num_tests=len(self.cases.inputs))
        return iter(self._runs[program])


_last = threading.local()


def tests_of(problem: Problem) -> ProblemTests:
    """The last problem's tests are cached per thread: the rewards of a group run one after the other.

    The cache compares the object, not its id: the same problem in another group is tested again.
    """
    kept: ProblemTests | None = getattr(_last, "kept", None)
    if kept is None or kept.problem is not problem:
        kept = _last.kept = ProblemTests(problem)
    return kept


def subtasks_of(problem: Problem) -> tuple[Subtask, ...]:
    """() for a problem without subtasks or without tests."""
    return tests_of(problem).subtasks if problem.payload.get("tests") else ()


def up_to_first_failure(found: Iterable[Verdict]) -> Iterator[Verdict]:
    """The verdicts up to the first failed test."""
    for verdict in found:
        yield verdict
        if not verdict.correct:
            return


def score_of(found: Iterable[Verdict], *, score_fn: Callable[[Sequence[Verdict]], float]) -> ComponentScore:
    """The score of a program: correct when no test failed, else with the status of the first failed test; None when the sandbox
    failed."""
    known: list[Verdict] = []
    for verdict in found:
        if verdict.status == "sandbox_error":
            return ComponentScore(value=None, status="sandbox_error")
        known.append(verdict)
    failed = [verdict for verdict in known if not verdict.correct]
    return ComponentScore(value=score_fn(known), status=failed[0].status if failed else "ok", correct=not failed)


def program_score(
    problem: Problem,
    text: str,
    score_fn: Callable[[Sequence[Verdict]], float],
    *,
    num_tests: int | None = None,
    no_program: float = 0.0,
) -> ComponentScore:
    """`score_fn` of the verdicts on the program in a completion, on the first `num_tests` tests or all of them.

    None for a problem without tests.
    """
    if not problem.payload.get("tests"):
        return ComponentScore(value=None)
    program = program_in(problem, text)
    if program is None:
        return ComponentScore(value=no_program, status="wrong_answer", correct=False)
    return score_of(islice(tests_of(problem).verdicts(program), num_tests), score_fn=score_fn)


def all_passed(found: Sequence[Verdict]) -> float:
    return float(all(verdict.correct for verdict in found))


def share_passed(found: Sequence[Verdict]) -> float:
    return sum(verdict.correct for verdict in found) / len(found)
