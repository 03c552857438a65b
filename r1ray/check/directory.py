"""Whether the run directory can be used: it is new, or it holds the run that resumes; and what that run resumes with."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from r1ray.check import plugins
from r1ray.config.view import StageView
from r1ray.mistakes import RESUME, Finding, Mistake, show
from r1ray.run.directory import IN_USE, SUBMITTED, RunDir, changes
from r1ray.run.found import configuration_of, last_steps
from r1ray.run.ownership import danger_in

FIXED = ("model.path", "algo.name", "seed", "stages")
"""What a resumed run may not change."""
OF_THE_START = ("name", "run_dir", "resume", "check", "fault")
"""What belongs to one start and not to the run."""
MAX_SHOWN = 20


def run_directory(view: StageView) -> Iterator[Finding]:
    run = RunDir(Path(view.run_dir).expanduser())
    if SUBMITTED in os.environ and not run.path.is_absolute():
        rule = "would be deleted with the job: a submitted job runs in a temporary copy of its working directory"
        yield view.mistake("run_dir", rule, "run_dir=/SHARED/FOLDER, which every node has")
        return
    there = next(folder for folder in (run.path, *run.path.resolve().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        rule = f"{there} is not a writable folder"
        yield view.mistake("run_dir", rule, "run_dir=FOLDER with room for checkpoints")
        return
    if run.path.exists():
        yield from _existing(run, view)
    elif view.resume == "auto":
        yield f"{RESUME}there is nothing to resume in {run.path}: a new run begins"


def _existing(run: RunDir, view: StageView) -> Iterator[Finding]:
    """A folder of that name: of a run in progress, of one that can resume, or of a start that failed, whose name is free again."""
    try:
        danger = danger_in(run)
    except OSError as error:
        rule = f"nothing can be written there: {error.strerror}"
        yield view.mistake("run_dir", rule, "make it writable, make room, or run_dir=FOLDER with room for checkpoints")
        return
    if run.in_use():
        yield view.mistake("run_dir", IN_USE, "wait until that run ends, stop it, or name=ANOTHER")
    elif danger is not None:
        yield view.mistake("run_dir", *danger)
    elif not (steps := last_steps(run)):
        if view.resume == "auto":
            yield f"{RESUME}there is no finished step in {run.path}: the run starts from the beginning"
    elif view.resume == "never":
        reached = ", ".join(f"stage {name} reached step {step}" for name, step in steps.items())
        rule = f"holds a run already ({reached}), and nothing is ever overwritten"
        yield view.mistake("run_dir", rule, "resume=auto to resume it, or name=ANOTHER for a new one")
    else:
        yield from _resumed(run, view)


def _resumed(run: RunDir, view: StageView) -> Iterator[Finding]:
    before = configuration_of(run)
    if before is None:
        yield f"{RESUME}{run.config} is lost: it cannot be said which keys differ from before"
        return
    found = changes(plugins.with_defaults(before), view.raw)
    for key, (was, now) in found.items():
        # Stage fragments may change their numbers; which stages there are, and their order, may not.
        if key.startswith(FIXED) and ".config" not in key:
            yield _another_run(view.run_dir, key, was, now)
    # A stage's model must not change either: a checkpoint contains neither the reference nor the frozen weights under adapters.
    for key, (was, now) in changes(_models_of_stages(before), _models_of_stages(view.raw)).items():
        yield _another_run(view.run_dir, key, show(was), now)
    differ = [key for key in found if key.partition(".")[0] not in OF_THE_START and not key.startswith(FIXED)]
    differ += [key for key in found if key.startswith("stages.") and ".config" in key]
    for key in differ[:MAX_SHOWN]:
        was, now = found[key]
        yield f"{RESUME}{key} was {show(was)} and is now {show(now)}"
    if len(differ) > MAX_SHOWN:
        yield f"{RESUME}{len(differ) - MAX_SHOWN} more keys differ: events.jsonl has all of them (run_resumed)"


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
