"""Programs as answers: which one counts, the forms of tests, and the reward of a verdict. The sandbox is faked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_samples import completion, context, problem

from r1ray.config import RewardComponentConfig, RewardConfig, SourceConfig
from r1ray.data.generators.oneliners import KINDS, VERIFIERS
from r1ray.data.sources import load_source, program_languages
from r1ray.reward import make
from r1ray.reward.accuracy import accuracy
from r1ray.reward.code import problem_tests
from r1ray.reward.code.cases import read_cases, read_limits
from r1ray.reward.code.extract import last_program
from r1ray.reward.code.verdicts import verdicts
from r1ray.sandbox.base import Limits, Program, RunResult, SandboxUnavailable


class Runner:
    """A fake of the sandbox: returns the result of each run."""

    def __init__(self, end: Callable[[Program], RunResult]) -> None:
        self.end, self.runs = end, list[Program]()

    def run(self, program: Program) -> RunResult:
        self.runs.append(program)
        return self.end(program)


def echo(program: Program) -> RunResult:
    return RunResult(status="ok", stdout=program.stdin)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<think>a</think> ```python\nprint(1)\n```", "print(1)\n"),
        ("```py\na\n``` then ```python3\nb\n```", "b\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("<think>```python\na\n```</think> b", None),
        ("```cpp\nint main() {}\n```", None),
        ("```python\nprint(1)", None),
        ("```python\n  \n```", None),
        ("print(1)", None),
        ("", None),
        ("<answer>```python\nprint(1)\n```</answer>", "print(1)\n"),
        ("```python\na\n```\nOutput:\n```\n1\n```", "a\n"),
        ("```python\na\n```\nThe ``` fence", "a\n"),
        ("```{python}\na\n```", "a\n"),
        ("```Python 3\na\n```", "a\n"),
        ("```\na\n```\n```text\nb\n```", "a\n"),
        ("use ```a``` here", None),
    ],
)
def test_program_is_read_from_a_completion(text: str, program: str | None) -> None:
    assert last_program(text) == program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<think>a</think> ```cpp\nint a;\n```", "int a;\n"),
        ("```c++\nint a;\n``` then ```cc\nint b;\n```", "int b;\n"),
        ("```C++17\nint a;\n```", "int a;\n"),
        ("```cpp\nint a;\n```\n```python\nb\n```", "int a;\n"),
        ("```\nint a;\n```", "int a;\n"),
        ("```python\nb\n```", None),
        ("```c\nint a;\n```", None),
        ("<think>```cpp\nint a;\n```</think>", None),
        ("```cpp\nint a;", None),
    ],
)
def test_cpp_program_is_read_from_a_completion(text: str, program: str | None) -> None:
    assert last_program(text, "cpp") == program


def test_problem_sets_the_language_of_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(echo)
    monkeypatch.setattr(problem_tests, "sandbox", lambda: runner)
    response = "```cpp\nint main() {}\n```\n```python\nprint(1)\n```"
    tests = [{"input": "1\n", "output": "1"}, {"input": "2", "output": "2"}]
    for language in (None, "python", "cpp"):
        asked = problem(verifier="code", payload={"tests": tests} | ({"language": language} if language else {}))
        (score,) = accuracy(asked, [completion(response)], context())
        assert score.correct
    found = [(run.language, run.code) for run in runner.runs]
    python, cpp = ("python", b"print(1)\n"), ("cpp", b"int main() {}\n")
    assert found == [*[python] * 4, *[cpp] * 2]
    in_java = problem(verifier="code", payload={"tests": tests, "language": "java"})
    [score] = accuracy(in_java, [completion(response)], context())
    assert score.error and "'java' cannot be run: language must be one of python, cpp" in score.error.message


def test_functions_are_not_called_in_cpp() -> None:
    calls = {"fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
    with pytest.raises(ValueError, match=r"C\+\+ programs are run as a whole"):
        read_cases(calls, language="cpp")


def test_forms_of_tests_are_read() -> None:
    pairs = read_cases([{"type": "stdin_stdout", "input": "1\n", "output": "2\n"}, {"input": "3", "output": "4"}])
    assert (pairs.function, pairs.inputs, pairs.expected) == (None, ["1\n", "3"], ["2\n", "4"])
    assert read_cases('[{"input": "3", "output": "4"}]').inputs == ["3"]
    calls = {"fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
    rows = [{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": 3}]
    for cases in map(read_cases, (calls, rows)):
        assert (cases.function, cases.inputs, cases.expected) == ("f", [[1, 2]], [3])


def test_arguments_and_values_as_lines_of_json() -> None:
    tests = {"fn_name": "f", "inputs": ['[1, 2]\n"a"\n', "3", ""], "outputs": ["[3]", '"x"', "null"]}
    cases = read_cases(tests)
    assert (cases.inputs, cases.expected, cases.wrapped) == ([[[1, 2], "a"], [3], []], [[3], "x", None], True)
    assert read_cases(json.dumps(tests)) == cases
    mixed = read_cases({"fn_name": "f", "inputs": [[1], "2"], "outputs": ["1", "2"]})
    assert (mixed.inputs, mixed.expected) == ([[1], [2]], ["1", 2])
    rows = [{"type": "function_call", "fn_name": "f", "input": "1\n2", "output": "3.5"}]
    assert (read_cases(rows).inputs, read_cases(rows).expected) == ([[1, 2]], [3.5])


def test_integers_of_more_than_4300_digits() -> None:
    text = json.dumps({"fn_name": "f", "cases": [{"args": [1], "expected": 0}]}).replace("0", "9" * 20_000)
    cases = read_cases(text)
    assert verdict_of(RunResult(status="ok", stdout=b"9" * 20_000 + b"\n"), cases) == (True, "ok")
    assert verdict_of(RunResult(status="ok", stdout=b"9" * 19_999 + b"8\n"), cases) == (False, "wrong_answer")


def verdict_of(result: RunResult, cases: Any) -> tuple[bool, str]:
    [verdict] = verdicts("code", cases, limits=Limits(), sandbox=Runner(lambda program: result))
    return verdict.correct, verdict.status


def test_output_may_be_larger_than_the_limit_where_the_right_one_is() -> None:
    large = "7\n" * (1 << 20)
    whole = read_cases([{"input": "", "output": large}, {"input": "", "output": "7"}])
    call = read_cases({"fn_name": "f", "cases": [{"args": [], "expected": [7] * (1 << 20)}]})
    runner = Runner(echo)
    for cases in (whole, call):
        list(verdicts("code", cases, limits=Limits(), sandbox=runner))
    sizes = [run.limits.output_bytes for run in runner.runs]
    assert sizes[0] >= 2 * len(large) and sizes[1] == Limits().output_bytes and sizes[2] >= 6 << 20


def test_floats_are_compared_by_the_form_of_the_tests_unless_the_payload_says() -> None:
    apps = {"inputs": ["1"], "outputs": ["0.333333"]}
    calls = {"fn_name": "f", "inputs": [[1]], "outputs": [0.5]}
    rows = [{"input": "1", "output": "0.333333"}]
    assert [read_cases(tests).floats for tests in (apps, calls, rows)] == ["close", "close", "usual"]
    assert read_cases(apps, floats="exact").floats == "exact" and read_cases(rows, floats="close").floats == "close"


@pytest.mark.parametrize(("floats", "correct"), [(None, False), ("exact", False), ("close", True)])
def test_payload_says_how_floats_are_compared(floats: Any, correct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        problem_tests, "sandbox", lambda: Runner(lambda program: RunResult(status="ok", stdout=b"0.33333333"))
    )
    payload = {"tests": [{"input": "", "output": "0.333333"}], **({"floats": floats} if floats else {})}
    [score] = accuracy(problem(verifier="program", payload=payload), [completion("x")], context())
    assert score.correct is correct
    near = problem(verifier="program", payload={**payload, "floats": "near"})
    [score] = accuracy(near, [completion("x")], context())
    assert score.error and "floats='near' must be one of usual, exact, close" in score.error.message


def test_first_argument_gets_integer_keys_in_the_form_of_apps() -> None:
    runner = Runner(echo)
    for tests in ({"inputs": [[{"1": 2}]], "outputs": [1]}, {"cases": [{"args": [{"1": 2}], "expected": 1}]}):
        list(verdicts("code", read_cases({"fn_name": "f", **tests}), limits=Limits(), sandbox=runner))
    assert [run.integer_keys for run in runner.runs] == [True, False]


def test_block_that_defines_the_function_is_the_program() -> None:
    blocks = "```python\ndef f(n):\n    return n\n```\nFor example:\n```python\nprint(f(input()))\n```"
    for tests in (
        {"fn_name": "f", "cases": [{"args": [1], "expected": 1}]},
        json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [1]}),
        [{"type": "function_call", "fn_name": "f", "input": [1], "output": 1}],
        {"packed": "eJ", "public": [], "fn_name": "f"},
    ):
        program = problem_tests.program_in(problem(verifier="code", payload={"tests": tests}), blocks)
        assert program == "def f(n):\n    return n\n"
    for tests in ([{"input": "1", "output": "1"}], "[", None):
        program = problem_tests.program_in(problem(verifier="code", payload={"tests": tests}), blocks)
        assert program == "print(f(input()))\n"


@pytest.mark.parametrize(
    "tests",
    [
        [],
        None,
        {"fn_name": "f", "inputs": ["ab"], "outputs": ["1"]},
        {"fn_name": "f", "inputs": ["1"], "outputs": ["ab"]},
        {"fn_name": "f", "inputs": ["1"], "outputs": []},
        {"fn_name": "f"},
        {"fn_name": "f", "cases": []},
        [{"input": "1"}],
        [{"input": "1", "output": "1"}, {"type": "function_call", "fn_name": "f", "input": [1], "output": 1}],
        ["assert f(1) == 2"],
        [{"input": ["1", "2"], "output": ["3"]}],
        [{"input": "1", "output": 3}],
        [{"type": "function_call", "fn_name": "f", "input": "ab", "output": 1}],
        "nonsense",
    ],
)
def test_tests_of_unknown_form_are_refused(tests: Any) -> None:
    with pytest.raises(ValueError, match="tests"):
        read_cases(tests)


def test_missing_limits_have_defaults() -> None:
    assert read_limits(None) == Limits()
    assert read_limits({"cpu": 1, "memory_mb": 256}) == Limits(cpu_s=1, wall_s=3, memory_bytes=256 << 20)


def test_program_runs_for_each_input_while_results_are_needed() -> None:
    runner, cases = Runner(echo), read_cases([{"input": "1", "output": text} for text in ("1", "2", "1")])
    asked = verdicts("code", cases, limits=Limits(), sandbox=runner)
    assert next(asked).correct
    assert next(asked).status == "wrong_answer"
    assert len(runner.runs) == 2
    assert [runs.function for runs in runner.runs] == [None, None]


def test_function_is_called_for_all_arguments_in_one_run() -> None:
    runner = Runner(lambda program: RunResult(status="ok", stdout=b"3\n8\n"))
    cases = read_cases({"fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}, {"args": ["a"], "expected": 7}]})
    found = list(verdicts("code", cases, limits=Limits(), sandbox=runner))
    assert [(verdict.correct, verdict.status) for verdict in found] == [(True, "ok"), (False, "wrong_answer")]
    (run,) = runner.runs
    assert (run.function, run.stdin) == ("f", b'[1, 2]\n["a"]\n')


def test_results_of_a_killed_run_do_not_count() -> None:
    runner = Runner(lambda program: RunResult(status="timeout", stdout=b"3\n"))
    cases = read_cases({"fn_name": "f", "cases": [{"args": [], "expected": 3}]})
    assert [(v.correct, v.status) for v in verdicts("c", cases, limits=Limits(), sandbox=runner)] == [
        (False, "timeout")
    ]


@pytest.mark.parametrize(
    ("end", "value", "status", "correct"),
    [
        (echo, 1.0, "ok", True),
        (lambda program: RunResult(status="ok", stdout=b""), 0.0, "wrong_answer", False),
        (lambda program: RunResult(status="memory", stdout=program.stdin), 0.0, "memory", False),
        (lambda program: RunResult(status="compile_error"), 0.0, "compile_error", False),
        (lambda program: RunResult(status="sandbox_error"), None, "sandbox_error", None),
    ],
)
def test_reward_of_a_completion(
    end: Any, value: float | None, status: str, correct: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_tests, "sandbox", lambda: Runner(end))
    asked = problem(verifier="code", payload={"tests": [{"input": "1\n", "output": "1"}]})
    (score,) = accuracy(asked, [completion("```python\nprint(input())\n```")], context())
    assert (score.value, score.status, score.correct) == (value, status, correct)


def test_completion_without_a_program_needs_no_sandbox() -> None:
    asked = problem(verifier="code", payload={"tests": [{"input": "1\n", "output": "1"}]})
    (score,) = accuracy(asked, [completion("print(1)")], context())
    assert (score.value, score.correct) == (0.0, False)


def test_missing_sandbox_ends_the_run() -> None:
    """Every other failure of a reward makes completions unusable and is retried; this one would fail forever."""
    scorer = make(RewardConfig.model_construct(components={"accuracy": RewardComponentConfig()}, truncated="score"))
    asked = problem(verifier="code", payload={"tests": [{"input": "1\n", "output": "1"}]})
    with pytest.raises(SandboxUnavailable, match="given no sandbox"):
        scorer.score(asked, [completion("```python\nprint(input())\n```")], context())


def test_sources_that_need_a_sandbox() -> None:
    def one_liners(kind: str) -> SourceConfig:
        return SourceConfig(source="one_liners", args={"kind": kind, "num_problems": 5})

    in_cpp = SourceConfig(source="rows", args={"verifier": "code", "verifier_args": {"language": "cpp"}})
    assert program_languages([one_liners("boxed"), one_liners("program")]) == {"python"}
    assert program_languages([SourceConfig(source="rows", args={"verifier": "code"})]) == {"python"}
    assert program_languages([one_liners("program"), in_cpp]) == {"python", "cpp"}
    assert not program_languages(
        [SourceConfig(source="rows", args={"verifier": "math", "verifier_args": {"language": "cpp"}})]
    )
    countdown = SourceConfig(source="countdown", args={"split": "train", "num_problems": 5})
    assert not program_languages([one_liners("boxed"), countdown, SourceConfig(source="rows")])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_one_liners_as_a_dataset(kind: str, language: str) -> None:
    cfg = SourceConfig(source="one_liners", args={"kind": kind, "language": language, "num_problems": 60, "seed": 3})
    loaded = load_source("mine", cfg)
    assert len(loaded.items) + loaded.counts["duplicates"] == 60
    assert {(item.verifier, item.language) for item in loaded.items} == {(VERIFIERS[kind], language)}
    task = KINDS[kind](np.random.default_rng([3, 0]))
    assert loaded.items[0].messages[0].content == task.question[language]


def test_unreadable_tests_are_found_when_rows_are_loaded(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    good = {"prompt": "double it", "answer": "", "tests": [{"input": "1", "output": "2"}]}
    graded = {**good, "prompt": "graded", "subtasks": [{"points": 1, "tests": [0]}]}
    bad = {**good, "prompt": "again", "tests": [{"input": 1, "output": 2}]}
    outside = {**good, "prompt": "outside", "subtasks": [{"points": 1, "tests": [1]}]}
    rows.write_text("\n".join(map(json.dumps, (good, graded, bad, outside))))
    loaded = load_source("mine", SourceConfig(source="rows", path=str(rows), args={"verifier": "code"}))
    assert [item.messages[0].content for item in loaded.items] == ["double it", "graded"]
    assert loaded.counts["unreadable"] == 2


def test_rows_with_cpp_programs(tmp_path: Path) -> None:
    """A column `language` is the language of the prompt."""
    rows = tmp_path / "rows.jsonl"
    whole = {"prompt": "double it", "answer": "", "language": "zh", "tests": [{"input": "1", "output": "2"}]}
    function = {**whole, "prompt": "f", "tests": {"fn_name": "f", "cases": [{"args": [1], "expected": 2}]}}
    rows.write_text("\n".join(map(json.dumps, (whole, function))))

    def load(**verifier_args: str) -> Any:
        args = {"verifier": "code", "verifier_args": verifier_args}
        return load_source("mine", SourceConfig(source="rows", path=str(rows), args=args))

    (item,) = load(language="cpp").items
    assert (item.language, item.payload["language"]) == ("zh", "cpp")
    assert [item.payload["language"] for item in load().items] == ["python", "python"]
    with pytest.raises(ValueError, match="'python' or 'cpp'"):
        load(language="java")


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="'boxed', 'choice'"):
        load_source("mine", SourceConfig(source="one_liners", args={"kind": "riddle", "num_problems": 5}))
