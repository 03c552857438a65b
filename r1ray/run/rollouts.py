"""What the model wrote, step by step: rollouts/step_000010.jsonl, one line a reply.

The first reply of a group also carries the problem (`asked`), so that the file alone says how replies were judged and can be judged
again (`r1ray.grade`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.run.directory import write_atomically
from r1ray.types import Group, Ints, Message, Problem

NOT_RECORDED = {"id", "prompt_ids_T"}
"""Of a problem: they stand elsewhere in the line, the prompt as text."""


def write_rollouts(folder: Path, groups: Sequence[Group], *, step: int, decode: Callable[[Ints], str]) -> Path:
    """Every reply of the step with its scores. `decode` turns the prompt's ids into the text that the model was given."""
    lines = []
    for group in groups:
        prompt = decode(group.problem.prompt_ids_T)
        for index, (completion, score) in enumerate(zip(group.completions, group.scores, strict=True)):
            line = {
                "problem": group.problem.id,
                "index": index,
                "prompt": prompt,
                "completion": completion.text,
                "length": len(completion.token_ids_T),
                "finish": completion.finish,
                "reward": score.reward,
                "correct": score.correct,
                "usable": score.usable,
                "parts": dict(score.parts),
                "statuses": dict(score.statuses),
                "version": min((span.version for span in completion.versions), default=None),
            }
            if index == 0:
                line["asked"] = record_of(group.problem)
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def record_of(problem: Problem) -> dict[str, Any]:
    """What judges a reply to it, as JSON has it. What JSON cannot hold (an image of a dataset's) is left out."""
    record = {field.name: getattr(problem, field.name) for field in fields(problem) if field.name not in NOT_RECORDED}
    record["messages"] = [{"role": message.role, "content": message.content} for message in problem.messages]
    return json.loads(json.dumps(record, default=lambda _: None))


def problem_of(record: Mapping[str, Any], *, id: str) -> Problem:
    """The problem of a record, without the ids of its prompt."""
    messages = tuple(Message(**message) for message in record["messages"])
    return Problem(**{**record, "id": id, "messages": messages, "prompt_ids_T": np.zeros(1, np.int32)})


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    # Not splitlines: a reply may hold what Unicode calls the end of a line.
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def rollout_steps(folder: Path) -> dict[int, Path]:
    """{step: file}, in order."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.jsonl"))}
