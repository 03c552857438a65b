"""What the model wrote, step by step: rollouts/step_000010.jsonl, one line a completion.

The first completion of a group also carries the problem (`asked`), so that the file alone says how completions were judged and
can be judged again (`r1ray.grade`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.reward.accuracy import answer_of
from r1ray.run.directory import write_atomically
from r1ray.types import Group, Ints, Message, Problem

NOT_RECORDED = {"id", "source", "prompt_ids_T"}
"""Of a problem: they stand elsewhere in the line, the prompt as text."""
MAX_ANSWER = 200


def write_rollouts(folder: Path, groups: Sequence[Group], *, step: int, decode: Callable[[Ints], str]) -> Path:
    """Every completion of the step with its scores. `decode` turns the prompt's ids into the text that the model was given."""
    lines = []
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
                "answer": None if answer is None else in_short(answer),
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
    """What judges a completion to it, as JSON has it. What JSON cannot hold (an image of a dataset's) is left out."""
    record = {field.name: getattr(problem, field.name) for field in fields(problem) if field.name not in NOT_RECORDED}
    record["messages"] = [{"role": message.role, "content": message.content} for message in problem.messages]
    return json.loads(json.dumps(record, default=lambda _: None))


def problem_of(line: Mapping[str, Any]) -> Problem:
    """The problem of the first line of a group, without the ids of its prompt."""
    asked = line["asked"]
    others = {"id": line["problem"], "source": line["source"], "prompt_ids_T": np.zeros(1, np.int32)}
    return Problem(**{**asked, **others, "messages": tuple(Message(**message) for message in asked["messages"])})


def gold_of(problem: Problem) -> str | None:
    """The first solution of a problem that comes with some; None for programs and others that are judged otherwise."""
    golds = problem.payload.get("answers")
    return in_short(str(golds[0])) if isinstance(golds, list | tuple) and golds else None


def in_short(answer: str) -> str:
    """Long answers (programs) are cut, and still told apart."""
    if len(answer) <= MAX_ANSWER:
        return answer
    return f"{answer[:MAX_ANSWER]} #{hashlib.sha256(answer.encode(errors='replace')).hexdigest()[:12]}"


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Every completion, without what it was `asked`: tests of programs may be large."""
    # Not splitlines: a completion may hold U+2028 and the like, which JSON leaves as they are.
    with path.open(newline="\n") as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        line.pop("asked", None)
    return lines


def rollout_steps(folder: Path) -> dict[int, Path]:
    """{step: file}, in order."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.jsonl"))}
