"""Whether the run directory can be used: it is new, or it holds the run that resumes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from r1ray.config import LoraConfig, StageConfig
from r1ray.config.tree import laid_over, value_of
from r1ray.config.view import StageView
from r1ray.mistakes import Mistake, show
from r1ray.run.directory import RunDir, changes
from r1ray.trainers import OTHERS, TRAINERS, section_of

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the driver of a submitted job, and only there."""
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
        rule = f"{there} is not a folder one can write to"
        yield view.mistake("run_dir", rule, "run_dir=FOLDER with room for checkpoints")
        return
    if not run.config.exists():
        return
    if resume == "never":
        yield view.mistake(
            "run_dir",
            "holds a run already, and nothing is ever overwritten",
            "resume=auto to resume it, or name=ANOTHER for a new one",
        )
        return
    before_all = mapping_in(run.config)
    if before_all is None:
        rule = f"{run.config} is empty or no configuration, so it is unknown which run this was"
        remedy = "put that file back, or name=ANOTHER for a new run"
        yield view.mistake("run_dir", rule, remedy)
        return
    for key, (before, now) in changes(before_all, raw).items():
        # Stage fragments may change their numbers; which stages there are, and their order, may not.
        if key.startswith(FIXED) and ".config" not in key:
            yield _another_run(run_dir, key, before, now)
    # Nor the model they start from: neither the reference nor the weights below adapters are in a checkpoint.
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


def trainer_layout(view: StageView) -> Iterator[Mistake]:
    """What the trainers' shards in the latest checkpoint depend on must be as it was, where the stage resumes from one."""
    run = RunDir(Path(view.run_dir).expanduser())
    stage, tree = view.run.stages[view.name], view.raw
    latest = {name: run.stage(name).checkpoints / "latest" for name in view.run.stages}
    step, steps = (mapping_in(latest[view.name] / "state.json") or {}).get("step"), tree.get("steps")
    at_end = view.kind.reinforcement and isinstance(step, int) and isinstance(steps, int) and step >= steps
    finished = any(other.after == view.name and latest[after].exists() for after, other in view.run.stages.items())
    if finished or at_end:  # nothing is loaded
        return
    yield from _beginnings_of(run, view.name, tree, stage, latest[view.name])
    for role in TRAINERS:
        yield from _layout_of(role, latest[view.name], tree, stage)
    yield from _adapters_of(latest[view.name], tree, stage)


def _layout_of(role: str, checkpoint: Path, tree: Mapping[str, Any], stage: StageConfig) -> Iterator[Mistake]:
    """Of one trainer; a critic or process reward model takes what it does not set from the policy's section."""
    layout = mapping_in(checkpoint / section_of(role) / "layout.json") or {}
    trainer, own = (_mapping(tree.get(name)) for name in ("trainer", section_of(role)))
    now_there = {**trainer, **own, **(_mapping(own.get("overrides")) if role != "policy" else {})}
    for key, before in layout.items():
        now = now_there.get(key, before)
        if now == before:
            continue
        where = f"{section_of(role)}.{key}" if role == "policy" or key in own else f"{role}.overrides.{key}"
        yield _saved_otherwise(role, checkpoint, where, now, f"{before}", f"{where}={before}")


def _adapters_of(checkpoint: Path, tree: Mapping[str, Any], stage: StageConfig) -> Iterator[Mistake]:
    """With adapters, the policy's state is the state of the adapters."""
    layout, lora = mapping_in(checkpoint / "trainer" / "layout.json"), _mapping(tree.get("model")).get("lora")
    if layout is None:
        return
    try:
        now = None if lora is None else LoraConfig.model_validate(lora).model_dump()
    except ValidationError:  # reported by the schema
        return
    if now != layout.get("lora"):
        before, given = (show(value).replace("'", "") for value in (layout.get("lora"), now))
        yield _saved_otherwise("policy", checkpoint, "model.lora", given, before, f"'model.lora={before}'")


def _saved_otherwise(role: str, checkpoint: Path, where: str, now: Any, before: str, remedy: str) -> Mistake:
    rule = f"the {role}'s state in {checkpoint} was saved with {before}, and cannot be read with another value"
    model = f"model.path={checkpoint.resolve() / 'hf'}"
    return Mistake(key=where, value=now, rule=rule, remedy=f"{remedy}, or a new run: name=ANOTHER {model}")


def _beginnings_of(
    run: RunDir, name: str, tree: Mapping[str, Any], stage: StageConfig, checkpoint: Path
) -> Iterator[Mistake]:
    """The model that a critic or process reward model started from is in its state: another value would have no effect."""
    before_all = mapping_in(run.config) or {}
    before = laid_over(before_all, _mapping(value_of(before_all, f"stages.{name}.config")))
    for role in OTHERS:
        for key in (f"{role}.path", f"{role}.head_init"):
            was, now = value_of(before, key), value_of(tree, key)
            if was == now or not (checkpoint / role).exists():
                continue
            rule = f"the {role} in {checkpoint} started with {show(was)} and resumes from what it has learned"
            yield Mistake(key=key, value=now, rule=rule, remedy=f"{key}={show(was)}, or name=ANOTHER for a new run")


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def mapping_in(file: Path) -> dict[str, Any] | None:
    """What a YAML or JSON file holds; None when it holds no mapping or is not there."""
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
