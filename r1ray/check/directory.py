"""Whether the run directory can be used: new, or the one of a run that goes on."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from r1ray.check.mistakes import Mistake, show
from r1ray.check.stages import has, laid_over, value_of
from r1ray.config import LoraConfig, StageConfig
from r1ray.roles import AUXILIARY_TRAINERS, TRAINERS, section_of
from r1ray.run.directory import RunDir, changes

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the driver of a submitted job, and only there."""
FIXED = ("model.path", "algo.name", "seed", "stages")
"""A run that goes on with another of these would be another run."""


def run_directory(run_dir: str, resume: str, raw: dict[str, Any]) -> Iterator[Mistake]:
    run = RunDir(Path(run_dir).expanduser())
    if SUBMITTED in os.environ and not run.path.is_absolute():
        rule = "would be lost: a submitted job runs in a temporary copy of its working directory"
        yield Mistake(key="run_dir", value=run_dir, rule=rule, remedy="run_dir=/SHARED/FOLDER, which every node has")
        return
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
    before_all = mapping_in(run.config)
    if before_all is None:
        rule = f"{run.config} is empty or not what a run writes, so nobody knows which run this was"
        remedy = "put that file back, or name=ANOTHER for a new run"
        yield Mistake(key="run_dir", value=run_dir, rule=rule, remedy=remedy)
        return
    for key, (before, now) in changes(before_all, raw).items():
        # Stage fragments may change their numbers; which stages there are, and their order, may not.
        if key.startswith(FIXED) and ".config" not in key:
            yield _another_run(run_dir, key, before, now)
    # Nor what they begin from: the reference and what adapters stand beside are no part of a checkpoint.
    for key, (before, now) in changes(_models_of_stages(before_all), _models_of_stages(raw)).items():
        yield _another_run(run_dir, key, show(before), now)


def _another_run(run_dir: str, key: str, before: Any, now: Any) -> Mistake:
    rule = f"the run in {run_dir} was started with {before}, and cannot go on as another run"
    return Mistake(key=key, value=now, rule=rule, remedy=f"{key}={before}, or name=ANOTHER for a new run")


def _models_of_stages(raw: Mapping[str, Any]) -> dict[str, Any]:
    """{key: the model} of the stages whose fragment names one."""
    fragments = {name: _mapping(_mapping(stage).get("config")) for name, stage in _mapping(raw.get("stages")).items()}
    paths = {name: _mapping(fragment.get("model")).get("path") for name, fragment in fragments.items()}
    return {f"stages.{name}.config.model.path": path for name, path in paths.items()}


def trainer_layout(
    run_dir: str, stages: Mapping[str, StageConfig], trees: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mistake]:
    """What the trainer's shards in the latest checkpoint depend on must be as it was, in every stage that goes on from one.

    `trees` holds each stage's whole configuration as plain values.
    """
    run = RunDir(Path(run_dir).expanduser())
    latest = {name: run.stage(name).checkpoints / "latest" for name in stages}
    for name, stage in stages.items():
        tree = trees[name]
        step, steps = (mapping_in(latest[name] / "state.json") or {}).get("step"), tree.get("steps")
        at_end = stage.kind == "rl" and isinstance(step, int) and isinstance(steps, int) and step >= steps
        finished = any(other.after == name and latest[after].exists() for after, other in stages.items())
        if not finished and not at_end:  # else nothing is loaded
            yield from _beginnings_of(run, name, tree, stage, latest[name])
            for role in TRAINERS:
                yield from _layout_of(role, latest[name], tree, stage, f"stages.{name}.config.")
            yield from _adapters_of(latest[name], tree, stage, f"stages.{name}.config.")


def _layout_of(
    role: str, checkpoint: Path, tree: Mapping[str, Any], stage: StageConfig, prefix: str
) -> Iterator[Mistake]:
    """One trainer's; of a critic or a process reward model what it does not say itself is the policy's."""
    layout = mapping_in(checkpoint / section_of(role) / "layout.json") or {}
    trainer, own = (_mapping(tree.get(name)) for name in ("trainer", section_of(role)))
    now_there = {**trainer, **own, **(_mapping(own.get("overrides")) if role != "policy" else {})}
    for key, before in layout.items():
        now = now_there.get(key, before)
        if now == before:
            continue
        where = f"{section_of(role)}.{key}" if role == "policy" or key in own else f"{role}.overrides.{key}"
        where = f"{prefix}{where}" if has(stage.config, where) else where
        yield _saved_otherwise(role, checkpoint, where, now, f"{before}", f"{where}={before}")


def _adapters_of(checkpoint: Path, tree: Mapping[str, Any], stage: StageConfig, prefix: str) -> Iterator[Mistake]:
    """The policy's state is that of its adapters, where it has any."""
    layout, lora = mapping_in(checkpoint / "trainer" / "layout.json"), _mapping(tree.get("model")).get("lora")
    if layout is None:
        return
    try:
        now = None if lora is None else LoraConfig.model_validate(lora).model_dump()
    except ValidationError:  # which is said elsewhere
        return
    if now != layout.get("lora"):
        before, given = (show(value).replace("'", "") for value in (layout.get("lora"), now))
        where = f"{prefix}model.lora" if has(stage.config, "model.lora") else "model.lora"
        yield _saved_otherwise("policy", checkpoint, where, given, before, f"'{where}={before}'")


def _saved_otherwise(role: str, checkpoint: Path, where: str, now: Any, before: str, remedy: str) -> Mistake:
    rule = f"the {role}'s state in {checkpoint} was saved with {before}, and cannot be read with another value"
    model = f"model.path={checkpoint.resolve() / 'hf'}"
    return Mistake(key=where, value=now, rule=rule, remedy=f"{remedy}, or a new run: name=ANOTHER {model}")


def _beginnings_of(
    run: RunDir, name: str, tree: Mapping[str, Any], stage: StageConfig, checkpoint: Path
) -> Iterator[Mistake]:
    """What a critic or a process reward model has begun with is in its state: another value would be passed over in silence."""
    before_all = mapping_in(run.config) or {}
    before = laid_over(before_all, _mapping(value_of(before_all, f"stages.{name}.config")))
    for role in AUXILIARY_TRAINERS:
        for key in (f"{role}.path", f"{role}.head_init"):
            was, now = value_of(before, key), value_of(tree, key)
            if was == now or not (checkpoint / role).exists():
                continue
            where = f"stages.{name}.config.{key}" if has(stage.config, key) else key
            rule = f"the {role} in {checkpoint} has begun with {show(was)} and goes on from what it has learned"
            yield Mistake(key=where, value=now, rule=rule, remedy=f"{where}={show(was)}, or name=ANOTHER for a new run")


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def mapping_in(file: Path) -> dict[str, Any] | None:
    """What a YAML or JSON file holds; None when it holds no mapping or is not there."""
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
