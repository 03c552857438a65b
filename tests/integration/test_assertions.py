"""Programs against assertions of datasets, in the sandbox."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from r1ray.config import SandboxConfig
from r1ray.reward.base import RewardContext
from r1ray.reward.code.fraction import FractionArgs, code_fraction
from r1ray.reward.code.problem_tests import ProblemTests
from r1ray.sandbox import current
from r1ray.sandbox.choose import PYTHON
from r1ray.types import Completion, Problem

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CHECK = """
def check(candidate):
    assert candidate(nums = [2, 7], target = 9) == [0, 1]
    assert candidate([3, 3], 6) == [0, 1], "twice"
    for n in range(3, 20):
        assert candidate([1] + [5] * n + [2], 3) == [0, n + 1]
"""
TWO_SUM = """
class Solution:
    def twoSum(self, nums: List[int], target: int) -> List[int]:
        return next([i, j] for i, j in combinations(range(len(nums)), 2) if nums[i] + nums[j] == target)
"""
PYTEST = """
import pytest
from solution import mean

def test_values():
    result = mean([1, 2])
    assert result == 1.5
    assert mean([0.1, 0.2]) == pytest.approx(0.15)
    assert abs(mean((1, 2, 4)) - 7 / 3) < 1e-9

def test_errors():
    with pytest.raises(ValueError, match="empty"):
        mean([])

@pytest.mark.parametrize("values, wanted", [([3], 3), ([4, 4], 4)])
def test_each(values, wanted):
    assert mean(values) == wanted
"""
CONTEXT = RewardContext(step=0, seed=0, max_response_length=9)
MEAN = "def mean(values):\n    if not values: raise ValueError('empty')\n    return sum(values) / len(values)\n"


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> Iterator[None]:
    current.allow_programs(SandboxConfig(url=None, min_tier="T2", python=PYTHON, packages=[]), ())
    yield
    current._allowed.clear()


def asked(assertions: Any, name: str) -> Problem:
    return Problem(
        id="p",
        source="rows",
        messages=(),
        prompt_ids_T=np.zeros(1, np.int32),
        verifier="program",
        payload={"tests": {"fn_name": name, "assertions": assertions}, "limits": {"cpu": 2, "wall": 20}},
    )


def verdicts(assertions: Any, name: str, program: str) -> list[tuple[bool, str]]:
    return [(verdict.correct, verdict.status) for verdict in ProblemTests(asked(assertions, name)).verdicts(program)]


def share(assertions: Any, name: str, program: str) -> float:
    found = verdicts(assertions, name, program)
    return sum(correct for correct, _ in found) / len(found)


@pytest.mark.parametrize(
    ("assertions", "name", "program", "right"),
    [
        (CHECK, "Solution().twoSum", TWO_SUM, 1.0),
        (CHECK, "twoSum", TWO_SUM, 1.0),
        (CHECK, "twoSum", TWO_SUM.replace("[i, j]", "[j, i]"), 0.0),
        (CHECK, "twoSum", TWO_SUM.replace("[i, j]", "(i, j)"), 0.0),
        (CHECK, "twoSum", "def twoSum(nums, target):\n    return [0, len(nums) - 1]", 1.0),
        (CHECK, "twoSum", "x = 1", 0.0),
        (PYTEST, "mean", MEAN, 1.0),
        (PYTEST, "mean", MEAN.replace("ValueError", "KeyError"), 2 / 3),
        (PYTEST, "mean", MEAN.replace("empty", "none"), 2 / 3),
        (PYTEST, "mean", MEAN.replace("/ len", "// len"), 2 / 3),
        (PYTEST, "mean", "class Mine(ValueError): pass\n" + MEAN.replace("ValueError('", "Mine('"), 1.0),
        (PYTEST, "mean", "def mean(values):\n    return None\n", 0.0),
        (["assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0"], "f", "def f(n): return abs(n) + 1", 2 / 3),
        ("assert sorted(f({1, 2})) == [1, 2]\nassert len(f({3})) == 1", "f", "def f(n): return n", 1.0),
        ("x = 1\nfor _ in range(5):\n    x = f(x)\nassert x == 32", "f", "def f(n): return 2 * n", 1.0),
        ("x = 1\nwhile x < 30:\n    x = f(x)\nassert x == 32", "f", "def f(n): return 2 * n", 1.0),
        ("assert all(f(n) == n * n for n in range(1000))", "f", "def f(n): return n * n", 1.0),
        ("assert all(f(n) == n * n for n in range(1000))", "f", "def f(n): return n * n if n < 999 else 0", 0.0),
        (
            "assert f(f(2)) == 4 and f('a') == 'b'",
            "f",
            "def f(n): return n + 1 if n == 2 else 4 if n == 3 else 'b'",
            1.0,
        ),
        ("a = [3, 1]\nf(a)\nassert a == [1, 3]", "f", "def f(a): a.sort()", 1.0),
        ("a = [3, 1]\nf(a)\nassert a == [1, 3]", "f", "def f(a): return sorted(a)", 0.0),
        (
            "assert f(2) is None and f((1, b'x', 2j)) == (1, b'x', 2j)",
            "f",
            "def f(n): return None if n == 2 else n",
            1.0,
        ),
        ("assert f(1) == float('inf') and f(2) != f(2)", "f", "def f(n): return n * inf if n == 1 else nan", 1.0),
        ("assert list(f(3)) == [0, 1, 2]", "f", "def f(n):\n    yield from range(n)", 1.0),
        ("assert f('aab') == {'a': 2, 'b': 1}", "f", "def f(s): return Counter(s)", 1.0),
        ("assert f({1: (2, 3)}) == {(2, 3): 1}", "f", "def f(d): return {v: k for k, v in d.items()}", 1.0),
        ("try:\n    f(0)\n    assert False\nexcept ZeroDivisionError:\n    pass", "f", "def f(n): return 1 / n", 1.0),
        ("assert f(1) == 1", "encoded", "def encoded(n): return n", None),
        ("assert encoded(1) == 1", "encoded", "def encoded(n): return n", 1.0),
    ],
)
def test_share_of_passed_tests(assertions: Any, name: str, program: str, right: float | None) -> None:
    if right is None:
        with pytest.raises(ValueError, match="the assertions cannot be used"):
            share(assertions, name, program)
    else:
        assert share(assertions, name, program) == pytest.approx(right)


WRITES = """
import os
for fd in range(3, 32):
    try: os.write(fd, {!r})
    except OSError: pass
os._exit(0)
"""
FRAMES = """
import sys
def f(n):
    frame = sys._getframe()
    while frame:
        frame.f_globals.update(called=lambda *_: '"passed"')
        frame = frame.f_back
"""
EQUAL = """
class A{}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def f(n): return A()
"""


@pytest.mark.parametrize(
    "program",
    [
        EQUAL.format(""),
        EQUAL.format("(int)"),
        EQUAL.format("(list)"),
        "import builtins\nbuiltins.AssertionError = ValueError\ndef f(n): return 0",
        "import os\nos._exit(0)",
        "import os\ndef f(n): os._exit(0)",
        "import sys\ndef f(n): sys.exit(0)",
        WRITES.format(b'"passed"\n["passed"]\n'),
        WRITES.format(b'"{}"\n'),
        "def f(n): raise AssertionError",
        "def f(n): raise SystemExit",
        FRAMES,
        "candidate = check = lambda *a: True\ndef f(n): return candidate",
        'def r1ray_call(*a): return \'{"value": 2, "args": []}\'',
        "import json\njson.dumps = lambda *a, **k: '[\"passed\"]'\ndef f(n): return 0",
        "import sys\nclass P(BaseException): pass\ndef f(n): raise P",
        "def f(n): return f'{n}'",
        "x = '''",
    ],
)
def test_program_cannot_pass_by_changing_the_test(program: str) -> None:
    found = verdicts("def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6", "f", program)
    assert [correct for correct, _ in found] == [False]


def test_status_is_that_of_the_program() -> None:
    tests = ["assert f(1) == 2", "assert f(2) == 3"]
    assert verdicts(tests, "f", "def f(n):\n    while True: pass") == [(False, "timeout")] * 2
    assert verdicts(tests, "f", "x = '''") == [(False, "runtime_error")] * 2
    assert verdicts(tests, "f", "def f(n): return 2") == [(True, "ok"), (False, "wrong_answer")]


@pytest.mark.parametrize(
    "assertions",
    [
        "def check(candidate):\n    assert candidate(object()) == 1",
        "def check(candidate):\n    pass",
        "def check(candidate):\n    assert undefined(1) == 1",
        "from solution import other\ndef test_a():\n    assert other(1) == 1",
        "import nowhere\ndef test_a():\n    assert f(1) == 1",
        "def test_a(tmp_path):\n    assert f(1) == 1",
        "import os\nos._exit(0)\nassert f(1)",
    ],
)
def test_assertions_that_do_not_work_are_no_fault_of_a_program(assertions: str) -> None:
    with pytest.raises(ValueError, match="the assertions cannot be used"):
        ProblemTests(asked(assertions, "f"))


def test_rewards_read_assertions() -> None:
    completion = Completion(
        token_ids_T=np.zeros(1, np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text=MEAN.replace("empty", "none"),
        finish_reason="stop",
        versions=(),
    )
    [score] = code_fraction(asked(PYTEST, "mean"), [completion], CONTEXT, FractionArgs())
    assert score.value == pytest.approx(2 / 3) and not score.correct
