"""Problems with more than one correct output, checked by their own checkers in the real sandbox."""

from collections.abc import Iterator

import pytest

from r1ray.config import SandboxConfig
from r1ray.reward.code.cases import read_cases
from r1ray.reward.code.checker import Checker
from r1ray.reward.code.verdicts import verdicts
from r1ray.sandbox import current
from r1ray.sandbox.base import Limits, Program, RunResult
from r1ray.sandbox.pool import Sandbox

CHECKER = """
import sys
given, correct, solution = (open(name).read().split() for name in sys.argv[1:])
total = int(given[0])
if len(solution) != 2 or len(correct) != 2:
    print(0)
else:
    print(int(sum(map(int, solution)) == total))
"""
TESTS = [{"input": "5\n", "output": "2 3"}, {"input": "7\n", "output": "1 6"}]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    cfg = SandboxConfig(url=None, min_tier="T2", python="/usr/bin/python3", packages=[])
    with Sandbox(current.spec_of(cfg, ()), slots=1) as opened:
        yield opened


def statuses_of(code: str, sandbox: Sandbox, checker: str | None) -> list[str]:
    made = None if checker is None else Checker(checker, sandbox, given="5\n", expected="2 3")
    return [v.status for v in verdicts(code, read_cases(TESTS), limits=Limits(), sandbox=sandbox, checker=made)]


def test_other_correct_output_is_accepted_only_by_a_checker(sandbox: Sandbox) -> None:
    other = "n = int(input())\nprint(0, n)"
    assert statuses_of(other, sandbox, CHECKER) == ["ok", "ok"]
    assert statuses_of(other, sandbox, None) == ["wrong_answer", "wrong_answer"]
    assert statuses_of("print(2, 3)", sandbox, CHECKER) == ["ok", "wrong_answer"]


@pytest.mark.parametrize(
    "code",
    [
        "print('x', 'y')",  # the checker fails on it
        "print(1)\nimport os\nos._exit(1)",
        "print(1)",
        "print('\\n' * 5 + '1')",
        "open('solution_output.txt', 'w')",
        "import sys\nsys.stdout.buffer.write(bytes(range(128, 256)))",
        "",
    ],
)
def test_output_that_attacks_the_checker_is_rejected(code: str, sandbox: Sandbox) -> None:
    assert "ok" not in statuses_of(code, sandbox, CHECKER)


def test_checker_reads_line_ends_as_from_a_file(sandbox: Sandbox) -> None:
    code = "import sys\nprint(int(open(sys.argv[3]).read().splitlines() == open(sys.argv[2]).read().split('\\n')))"
    assert Checker(code, sandbox, given="", expected="a\nb").accepts("", "a\nb", b"a\r\nb") is True


def test_checker_can_open_its_files_in_every_way(sandbox: Sandbox) -> None:
    code = """
import io, pathlib, sys
texts = [open(sys.argv[1], "rb").read().decode(), pathlib.Path(sys.argv[2]).read_text(), io.open(sys.argv[3]).read()]
with open(sys.argv[3]) as file:
    print(int(texts[0] == "5\\n" and texts[1] == "2 3" and [*file] == [texts[2]]))
"""
    assert Checker(code, sandbox, given="5\n", expected="2 3").accepts("5\n", "2 3", b"9") is True


@pytest.mark.parametrize("code", ["print(0)", "1 / 0", "while True: pass", "print('1 1')"])
def test_checker_that_rejects_the_expected_output_is_broken(code: str, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="does not accept the expected output"):
        Checker(code, sandbox, given="5\n", expected="2 3")


class Broken:
    def run(self, program: Program) -> RunResult:
        return RunResult(status="sandbox_error" if b"checker" in program.code else "ok", stdout=b"1 4")


def test_sandbox_failure_is_not_an_incorrect_answer() -> None:
    assert statuses_of("-", Broken(), CHECKER) == ["sandbox_error", "sandbox_error"]  # type: ignore[arg-type]
