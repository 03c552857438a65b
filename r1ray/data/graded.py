"""The input rows of `r1ray.grade` -> problems with their completions.

{"id": "a", "kind": "math_answer", "completion": "so \\\\boxed{7}", "gold": ["7"]}
{"id": "b", "kind": "stdin_stdout", "code": "print(input())", "tests": [{"input": "1\\n", "output": "1\\n"}], "limits": {"cpu": 2}}
{"id": "c", "kind": "function_call", "code": "...", "tests": {"fn_name": "f", "cases": [{"args": [1], "expected": 2}]}}
or the lines of a run's rollouts file (`r1ray.data.rollouts`), in which the completions of a problem are consecutive. Programs are
in Python or, with "language": "cpp", in C++17.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from r1ray.data.columns import as_object
from r1ray.data.rollouts import problem_of
from r1ray.data.schemas import golds, user
from r1ray.reward.code.cases import load_cases, read_floats, read_language, read_limits, read_subtasks
from r1ray.types import Completion, FinishReason, Ints, Problem

FORMS: Mapping[str, str] = {
    "math_answer": '{"kind": "math_answer", "completion": "so \\\\boxed{7}", "gold": ["7"]}',
    "stdin_stdout": '{"kind": "stdin_stdout", "code": "print(input())", "tests": [{"input": "1", "output": "1"}]}',
    "function_call": '{"kind": "function_call", "code": "def f(x): return x", '
    '"tests": {"fn_name": "f", "cases": [{"args": [1], "expected": 1}]}}',
}
"""{kind: a row of this kind, as JSON}; a program may also be "completion", a response that contains it."""
Tokenise = Callable[[str], Ints]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedRow:
    """One row. `recorded` is the earlier verdict that the row contains: any of reward, correct, parts."""

    line: int
    id: str
    problem: Problem
    completion: Completion
    recorded: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRow:
    """A row without a usable completion or without what is needed to score it."""

    line: int
    id: str | None
    reason: str


def read_graded(path: Path, *, tokenise: Tokenise) -> Iterator[list[GradedRow] | UnreadableRow]:
    """Every row of the file, in order, the completions of a group together; blank lines are skipped."""
    for problem, rows in groupby(
        _read(path, tokenise), key=lambda row: id(row.problem) if isinstance(row, GradedRow) else 0
    ):
        group = list(rows)
        if problem:
            yield cast("list[GradedRow]", group)
        else:
            yield from cast("list[UnreadableRow]", group)


def _read(path: Path, tokenise: Tokenise) -> Iterator[GradedRow | UnreadableRow]:
    last: Problem | None = None
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            row: dict[str, Any] = {}
            try:
                row = _object(raw)
                if "problem" in row and "kind" not in row:
                    last = _problem(row, last)
                    yield _rollout(row, last, line=line, tokenise=tokenise)
                else:
                    yield _own(row, line=line, tokenise=tokenise)
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                name = row.get("id", row.get("problem"))
                form = "" if "problem" in row and "kind" not in row else f". {accepted_form(row.get('kind'))}"
                yield UnreadableRow(
                    line=line, id=name if isinstance(name, str) else None, reason=f"line {line}: {error}{form}"
                )


def accepted_form(kind: Any) -> str:
    """A row of this kind, or of each one."""
    own = FORMS.get(kind) if isinstance(kind, str) else None
    return f"Accepted: {own or '  or  '.join(FORMS.values())}"


def _object(raw: bytes) -> dict[str, Any]:
    try:
        row = as_object(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if row is None:
        raise ValueError("it is not an object, {...}")
    return row


def _own(row: Mapping[str, Any], *, line: int, tokenise: Tokenise) -> GradedRow:
    """A row of one of the kinds of FORMS."""
    kind, name = row.get("kind"), row.get("id", str(line))
    if kind not in list(FORMS):
        known = f"kind {kind!r:.60} is not known" if "kind" in row else "it has no kind"
        raise ValueError(f"{known}; there are: {', '.join(FORMS)}")
    if not isinstance(name, str) or not _encodes(name):
        raise ValueError(f"id must be text, not {name!r:.60}")
    texts = {key: row[key] for key in ("completion", "code") if row.get(key) is not None}
    if len(texts) != 1 or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError('it needs one text: "completion", a response, or "code", a bare program')
    [(form, text)] = texts.items()
    if kind == "math_answer":
        tests = as_object(row.get("tests")) or {}
        verifier, payload = "math", golds(tests.get("gold") if row.get("gold") is None else row["gold"])
    else:
        language = read_language(row.get("language"))
        cases = load_cases(row.get("tests"), language=language, floats=read_floats(row.get("floats")))
        if (cases.function is None) != (kind == "stdin_stdout"):
            raise ValueError(f"its tests are not those of a {kind}")
        limits = row.get("limits")
        read_limits(limits)
        verifier = "code" if form == "completion" else "program"
        read_subtasks(row.get("subtasks"), num_tests=len(cases.inputs))
        others = {key: row[key] for key in ("subtasks", "checker", "floats") if row.get(key) is not None}
        payload = {"tests": row["tests"], "limits": limits, "language": language, **others}
    problem = Problem(
        id=name,
        source="rows",
        messages=user("-"),
        prompt_ids_T=np.zeros(1, np.int32),
        verifier=verifier,
        payload=payload,
    )
    completion = _completion(text, finish_reason="stop", tokenise=tokenise)
    return GradedRow(line=line, id=name, problem=problem, completion=completion, recorded=_recorded_verdict(row))


def _problem(row: Mapping[str, Any], last: Problem | None) -> Problem:
    """The problem of a line of a rollouts file. Only the first line of a group contains it, under `asked`."""
    if as_object(row.get("asked")) is not None:
        return problem_of(row)
    if last is None or last.id != row["problem"]:
        raise ValueError("the first line of its group is missing: only that line contains the problem (asked)")
    return last


def _rollout(row: Mapping[str, Any], problem: Problem, *, line: int, tokenise: Tokenise) -> GradedRow:
    finish_reason, text = row.get("finish_reason"), row.get("completion")
    if finish_reason not in get_args(FinishReason) or not isinstance(text, str):
        raise ValueError("a line of a rollouts file needs a completion and its finish_reason")
    completion = _completion(text, finish_reason=cast(FinishReason, finish_reason), tokenise=tokenise)
    name = f"{problem.id}#{row.get('index', line)}"
    return GradedRow(line=line, id=name, problem=problem, completion=completion, recorded=_recorded_verdict(row))


def _completion(text: str, *, finish_reason: FinishReason, tokenise: Tokenise) -> Completion:
    ids_T = tokenise(text)
    return Completion(
        token_ids_T=ids_T,
        rollout_logprobs_T=np.zeros(len(ids_T), np.float32),
        temperature=1.0,
        text=text,
        finish_reason=finish_reason,
        versions=(),
    )


def _recorded_verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {"parts": row.get("components"), **row}
    recorded = {key: found[key] for key in ("reward", "correct", "parts") if found.get(key) is not None}
    kinds: Mapping[str, Any] = {"reward": (int, float), "correct": bool, "parts": dict}
    wrong = {key: value for key, value in recorded.items() if not isinstance(value, kinds[key])}
    if wrong or not abs(cast(float, recorded.get("reward", 0))) <= 1e300:
        raise ValueError(f"{wrong or recorded!r:.80} is not a verdict that can be compared")
    return recorded


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
