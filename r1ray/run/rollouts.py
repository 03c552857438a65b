"""The completions of a step with their scores: rollouts/step_000010.jsonl, one line per completion.

The first line of a group also holds the problem (`asked`), so that the file alone is enough to score the completions
again (`r1ray.grade`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from r1ray.reward.accuracy import answer_of
from r1ray.run.files import read_jsonl, write_atomically
from r1ray.types import Group, Ints, Message, Problem

NOT_RECORDED = {"id", "source", "prompt_ids_T"}
"""Fields of a problem that the line has under other names, the prompt as text."""
MAX_ANSWER = 200


def write_rollouts(folder: Path, groups: Sequence[Group], *, step: int, decode: Callable[[Ints], str]) -> Path:
    """Write every completion of the step with its scores. `decode` turns the ids of a prompt into text."""
    lines: list[str] = []
    for group in groups:
        prompt = decode(group.problem.prompt_ids_T)
        for index, (completion, score) in enumerate(zip(group.completions, group.scores, strict=True)):
            answer = answer_of(group.problem, completion)
            line = {
                "problem": group.problem.id,
                "source": group.problem.source,
                "index": index,
                "prompt": prompt,
                "completion": completion.text,
                "length": len(completion.token_ids_T),
                "finish_reason": completion.finish_reason,
                "reward": score.reward,
                "correct": score.correct,
                "usable": score.usable,
                "components": dict(score.components),
                "statuses": dict(score.statuses),
                "version": min((span.version for span in completion.versions), default=None),
                "answer": None if answer is None else shortened(answer),
                "gold": gold_of(group.problem),
            }
            if index == 0:
                line["asked"] = record_of(group.problem)
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def record_of(problem: Problem) -> dict[str, Any]:
    """What is needed to verify completions of the problem, as JSON. Values that JSON cannot hold (an image) become null."""
    record = {field.name: getattr(problem, field.name) for field in fields(problem) if field.name not in NOT_RECORDED}
    record["messages"] = [{"role": message.role, "content": message.content} for message in problem.messages]
    return json.loads(json.dumps(record, default=lambda _: None))


def problem_of(line: Mapping[str, Any]) -> Problem:
    """The problem in the first line of a group, without the ids of its prompt."""
    record = {**line["asked"], "id": line["problem"], "source": line["source"]}
    messages = tuple(Message(**message) for message in record.pop("messages"))
    return Problem(**record, messages=messages, prompt_ids_T=np.zeros(1, np.int32))


def gold_of(problem: Problem) -> str | None:
    """The first reference answer of a problem; None if it has none (programs with tests)."""
    golds = problem.payload.get("answers")
    return shortened(str(cast(Sequence[Any], golds)[0])) if isinstance(golds, list | tuple) and golds else None


def shortened(answer: str) -> str:
    """Long answers (programs) are cut; a hash keeps different ones distinct."""
    if len(answer) <= MAX_ANSWER:
        return answer
    return f"{answer[:MAX_ANSWER]} #{hashlib.sha256(answer.encode(errors='replace')).hexdigest()[:12]}"


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Every completion, without `asked`: the tests of a program may be large."""
    lines = read_jsonl(path)
    for line in lines:
        line.pop("asked", None)
    return lines


def rollout_steps(folder: Path) -> dict[int, Path]:
    """{step: file}, by step."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.jsonl"))}
