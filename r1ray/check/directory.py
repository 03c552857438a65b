"""Whether the run directory can be used: it is new, or it holds the run that resumes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from r1ray.check import plugins
from r1ray.config.view import StageView
from r1ray.mistakes import Mistake, show
from r1ray.run.directory import SUBMITTED, RunDir, changes, mapping_in

FIXED = ("model.path", "algo.name", "seed", "stages")
"""What a resumed run may not change."""


def run_directory(view: StageView) -> Iterator[Mistake]:
    run_dir, resume, raw = view.run_dir, view.resume, view.raw
    run = RunDir(Path(run_dir).expanduser())
    if SUBMITTED in os.environ and not run.path.is_absolute():
        rule = "would be deleted with the job: a submitted job runs in a temporary copy of its working directory"
        yield view.mistake("run_dir", rule, "run_dir=/SHARED/FOLDER, which every node has")
        return
    there = next(folder for folder in (run.path, *run.path.resolve().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        rule = f"{there} is not a writable folder"
        yield view.mistake("run_dir", rule, "run_dir=FOLDER with room for checkpoints")
        return
    if not run.config.exists():
        return
    if resume == "never":
        rule = "holds a run already, and nothing is ever overwritten"
        remedy = "resume=auto to resume it, or name=ANOTHER for a new one"
        yield view.mistake("run_dir", rule, remedy)
        return
    before_all = mapping_in(run.config)
    if before_all is None:
        rule = f"{run.config} is empty or not a configuration, so the run in this folder cannot be identified"
        remedy = "put that file back, or name=ANOTHER for a new run"
        yield view.mistake("run_dir", rule, remedy)
        return
    for key, (before, now) in changes(plugins.with_defaults(before_all), raw).items():
        # Stage fragments may change their numbers; which stages there are, and their order, may not.
        if key.startswith(FIXED) and ".config" not in key:
            yield _another_run(run_dir, key, before, now)
    # A stage's model must not change either: a checkpoint contains neither the reference nor the frozen weights under adapters.
    for key, (before, now) in changes(_models_of_stages(before_all), _models_of_stages(raw)).items():
        yield _another_run(run_dir, key, show(before), now)


def _another_run(run_dir: str, key: str, before: Any, now: Any) -> Mistake:
    rule = f"the run in {run_dir} was started with {before}, and cannot resume as another run"
    return Mistake(key=key, value=now, rule=rule, remedy=f"{key}={before}, or name=ANOTHER for a new run")


def _models_of_stages(raw: Mapping[str, Any]) -> dict[str, Any]:
    """{key: the model} of the stages whose fragment names one."""
    fragments = {name: _mapping(_mapping(stage).get("config")) for name, stage in _mapping(raw.get("stages")).items()}
    paths = {name: _mapping(fragment.get("model")).get("path") for name, fragment in fragments.items()}
    return {f"stages.{name}.config.model.path": path for name, path in paths.items()}


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
