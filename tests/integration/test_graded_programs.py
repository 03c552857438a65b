"""Programs with the reward that is right: tests/fixtures/graded.jsonl, scored as `python -m r1ray.grade` does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1ray.config import SandboxConfig
from r1ray.data.graded import GradedRow, read_graded
from r1ray.reward.accuracy import accuracy
from r1ray.reward.base import RewardContext
from r1ray.sandbox import current
from r1ray.sandbox.choose import PYTHON

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
GRADED = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/graded.jsonl").read_text().splitlines()]
PROGRAMS = {entry["id"]: entry for entry in GRADED if entry["row"]["kind"] != "math_answer"}


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> Iterator[None]:
    current.allow_programs(SandboxConfig(url=None, min_tier="T2", python=PYTHON, packages=[]), ())
    yield
    current._allowed.clear()


def reward_of(row: dict[str, Any], folder: Path) -> float | None:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    [group] = read_graded(path, tokenise=lambda _: np.zeros(0, np.int32))
    assert isinstance(group, list) and isinstance(group[0], GradedRow), group
    [score] = accuracy(group[0].problem, [group[0].completion], RewardContext(step=0, seed=0, max_response_length=100))
    return score.value


@pytest.mark.parametrize("name", PROGRAMS)
def test_reward_of_a_graded_program(name: str, tmp_path: Path) -> None:
    assert reward_of(PROGRAMS[name]["row"], tmp_path) == PROGRAMS[name]["right"]


def whole(code: str, output: str = "1\n", stdin: str = "") -> dict[str, Any]:
    return {"kind": "stdin_stdout", "code": code, "tests": [{"input": stdin, "output": output}]}


def call(code: str, args: list[Any], expected: Any, name: str = "f", *, apps: bool = False) -> dict[str, Any]:
    cases = {"cases": [{"args": args, "expected": expected}]}
    tests = {"fn_name": name, **({"inputs": [args], "outputs": [expected]} if apps else cases)}
    return {"kind": "function_call", "code": code, "tests": tests}


def method(body: str, name: str = "f") -> str:
    return f"class Solution:\n    def {name}(self, a):\n        {body}\n"


DEPTH = "def g(k):\n        return 0 if k == 0 else 1 + g(k - 1)\n    return g(a)"
INTO_KEYS = "def f(d):\n    return d[1] + d[-20]\n"
NO_NAME = "try:\n    Counter\nexcept NameError:\n    print(1)\n"


@pytest.mark.parametrize(
    ("row", "right"),
    [
        (whole("print(1)\nquit()\nprint(2)"), 1.0),
        (whole("print(1)\nexit(0)"), 1.0),
        (whole("print(1)\nexit(3)"), 0.0),
        (whole("print(1)\nquit('no')"), 0.0),
        (whole("def main():\n    if True:\n        print(1)\n        return exit()\nmain()"), 1.0),
        (call("def f(a):\n    return a\nif __name__ == '__main__':\n    exit()", [1], 1), 1.0),
        (call("def f(a):\n    exit()", [1], 1), 0.0),
        (whole("print(int(input()) + 1)", "1" + "0" * 6000 + "\n", "9" * 6000 + "\n"), 1.0),
        (whole("print(3 ** 20000 % 10 ** 5000 > 0 and 1, len(str(3 ** 20000)))", "1 9543\n"), 1.0),
        (call("def f(a):\n    return 10 ** a", [6000], 10**6000), 1.0),
        (call("def f(a):\n    return 10 ** a + 1", [6000], 10**6000), 0.0),
        (call("def f(a):\n    return a + 1", [10**6000], 10**6000 + 1), 1.0),
        (call(method("return sorted(Counter(a).items())[0]"), ["aab"], ["a", 2]), 1.0),
        (
            call(
                method("return list(accumulate(a, operator.mul)) + [ceil(1.5), gcd(4, 6), lcm(4, 6)]"),
                [[1, 2]],
                [1, 2, 2, 2, 12],
            ),
            1.0,
        ),
        (
            call(
                method("q = deque(a); q.rotate(1); d = defaultdict(int); return list(q) + [d[0]]"), [[1, 2]], [2, 1, 0]
            ),
            1.0,
        ),
        (call(method("return reduce(lambda x, y: x * y, a) + pow(2, 5, 7)"), [[2, 3]], 10), 1.0),
        (call(method("return insort(a, 2) or a"), [[1, 3]], [1, 2, 3]), 1.0),
        (call(method("return -inf < a < inf and maxsize > 1 and math.inf > a"), [1], True), 1.0),
        (
            call(
                method("return [ascii_lowercase[a], string.digits[a], re.sub('a', 'b', 'aa')]"), [1], ["b", "1", "bb"]
            ),
            1.0,
        ),
        (call(method("return [*map(str, permutations(a))][0]"), [[1]], "(1,)"), 1.0),
        (
            call(
                method("return str(Fraction(a, 2)) if 'Fraction' in dir() else str(fractions.Fraction(a, 2))"),
                [1],
                "1/2",
            ),
            1.0,
        ),
        (call("def f(a: Optional[TreeNode], b: ListNode = None) -> List[List[int]]:\n    return a", [[1]], [1]), 1.0),
        (call("def f(a: Foo):\n    return a", [1], 1), 0.0),
        (call("def f(a):\n    return Foo", [1], 1), 0.0),
        (call(method("return a + 1", "gcd"), [3], 4, "gcd"), 1.0),
        (call("def gcd(a, b):\n    return 7", [4, 6], 7, "gcd"), 1.0),
        (call("x = 1", [4, 6], 2, "gcd"), 0.0),
        (call("from math import gcd", [4, 6], 2, "gcd"), 1.0),
        (call("from typing import *\nclass Counter: x = 5\ndef f(a):\n    return Counter.x", [1], 5), 1.0),
        (call(f"def f(a):\n    {DEPTH}", [40_000], 40_000), 1.0),
        (call(f"def f(a):\n    @cache\n    {DEPTH}", [15_000], 15_000), 1.0),
        (call("import sys\nsys.setrecursionlimit(100)\n" + f"def f(a):\n    {DEPTH}", [4000], 4000), 0.0),
        (call("def f(a):\n    return f(a)", [1], 1), 0.0),
        (whole(NO_NAME), 1.0),
        (call(INTO_KEYS, [{"1": 2, "-20": 3}], 5, apps=True), 1.0),
        (call(INTO_KEYS, [{"1": 2, "-20": 3}], 5), 0.0),
        (call("def f(d):\n    return d['a'] + d['1']", [{"a": 1, "1": 2}], 3, apps=True), 1.0),
        (call("def f(d):\n    return {k + 1: v for k, v in d.items()}", [{"1": 2}], {"2": 2}, apps=True), 1.0),
        (call("def f(n, d):\n    return d['1']", [0, {"1": 2}], 2, apps=True), 1.0),
        (call("def f():\n    return 3", [], 3, apps=True), 1.0),
        (call("def f(a):\n    return a / 3", [1], 0.33333, apps=True), 1.0),
        (call("def f(a):\n    return a / 3", [1], 0.33333), 0.0),
        (call("def f(a):\n    return a + 0.001", [1], 1, apps=True), 0.0),
        (whole("print('7\\n' * 1_500_000)", "7\n" * 1_500_000), 1.0),
        (whole("print('7\\n' * 1_500_001)", "7\n" * 1_500_000), 0.0),
        (whole("print('7\\n' * 1_500_000)", "7\n"), 0.0),
        (call("def f(a):\n    return [a] * 700_000", [7], [7] * 700_000), 1.0),
        (whole("import sys\nsys.stderr.write('x' * 2_000_000)\nprint(1)"), 1.0),
        (whole("import sys\nfor i in range(300_000):\n    print('debug', i, file=sys.stderr)\nprint(1)"), 1.0),
        (whole("import sys\nwhile True:\n    sys.stderr.write('x' * 100_000)"), 0.0),
        (call("import sys\ndef f(a):\n    sys.stderr.write('x' * 3_000_000)\n    return a", [1], 1), 1.0),
        (whole("class A:\n    def g(self) -> A: pass\nprint(1)"), 0.0),
        (whole("from __future__ import annotations\nclass A:\n    def g(self) -> A: pass\nprint(1)"), 1.0),
        (
            whole(
                "from dataclasses import dataclass, fields\n@dataclass\nclass A:\n    x: int\nprint(int(fields(A)[0].type is int))"
            ),
            1.0,
        ),
    ],
)
def test_rewards_of_variants(row: dict[str, Any], right: float, tmp_path: Path) -> None:
    assert reward_of(row, tmp_path) == right
