"""The format of rollout files, rollouts/step_000010.jsonl: what the model wrote in a step, one line per completion.

The first line of each group also holds the problem (`asked`), so that the file alone says how its completions were scored, and they
can be scored again (`r1ray.grade`) or their problems trained on again (`r1ray.data.mined`). `r1ray.run.log` writes the files.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.data.columns import as_list
from r1ray.reward.accuracy import VERIFIERS, answer_of
from r1ray.reward.answers import EXTRACTORS
from r1ray.types import Group, Ints, Message, Problem

NOT_RECORDED = {"id", "source", "prompt_ids_T"}
"""Fields of a problem that `asked` leaves out: the line has them under other keys, the prompt as text."""
MAX_ANSWER = 200


def lines_of(groups: Sequence[Group], *, decode: Callable[[Ints], str]) -> Iterator[str]:
    """A line for every completion, with its scores. `decode` turns a prompt's ids into the text that the model was given."""
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
            yield json.dumps(line, ensure_ascii=False) + "\n"


def record_of(problem: Problem) -> dict[str, Any]:
    """What is needed to score a completion of the problem, as JSON. What JSON cannot hold (a dataset's image) becomes null."""
    record = {field.name: getattr(problem, field.name) for field in fields(problem) if field.name not in NOT_RECORDED}
    record["messages"] = [{"role": message.role, "content": message.content} for message in problem.messages]
    return json.loads(json.dumps(record, default=lambda _: None))


def problem_of(line: Mapping[str, Any]) -> Problem:
    """The problem in the first line of a group; its `prompt_ids_T` is a placeholder of one token.

    Raises ValueError when `asked` is incomplete or names a verifier that is not r1ray's: a data file may not name code to import.
    """
    try:
        asked = line["asked"]
        messages = tuple(Message(**message) for message in asked["messages"])
        others = {"id": line["problem"], "source": line["source"], "prompt_ids_T": np.zeros(1, np.int32)}
        values: dict[str, Any] = {**asked, **others, "messages": messages}
        problem = Problem(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the record of its problem (asked) is incomplete: {error}") from error
    if problem.verifier not in VERIFIERS or problem.extract not in (None, *EXTRACTORS):
        raise ValueError(f"verifier {problem.verifier!r} or extract {problem.extract!r} is none of r1ray's own")
    return problem


def gold_of(problem: Problem) -> str | None:
    """The first reference answer of a problem; None where there is none, as for programs."""
    golds = as_list(problem.payload.get("answers"))
    return shortened(str(golds[0])) if golds else None


def shortened(answer: str) -> str:
    """A long answer (a program) is cut and gets a hash, so that different answers stay different."""
    if len(answer) <= MAX_ANSWER:
        return answer
    return f"{answer[:MAX_ANSWER]} #{hashlib.sha256(answer.encode(errors='replace')).hexdigest()[:12]}"


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Every line of a file without `asked`, because tests of programs may be large."""
    # Not splitlines: a completion may hold U+2028 and the like, which JSON leaves as they are.
    with path.open(newline="\n") as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        line.pop("asked", None)
    return lines


def rollout_file(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}.jsonl"


def rollout_steps(folder: Path) -> dict[int, Path]:
    """{step: file} of a folder, by step."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.jsonl"))}
