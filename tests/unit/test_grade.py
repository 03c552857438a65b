"""`r1ray.grade`: reading rows, scoring them, and the output of the command."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_samples import completion, problem

from r1ray.data.graded import FORMS, UnreadableRow, read_graded
from r1ray.grade import main
from r1ray.run.log import write_rollouts
from r1ray.types import Group, Score

MATHS = {"id": "m", "kind": "math_answer", "completion": "\\boxed{7}", "gold": ["7"]}
CASES = {"fn_name": "f", "cases": [{"args": [1], "expected": 2}]}


def nothing(_: str) -> Any:
    return np.zeros(0, np.int32)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def why_not(tmp_path: Path, row: Any) -> str:
    [broken] = read_graded(written(tmp_path / "in.jsonl", row), tokenise=nothing)
    assert isinstance(broken, UnreadableRow)
    return broken.reason


def test_each_kind_names_its_verifier(tmp_path: Path) -> None:
    lines = [
        MATHS,
        MATHS,
        {**MATHS, "gold": None, "tests": {"gold": "7"}},
        {"kind": "stdin_stdout", "code": "print(1)", "tests": [{"input": "", "output": "1"}]},
        {"kind": "function_call", "completion": "```python\n1\n```", "tests": CASES, "limits": {"cpu": 2}},
    ]
    groups = list(read_graded(written(tmp_path / "in.jsonl", *lines), tokenise=nothing))
    assert all(
        isinstance(group, list) and len(group) == 1 for group in groups
    )  # equal rows that follow each other are no group
    problems = [group[0].problem for group in groups if isinstance(group, list)]
    assert [problem.verifier for problem in problems] == ["math", "math", "math", "program", "code"]
    assert problems[0].payload == problems[2].payload == {"answers": ["7"]}
    assert [group[0].id for group in groups if isinstance(group, list)] == ["m", "m", "m", "4", "5"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"id": "a"', "not JSON"),
        ("[1]", "not an object"),
        ({**MATHS, "kind": "maths"}, "there are: math_answer"),
        (
            {"completion": "7", "gold": "7"},
            'it has no kind; there are: math_answer, stdin_stdout, function_call. Accepted: {"kind": ',
        ),
        ({**MATHS, "kind": ["math_answer"]}, "is not known"),
        ({**MATHS, "gold": []}, 'no usable answer in []. Accepted: {"kind": "math_answer", "completion": '),
        ({**MATHS, "gold": None}, "no usable answer"),
        ({**MATHS, "completion": None}, "one text"),
        ({**MATHS, "code": "7"}, "one text"),
        ({**MATHS, "id": 7}, "id must be text"),
        ({"kind": "stdin_stdout", "code": "1"}, "tests have none of the known forms"),
        ({"kind": "function_call", "code": "1", "tests": CASES, "language": "cpp"}, "C++ programs are run as a whole"),
        ({"kind": "function_call", "code": "1", "tests": CASES, "language": "ada"}, "must be one of python, cpp"),
        ({"kind": "stdin_stdout", "code": "1", "tests": CASES}, "not those of a stdin_stdout"),
        (
            {"kind": "function_call", "code": "1", "tests": CASES, "limits": {"cpu": "much"}},
            "limits.cpu='much' must be a number",
        ),
        ({"kind": "function_call", "code": "1", "tests": CASES, "limits": {"cpu": -1}}, "more than 0"),
        ({"kind": "function_call", "code": "1", "tests": CASES, "limits": {"memory_mb": 1e400}}, "more than 0"),
        ({"kind": "function_call", "code": "1", "tests": CASES, "limits": "abc"}, "limits='abc'"),
        ({"kind": "function_call", "code": "1", "tests": {**CASES, "fn_name": "1"}}, "not the name of a function"),
        ({**MATHS, "id": "\ud800"}, "id must be text"),
        ({**MATHS, "parts": ["accuracy"]}, "not a verdict that can be compared"),
        (
            '{"kind": "math_answer", "completion": "1", "gold": "1", "reward": 1' + "0" * 400 + "}",
            "not a verdict that can be compared",
        ),
        (
            {"problem": "p", "source": "s", "asked": {"messages": [], "verifier": "os:system", "payload": {}}},
            "none of r1ray's own",
        ),
        (
            {
                "problem": "p",
                "source": "s",
                "asked": {"messages": [], "verifier": "math", "payload": {}, "extract": "os:system"},
            },
            "none of r1ray's own",
        ),
        ({"problem": "p", "completion": "a", "finish_reason": "stop"}, "first line of its group"),
        ({"problem": "p", "completion": "a", "asked": {"messages": []}}, "is incomplete: 'source'"),
    ],
)
def test_a_broken_row_is_reported_with_line_and_reason(tmp_path: Path, row: Any, says: str) -> None:
    why = why_not(tmp_path, row)
    assert why.startswith("line 1: ") and says in why
    assert ("Accepted: " in why) == ("problem" not in row), (
        "a row of our own shows the form, a line of a run has no other"
    )


def test_bytes_that_are_not_utf8_break_only_their_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n\n' + json.dumps(MATHS).encode())
    broken, group = read_graded(path, tokenise=nothing)
    assert isinstance(broken, UnreadableRow) and broken.line == 1
    assert isinstance(group, list) and group[0].line == 3


def recorded(tmp_path: Path) -> Path:
    """Two groups of a run; the recorded score of the last completion is wrong."""
    right = Score(
        reward=1.0, correct=True, components={"accuracy": 1.0}, statuses={"accuracy": "ok"}, usable=True, seconds=0
    )
    wrong = Score(
        reward=0.0,
        correct=False,
        components={"accuracy": 0.0},
        statuses={"accuracy": "wrong_answer"},
        usable=True,
        seconds=0,
    )
    groups = [
        Group(
            problem=problem(id=name, verifier="math", payload={"answers": ["7"]}),
            completions=(completion("\\boxed{7}"), completion("\\boxed{8}", finish_reason="length")),
            scores=scores,
        )
        for name, scores in (("p", (right, wrong)), ("q", (right, right)))
    ]
    return write_rollouts(tmp_path, groups, step=1, decode=lambda _: "prompt")


def test_a_rollouts_file_is_read_by_groups(tmp_path: Path) -> None:
    groups = [group for group in read_graded(recorded(tmp_path), tokenise=nothing) if isinstance(group, list)]
    assert [[response.id for response in group] for group in groups] == [["p#0", "p#1"], ["q#0", "q#1"]]
    assert [response.completion.finish_reason for response in groups[0]] == ["stop", "length"]
    assert groups[1][1].problem.payload == {"answers": ["7"]}


def test_rows_are_scored_in_order_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = written(tmp_path / "mine.jsonl", MATHS, "broken", {**MATHS, "gold": "8", "id": "n"}, *[MATHS] * 20)
    out = tmp_path / "out.jsonl"
    assert main([str(mine), str(out), "reward.local=true", "reward.num_workers=1"]) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows[:4]] == ["m", None, "n", "m"] and len(rows) == 23
    assert rows[0] == {
        "id": "m",
        "reward": 1.0,
        "status": "ok",
        "parts": {"accuracy": 1.0},
        "seconds": rows[0]["seconds"],
    }
    assert rows[1]["error"].startswith("line 2: ")
    assert (rows[2]["reward"], rows[2]["status"]) == (0.0, "wrong_answer")
    assert f"23 rows: 21 correct, 0 not scored, 1 broken\n  {rows[1]['error']}\n" in capsys.readouterr().out

    again = tmp_path / "again.jsonl"
    arguments = [str(recorded(tmp_path)), str(again), "--compare", "reward.local=true", "reward.num_workers=1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "line 4, q#1: accuracy 1.0 -> 0.0, correct True -> False" in said
    assert "1 of 4 rows with earlier scores changed" in said


def test_mistakes_in_the_command_are_reported_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = written(tmp_path / "mine.jsonl", MATHS), tmp_path / "out.jsonl"
    assert main([str(tmp_path / "none.jsonl"), str(out)]) == 2
    assert main([str(mine), str(out), "reward.components.accuracy.wieght=1"]) == 2
    assert "did you mean reward.components.accuracy.weight?" in capsys.readouterr().err
    assert not out.exists()
    out.write_text("kept")
    assert main([str(mine), str(out)]) == 2
    assert out.read_text() == "kept"


def hanging(problem: Any, completions_G: Any, context: Any) -> list[float]:
    """A reward that hangs on some completions and dies on others."""
    for response in completions_G:
        if response.text == "hang":
            time.sleep(600)
        if response.text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
    return [1.0] * len(completions_G)


def test_a_row_that_hangs_or_kills_its_worker_loses_only_its_own_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    texts = ["a", "hang", "b", "die", "c", "d"]
    mine = written(tmp_path / "mine.jsonl", *[{**MATHS, "id": text, "completion": text} for text in texts])
    out = tmp_path / "out.jsonl"
    overrides = ["reward.local=true", "reward.num_workers=2", "reward.timeout_s=8"]
    assert main([str(mine), str(out), *overrides, "reward.components={accuracy: {name: 'test_grade:hanging'}}"]) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"]: row["reward"] for row in rows} == {t: None if t in ("hang", "die") else 1.0 for t in texts}


def test_the_forms_that_errors_show_are_read(tmp_path: Path) -> None:
    rows = read_graded(written(tmp_path / "in.jsonl", *FORMS.values()), tokenise=nothing)
    assert [group[0].problem.verifier for group in rows if isinstance(group, list)] == ["math", "program", "program"]
