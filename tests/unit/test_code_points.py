"""Rewards that give programs a share of the points, and how often a test is run for all of them. The sandbox is faked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import reward_samples
from reward_samples import completion, context, problem

from r1ray.config import RewardComponentConfig, RewardConfig
from r1ray.reward import REWARDS, make
from r1ray.reward.code import problem_tests
from r1ray.reward.code.cases import Subtask, read_subtasks
from r1ray.reward.code.verdicts import Verdict
from r1ray.sandbox.base import Program, RunResult
from r1ray.types import Problem, Status

SUBTASKS = [{"points": 10, "tests": [0, 1]}, {"points": 20, "tests": [1, 2]}, {"points": 30, "tests": [3]}]
RUNS: dict[str, Callable[[bytes], RunResult]] = {
    "all": lambda stdin: RunResult(status="ok", stdout=stdin),
    "none": lambda stdin: RunResult(status="ok", stdout=b"?"),
    "not 2": lambda stdin: RunResult(status="timeout") if stdin == b"2" else RunResult(status="ok", stdout=stdin),
    "broken at 2": lambda stdin: RunResult(status="sandbox_error" if stdin == b"2" else "ok", stdout=stdin),
}
"""Programs by their behaviour on the inputs 0 to 3, which they have to print."""


class Runner:
    """A fake of the sandbox."""

    def __init__(self) -> None:
        self.inputs: list[tuple[str, bytes]] = []

    def run(self, program: Program) -> RunResult:
        name = program.code.decode().strip()
        self.inputs.append((name, program.stdin))
        return RUNS[name](program.stdin)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    there = Runner()
    monkeypatch.setattr(problem_tests, "sandbox", lambda: there)
    return there


def graded(**payload: Any) -> Problem:
    tests = [{"input": str(n), "output": str(n)} for n in range(4)]
    return problem(verifier="code", payload={"tests": tests, "subtasks": SUBTASKS} | payload)


def response(program: str) -> str:
    return f"```python\n{program}\n```"


def given(name: str, *texts: str, asked: Problem | None = None, **args: Any) -> list[tuple[Any, ...]]:
    scores = reward_samples.given(
        REWARDS[name], asked or graded(), [completion(text) for text in texts], context(), **args
    )
    return [(score.value, score.status, score.correct) for score in scores]


ALL, NONE, SOME, BROKEN = (response(program) for program in RUNS)
FAILED = (None, "sandbox_error", None)


@pytest.mark.parametrize(
    ("name", "args", "values"),
    [
        ("code_fraction", {}, (1.0, 0.0, 0.75, 0.0)),
        ("code_fraction", {"threshold": 0.99}, (1.0, 0.0, 0.0, 0.0)),
        ("code_fraction", {"threshold": 0.7}, (1.0, 0.0, 1.0, 0.0)),
        ("codeforces", {}, (1.1, 0.0, 0.075, -1.0)),
        ("codeforces", {"mode": "partial"}, (1.0, 0.0, 0.75, -1.0)),
        ("codeforces", {"mode": "pass_fail"}, (1.0, 0.0, 0.0, -1.0)),
        ("ioi", {}, (1.0, 0.0, 40 / 60, 0.0)),
        ("test_difficulty", {}, (1.0, 0.0, 10 / 60, 0.0)),
        ("test_difficulty", {"scheme": "soft"}, (1.0, 0.0, 50 / 60, 0.0)),
    ],
)
def test_program_rewards(name: str, args: dict[str, Any], values: Sequence[float], runner: Runner) -> None:
    whole, wrong, partly, no_program = given(name, ALL, NONE, SOME, "no program", **args)
    assert (whole[0], wrong[0], partly[0], no_program[0]) == pytest.approx(values)
    assert (whole[1:], wrong[1:], no_program[1:]) == (("ok", True), ("wrong_answer", False), ("wrong_answer", False))
    assert partly[1:] == ("timeout", False)
    assert given(name, ALL, BROKEN, **args) == [whole, FAILED]


def test_only_the_first_tests_are_run(runner: Runner) -> None:
    assert given("code_fraction", SOME, BROKEN, num_tests=2) == [(1.0, "ok", True)] * 2
    assert given("code_fraction", SOME, num_tests=3) == [(pytest.approx(2 / 3), "timeout", False)]
    assert given("code_fraction", ALL, num_tests=100) == [(1.0, "ok", True)]


def test_program_that_does_not_compile_gets_0(monkeypatch: pytest.MonkeyPatch) -> None:
    status: Status = "compile_error"
    monkeypatch.setattr(problem_tests, "sandbox", lambda: None)
    monkeypatch.setattr(
        problem_tests, "verdicts", lambda *_, **__: iter([Verdict(correct=False, status=status) for _ in range(4)])
    )
    assert given("codeforces", ALL) == [(-0.1, "compile_error", False)]
    assert given("code_fraction", ALL) == [(0.0, "compile_error", False)]


@pytest.mark.parametrize("name", ["code_fraction", "codeforces", "ioi", "test_difficulty"])
def test_program_rewards_do_not_apply_to_other_problems(name: str) -> None:
    assert given(name, ALL, "7", asked=problem()) == [(None, "ok", None)] * 2


@pytest.mark.parametrize("subtasks", [None, [], "[]"])
def test_points_need_subtasks(subtasks: Any, runner: Runner) -> None:
    assert given("ioi", ALL, asked=graded(subtasks=subtasks)) == [(None, "ok", None)]
    assert given("test_difficulty", ALL, SOME, asked=graded(subtasks=subtasks)) == [
        (1.0, "ok", True),
        (0.0, "timeout", False),
    ]
    assert given("test_difficulty", SOME, scheme="soft", asked=graded(subtasks=subtasks)) == [(0.75, "timeout", False)]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("code_fraction", {"num_tests": 0}),
        ("code_fraction", {"threshold": 1.0}),
        ("codeforces", {"mode": "sum"}),
        ("test_difficulty", {"scheme": "hard"}),
    ],
)
def test_invalid_arguments_are_refused(name: str, args: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(args))):
        given(name, ALL, **args)


def score(asked: Problem, *texts: str, components: Sequence[str]) -> list[Any]:
    scorer = make(
        RewardConfig.model_construct(
            components={component: RewardComponentConfig() for component in components}, truncated="score"
        )
    )
    return list(scorer.score(asked, [completion(text) for text in texts], context()))


def test_every_test_of_a_program_runs_once_for_all_rewards(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[Any]()
    read = problem_tests.read_cases
    monkeypatch.setattr(
        problem_tests, "read_cases", lambda tests, **kwargs: reads.append(tests) or read(tests, **kwargs)
    )
    scores = score(graded(), SOME, ALL, SOME, components=("accuracy", "code_fraction", "codeforces", "ioi"))
    assert [s.components["accuracy"] for s in scores] == [0.0, 1.0, 0.0]
    assert [s.components["code_fraction"] for s in scores] == [0.75, 1.0, 0.75]
    assert sorted(runner.inputs) == sorted((name, b"%d" % n) for name in ("all", "not 2") for n in range(4))
    assert len(reads) == 1


def test_all_or_nothing_reward_stops_at_the_first_failure(runner: Runner) -> None:
    (wrong,) = score(graded(), SOME, components=("accuracy",))
    assert (wrong.correct, len(runner.inputs)) == (False, 3)


def test_sandbox_failure_is_not_cached(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = graded()
    (failed,) = score(asked, BROKEN, components=("accuracy",))
    assert (failed.usable, failed.components["accuracy"]) == (False, None)
    monkeypatch.setitem(RUNS, "broken at 2", RUNS["all"])
    (again,) = score(asked, BROKEN, components=("accuracy", "code_fraction"))
    assert (again.usable, again.correct, again.components["code_fraction"]) == (True, True, 1.0)


def test_run_that_ends_early_passes_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_tests, "sandbox", lambda: None)
    monkeypatch.setattr(problem_tests, "verdicts", lambda *_, **__: iter([Verdict(correct=True, status="ok")]))
    (failed,) = score(graded(), ALL, components=("accuracy",))
    assert (failed.usable, failed.correct) == (False, None)


def test_another_group_of_the_same_problem_is_not_cached(runner: Runner) -> None:
    for _ in range(2):
        score(graded(), ALL, components=("accuracy",))
    assert len(runner.inputs) == 8


def test_subtasks_are_read() -> None:
    assert read_subtasks('[{"points": 0.5, "tests": [1, 0]}]', num_tests=2) == (Subtask(points=0.5, tests=(1, 0)),)
    assert read_subtasks(None, num_tests=2) == ()


@pytest.mark.parametrize(
    "subtasks",
    [
        "nonsense",
        {"points": 1, "tests": [0]},
        [[1, [0]]],
        [{"points": 1}],
        [{"points": 1, "tests": []}],
        [{"points": 1, "tests": 0}],
        [{"points": 1, "tests": [2]}],
        [{"points": 1, "tests": [-1]}],
        [{"points": 1, "tests": [0, 0]}],
        [{"points": 1, "tests": [True]}],
        [{"points": 1, "tests": [0.0]}],
        [{"points": -1, "tests": [0]}],
        [{"points": "1", "tests": [0]}],
        [{"points": float("nan"), "tests": [0]}],
        [{"points": 0, "tests": [0]}],
        7,
    ],
)
def test_malformed_subtasks_are_refused(subtasks: Any) -> None:
    with pytest.raises(ValueError, match="subtasks"):
        read_subtasks(subtasks, num_tests=2)


def test_bare_program_is_scored_by_every_program_reward(runner: Runner) -> None:
    bare = replace(graded(), verifier="program")
    assert given("code_fraction", "not 2", asked=bare) == [(0.75, "timeout", False)]
    assert given("accuracy", "all", asked=bare) == [(1.0, "ok", True)]
