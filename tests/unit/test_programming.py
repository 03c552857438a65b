"""Datasets of programs: rows in the real schemas, and how their tests are verified."""

import base64
import json
import pickle
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from r1ray.config import SourceConfig
from r1ray.data import programming
from r1ray.data.base import SourceArgs, Unreadable
from r1ray.data.sources import load_source, program_languages
from r1ray.reward.code.cases import Cases, read_cases
from r1ray.reward.code.compare import same_results
from r1ray.reward.code.packed import unpacked
from r1ray.sandbox.base import Program, RunResult

STDIN = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
CALLS = {"fn_name": "twice", "inputs": [[1], ["ab"]], "outputs": [[2], "abab"]}
PUBLIC = [{"input": '[1, 2]\n"a"', "output": "[1]", "testtype": "functional"}]
PRIVATE = [{"input": '[]\n"b"', "output": "null", "testtype": "functional"}]


def packed(inside: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(inside))).decode()


apps, prime_code, livecodebench = (
    partial(read, args=SourceArgs()) for read in (programming.apps, programming.prime_code, programming.livecodebench)
)


def lcb(**changes: Any) -> dict[str, Any]:
    row = {
        "question": "Take some.",
        "id": "abc_1",
        "starter": "class Solution:\n    pass",
        "metadata": '{"func_name": "take"}',
    }
    return {**row, "public": json.dumps(PUBLIC), "private": packed(json.dumps(PRIVATE)), **changes}


def test_apps_and_taco_prompts_name_what_is_required() -> None:
    program = apps({"question": "Add.", "tests": json.dumps(STDIN), "starter": ""})
    function = apps({"question": "Double.", "tests": json.dumps(CALLS), "starter": "def twice(x):\n"})
    assert program.verifier == function.verifier == "code"
    assert program.messages[0].content.startswith("Add.\n\nWrite a Python program that reads standard input")
    assert "Python function `twice`" in function.messages[0].content
    assert function.messages[0].content.endswith("Begin with this:\n\n```python\ndef twice(x):\n```")
    cases = read_cases(program.payload["tests"])
    assert cases == Cases(function=None, inputs=["1 2\n", "3\n4"], expected=["3\n", "7"], floats="close")


@pytest.mark.parametrize(
    "tests", ["", "no", '{"inputs": [], "outputs": []}', '{"inputs": ["1"], "outputs": []}', "[1]", None]
)
def test_rows_without_tests_cannot_be_used(tests: Any) -> None:
    with pytest.raises(Unreadable):
        apps({"question": "Add.", "tests": tests})


def test_wrapped_value_is_accepted_in_both_forms() -> None:
    cases = read_cases(CALLS)
    assert same_results(b'2\n"abab"\n', cases.expected, wrapped=cases.wrapped) == [True, True]
    assert same_results(b'[2]\n"abab"\n', cases.expected, wrapped=cases.wrapped) == [True, True]
    assert same_results(b'3\n["abab"]\n', cases.expected, wrapped=cases.wrapped) == [False, False]
    assert same_results(b"1\n", [[1, 2]], wrapped=True) == [False]
    assert same_results(b"2\n", [[2]]) == [False]


def test_prime_code_reads_json_and_drops_other_languages_than_python() -> None:
    calls = [{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": [3]}]
    stdin = [{"type": "stdin_stdout", "input": "1\n", "output": "2\n", "fn_name": None}]
    for write in (json.dumps, repr):
        item = prime_code({"prompt": "Add.", "info": write({"language": "python", "test_cases": calls})})
        cases = read_cases(item.payload["tests"])
        assert cases == Cases(function="f", inputs=[[1, 2]], expected=[[3]], wrapped=True, floats="close")
    item = prime_code({"prompt": "Next.", "info": repr({"language": "python", "test_cases": stdin})})
    assert read_cases(item.payload["tests"]).function is None
    for info in ({"language": "cpp", "test_cases": stdin}, {"language": "python"}, "__import__('os')"):
        with pytest.raises(Unreadable):
            prime_code({"prompt": "Next.", "info": info})


def test_private_tests_of_livecodebench_stay_packed() -> None:
    item = livecodebench(lcb())
    assert item.id == "abc_1" and "Python function `take`" in item.messages[0].content
    assert item.payload["tests"] == {"packed": packed(json.dumps(PRIVATE)), "public": PUBLIC, "fn_name": "take"}
    plain = livecodebench(lcb(private=json.dumps(PRIVATE)))
    assert read_cases(plain.payload["tests"]) == Cases(
        function="take", inputs=[[[1, 2], "a"], [[], "b"]], expected=[[1], None]
    )
    with pytest.raises(Unreadable):
        livecodebench(lcb(public='[{"input": "[1,"}]'))


class Unpacker:
    """A fake of the sandbox."""

    def __init__(self, result: RunResult) -> None:
        self.result, self.stdin = result, b""

    def run(self, program: Program) -> RunResult:
        self.stdin = program.stdin
        return self.result


def test_unpacked_tests_come_after_the_public_tests() -> None:
    tests = livecodebench(lcb()).payload["tests"]
    sandbox = Unpacker(RunResult(status="ok", stdout=json.dumps(PRIVATE).encode()))
    assert read_cases(unpacked(tests, sandbox)).inputs == [[[1, 2], "a"], [[], "b"]]
    assert sandbox.stdin.decode() == tests["packed"]
    for result in (
        RunResult(status="timeout"),
        RunResult(status="ok", stdout=b"no"),
        RunResult(status="ok", stdout=b"[1]"),
    ):
        with pytest.raises(ValueError):
            unpacked(tests, Unpacker(result))


def rows_of(name: str, **args: Any) -> Any:
    path = Path(__file__).parents[1] / "fixtures/datasets" / f"{name}.jsonl"
    return load_source("mine", SourceConfig(source=name, path=str(path), args=args))


def test_verl_prompts_are_kept_also_with_assertions() -> None:
    loaded = rows_of("skywork_code")
    item, asserted = loaded.items
    assert asserted.messages[0].content == "Double it."
    cases = read_cases(asserted.payload["tests"])
    assert (cases.function, cases.inputs) == ("double", ["check(candidate)"])
    assert cases.setup is not None and cases.setup.startswith("from typing import *\n")
    assert item.messages[0].content == "Print the sum. Put the program in a ```python block."
    assert read_cases(item.payload["tests"]).inputs == ["1 2\n", "10 20\n"]
    assert not loaded.counts["unreadable"]


def test_eurus_separates_maths_and_programs_and_keeps_its_system_prompt() -> None:
    loaded = rows_of("eurus")
    maths, program = loaded.items
    assert (maths.verifier, maths.payload) == ("math", {"answers": ["42"]})
    assert (program.verifier, read_cases(program.payload["tests"]).expected) == ("code", ["3\n", "30\n"])
    assert {item.messages[0].role for item in loaded.items} == {"system"}
    assert loaded.counts["unreadable"] == 1


def test_deepcoder_reads_the_tests_of_each_source_and_takes_the_longest() -> None:
    loaded = rows_of("deepcoder", num_tests=2)
    prime, calls, taco, lcb = (read_cases(item.payload["tests"]) for item in loaded.items)
    assert prime == Cases(function=None, inputs=["22 1\n", "333 1\n"], expected=["23\n", "334\n"], floats="close")
    assert calls == Cases(function="square", inputs=[[2], [30]], expected=[[4], [900]], wrapped=True, floats="close")
    assert taco.inputs == ["1 2\n", "10 20\n"]
    assert lcb == Cases(function="take", inputs=[[[1, 2]]], expected=[[1]])
    assert "class Solution" in loaded.items[3].messages[0].content
    assert loaded.counts["unreadable"] == 1
    assert len(read_cases(rows_of("deepcoder").items[0].payload["tests"]).inputs) == 3


def test_codeforces_takes_one_language_with_its_limits_and_checker() -> None:
    loaded = rows_of("codeforces")
    plain, checked = loaded.items
    assert plain.id == "codeforces/1/A/python" and plain.messages[0].content.startswith("Print the sum, in Python.")
    assert plain.payload["limits"] == {"cpu": 2.0, "memory_mb": 256.0} and "checker" not in plain.payload
    assert checked.payload["checker"] == "import sys\nprint(1)\n"
    assert loaded.counts["unreadable"] == 2
    (cpp,) = rows_of("codeforces", language="cpp").items
    assert (cpp.id, cpp.payload["language"]) == ("codeforces/1/A/cpp", "cpp")
    assert program_languages([SourceConfig(source="codeforces", path="x/y", args={"language": "cpp"})]) == {"cpp"}


def test_struct_columns_are_read_like_json_text() -> None:
    info = {
        "language": "python",
        "test_cases": [{"type": "stdin_stdout", "input": "1\n", "output": "2\n", "fn_name": None}],
    }
    item = prime_code({"prompt": "Next.", "info": info})
    assert read_cases(item.payload["tests"]).expected == ["2\n"]


def test_floats_are_compared_by_the_rule_of_each_source() -> None:
    def floats(item: Any) -> str:
        cases = read_cases(item.payload["tests"], floats=item.payload.get("floats"))
        return cases.floats

    stdin = [{"type": "stdin_stdout", "input": "1\n", "output": "0.5\n", "fn_name": None}]
    prime = prime_code({"prompt": "Half.", "info": json.dumps({"language": "python", "test_cases": stdin})})
    of_apps = [apps({"question": "Half.", "tests": json.dumps(tests)}) for tests in (STDIN, CALLS)]
    assert {*map(floats, of_apps), floats(prime), floats(rows_of("skywork_code").items[0])} == {"close"}
    assert (
        livecodebench(lcb()).payload["floats"]
        == livecodebench(lcb(private=json.dumps(PRIVATE))).payload["floats"]
        == "exact"
    )
    assert [item.payload["floats"] for item in rows_of("deepcoder").items] == ["close", "close", "close", "exact"]
    assert floats(rows_of("codeforces").items[0]) == "usual"


def test_assertions_of_leetcode_and_kodcode() -> None:
    (leetcode,), (kodcode,) = rows_of("leetcode").items, rows_of("kodcode").items
    assert "Python function `addOne`" in leetcode.messages[0].content and leetcode.id == "add-one"
    assert leetcode.messages[0].content.endswith("def addOne(self, n: int) -> int:\n```")
    cases = read_cases(kodcode.payload["tests"])
    assert (cases.function, cases.inputs, kodcode.id) == ("double", ["test_small()", "test_zero()"], "toy_1")
    assert rows_of("leetcode").counts["unreadable"] == 1 and rows_of("kodcode").counts["unreadable"] == 2


@pytest.mark.parametrize(
    "assertions", ["", "x = 1", "def check(", "def helper(): pass", [], None, [1], ["assert f(1)", "f(2)"]]
)
def test_assertions_of_no_known_form_are_refused(assertions: Any) -> None:
    with pytest.raises(ValueError, match="tests have none of the known forms"):
        read_cases({"fn_name": "f", "assertions": assertions})
