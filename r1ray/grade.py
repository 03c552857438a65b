"""`python -m r1ray.grade IN.jsonl OUT.jsonl [overrides]`: score given completions with the rewards of a run, without a run.

    python -m r1ray.grade completions.jsonl scores.jsonl reward.local=true reward.num_workers=8
    python -m r1ray.grade runs/r1_zero/stages/rl/rollouts/step_000010.jsonl scores.jsonl --compare reward=r1_zero

`r1ray.data.graded` describes the rows of IN. OUT gets one row for each, in the same order: {"id", "reward", "status", "parts",
"seconds"}, with reward null if the scoring itself failed (a worker, a sandbox); {"id", "error"} for a row that cannot be
read. Overrides are those of `r1ray.main`; the default of the group `reward` is reward=accuracy.

Exit codes: 0 every row is scored; 1 some are not; 2 a mistake in the command, nothing was started.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from r1ray.check import ConfigError
from r1ray.check.load import load_rewards
from r1ray.cli import compose
from r1ray.config import Config
from r1ray.data.graded import GradedRow, Tokenise, UnreadableRow, read_graded
from r1ray.failures import PlacementError
from r1ray.model.files import folder_of
from r1ray.reward import reads_tokens
from r1ray.reward.base import RewardContext
from r1ray.sandbox.base import SandboxUnavailable
from r1ray.scoring import local_workers, scored
from r1ray.seeds import seed_of
from r1ray.types import Score

OutRow = dict[str, Any]
"""A row of OUT."""
SHOWN = 3
"""Broken rows that are printed; OUT has the reason of each."""
NO_SCORE = Score(reward=0.0, correct=None, components={}, statuses={}, usable=False, seconds=0.0)
"""Score of completions whose worker died or timed out."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="r1ray.grade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, metavar="IN.jsonl")
    parser.add_argument("scores", type=Path, metavar="OUT.jsonl")
    parser.add_argument("overrides", nargs="*", help="as for r1ray.main: reward=r1_zero reward.num_workers=8 ...")
    parser.add_argument("--compare", action="store_true", help="list the rows whose recorded scores changed")
    args = parser.parse_intermixed_args(arguments)
    try:
        cfg = _checked(args.rows, args.scores, args.overrides)
    except (ConfigError, OSError) as error:
        print(f"r1ray: {error}", file=sys.stderr)
        return 2
    try:
        return _grade(cfg, args.rows, args.scores, compare=args.compare)
    except (PlacementError, SandboxUnavailable, TimeoutError) as error:
        timeout = f"a worker returned no scores within {cfg.reward.timeout_s:.0f} s (reward.timeout_s)"
        print(f"r1ray: {timeout if isinstance(error, TimeoutError) else error}", file=sys.stderr)
        return 1


def _checked(rows: Path, scores: Path, overrides: Sequence[str]) -> Config:
    """Raises FileNotFoundError, FileExistsError, ConfigError."""
    if not rows.is_file():
        raise FileNotFoundError(f"there is no file {rows}")
    if scores.exists():
        raise FileExistsError(f"{scores} already exists and is not overwritten: remove it or choose another name")
    if not scores.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {scores.parent}")
    chosen = any(override.startswith("reward=") for override in overrides)
    return load_rewards(compose([*([] if chosen else ["reward=accuracy"]), *overrides]))


def _grade(cfg: Config, rows: Path, scores: Path, *, compare: bool) -> int:
    workers = local_workers
    if not cfg.reward.local:
        from r1ray.actors.scoring import ray_workers  # imports Ray, which takes seconds

        workers = ray_workers
    count = {"rows": 0, "correct": 0, "unusable": 0, "broken": 0, "compared": 0}
    changes, broken = list[str](), list[str]()
    with workers(cfg) as submit, scores.open("w") as out, _progress(rows) as advance:
        read = read_graded(rows, tokenise=_tokenizer(cfg))
        jobs = ((job, None if isinstance(job, UnreadableRow) else _arguments(job, cfg)) for job in read)
        for job, group_scores in scored(submit, jobs, num_workers=cfg.reward.num_workers):
            if isinstance(job, UnreadableRow):
                out_rows: list[OutRow] = [{"id": job.id, "error": job.reason}]
                count["broken"] += 1
                broken.append(job.reason)
            else:
                group_scores = group_scores or [NO_SCORE] * len(job)
                pairs = list(zip(job, group_scores, strict=True))
                out_rows = [_out_row(row, score) for row, score in pairs]
                count["correct"] += sum(bool(score.correct) for score in group_scores)
                count["unusable"] += sum(not score.usable for score in group_scores)
                count["compared"] += sum(bool(row.recorded) for row in job)
                changes += [change for row, score in pairs for change in _changes(row, score)]
            count["rows"] += len(out_rows)
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in out_rows)
            advance(len(out_rows))
    print("{rows} rows: {correct} correct, {unusable} not scored, {broken} broken".format(**count))
    print("".join(f"  {reason}\n" for reason in broken[:SHOWN]), end="")
    if compare:
        print("\n".join([*changes, f"{len(changes)} of {count['compared']} rows with earlier scores changed"]))
    return 1 if count["unusable"] or count["broken"] else 0


def _arguments(group: Sequence[GradedRow], cfg: Config) -> tuple[Any, ...]:
    problem = group[0].problem
    context = RewardContext(
        step=0, seed=seed_of(cfg.seed, problem.id, 0, 0, -1), max_response_length=cfg.rollout.max_response_length
    )
    return problem, [row.completion for row in group], context


def _out_row(row: GradedRow, score: Score) -> OutRow:
    return {
        "id": row.id,
        "reward": score.reward if score.usable else None,
        "status": score.statuses.get(row.problem.accuracy, "ok") if score.usable else "sandbox_error",
        "parts": dict(score.components),
        "seconds": round(score.seconds, 6),
    }


def _changes(row: GradedRow, score: Score) -> list[str]:
    """One line if the new scores differ from the recorded ones, else none; only components that are in both are compared."""
    before = row.recorded
    parts = before.get("parts") or {}
    pairs = {name: (parts[name], value) for name, value in score.components.items() if name in parts}
    if not parts and "reward" in before:
        pairs["reward"] = (before["reward"], score.reward)
    if "correct" in before:
        pairs["correct"] = (before["correct"], score.correct)
    new = [f"{name} {old} -> {now}" for name, (old, now) in pairs.items() if not _same(old, now)]
    return [f"line {row.line}, {row.id}: {', '.join(new)}"] if new else []


def _same(old: Any, now: Any) -> bool:
    numbers = isinstance(old, int | float) and isinstance(now, int | float)
    return math.isclose(old, now, abs_tol=1e-9) if numbers else old == now


def _tokenizer(cfg: Config) -> Tokenise:
    """The tokenizer of the model if a reward counts tokens (it takes seconds to load). It adds no tokens to the text."""
    if not reads_tokens(cfg.reward):
        return lambda _: np.zeros(0, np.int32)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(cfg.model.path))
    return lambda text: np.array(tokenizer.encode(text, add_special_tokens=False), np.int32)


@contextmanager
def _progress(rows: Path) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, otherwise nothing."""
    with rows.open("rb") as file:
        total = sum(1 for line in file if line.strip())
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("scored", total=total)
        yield lambda num: bar.advance(task, num)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
