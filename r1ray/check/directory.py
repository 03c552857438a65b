"""Whether the run directory can be used: new, or the one of a run that goes on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from r1ray.check.mistakes import Mistake
from r1ray.run.directory import RunDir, changes

FIXED = ("model.path", "algo.name", "seed", "stages")
"""A run that goes on with another of these would be another run."""


def run_directory(run_dir: str, resume: str, raw: dict[str, Any]) -> Iterator[Mistake]:
    run = RunDir(Path(run_dir).expanduser())
    there = next(folder for folder in (run.path, *run.path.resolve().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        rule = f"{there} is not a folder one can write to"
        yield Mistake(key="run_dir", value=run_dir, rule=rule, remedy="run_dir=FOLDER with room for checkpoints")
        return
    if not run.config.exists():
        return
    if resume == "never":
        yield Mistake(
            key="run_dir",
            value=run_dir,
            rule="holds a run already, and nothing is ever overwritten",
            remedy="resume=auto to go on with it, or name=ANOTHER for a new one",
        )
        return
    for key, (before, now) in changes(yaml.safe_load(run.config.read_text()), raw).items():
        # Stage fragments may change their numbers; which stages there are, and their order, may not.
        if key.startswith(FIXED) and ".config" not in key:
            rule = f"the run in {run_dir} was started with {before}, and cannot go on as another run"
            yield Mistake(key=key, value=now, rule=rule, remedy=f"{key}={before}, or name=ANOTHER for a new run")
