"""What the model wrote, step by step: rollouts/step_000010.jsonl, one line a reply."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1ray.run.directory import write_atomically
from r1ray.types import Group, Ints


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
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rollout_steps(folder: Path) -> dict[int, Path]:
    """{step: file}, in order."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.jsonl"))}
