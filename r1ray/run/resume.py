"""What a stage that resumes must keep: its checkpoint holds state that another configuration cannot read or would ignore."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1ray.config.tree import merge, value_of
from r1ray.config.view import StageView
from r1ray.data.stream import NO_CURRICULUM
from r1ray.mistakes import Mistake, show
from r1ray.roles import AUXILIARY_TRAINERS, TRAINERS, section_of, trainer_config
from r1ray.run.checkpoint import STATE
from r1ray.run.directory import RunDir, mapping_in
from r1ray.run.found import configuration_of, newest_in


def conflicts(view: StageView) -> Iterator[Mistake]:
    run = RunDir(Path(view.run_dir).expanduser())
    newest = {name: newest_in(run.stage(name).checkpoints)[0] for name in view.run.stages}
    if (checkpoint := newest[view.name]) is None:
        return
    state = mapping_in(checkpoint / STATE) or {}
    yield from _curriculum(checkpoint, state, view)
    at_end = (
        view.kind.reinforcement
        and isinstance(state.get("step"), int)
        and state["step"] >= view.steps
        and not state.get("unevaluated")
    )
    if at_end or any(stage.after == view.name and newest[name] for name, stage in view.run.stages.items()):
        return  # the stage is finished, so nothing is loaded
    for role in TRAINERS:
        yield from _layout(role, checkpoint, view)
    before = configuration_of(run) or {}
    before = merge(before, value_of(before, f"stages.{view.name}.config") or {})
    for key in (
        f"{role}.{field}"
        for role in AUXILIARY_TRAINERS
        if (checkpoint / role).exists()
        for field in ("path", "head_init")
    ):
        was = value_of(before, key)
        if was != value_of(view.raw, key):
            rule = f"the {key.partition('.')[0]} in {checkpoint} started with {show(was)} and resumes from what it has learned"
            yield view.mistake(key, rule, f"{key}={show(was)}, or name=ANOTHER for a new run")


def _layout(role: str, checkpoint: Path, view: StageView) -> Iterator[Mistake]:
    """The trainer's state can be resumed only with the layout (ranks, ZeRO stage, adapters, ...) with which it was saved."""
    layout = mapping_in(checkpoint / section_of(role) / "layout.json") or {}
    try:
        now: dict[str, Any] = trainer_config(view, role).model_dump() if layout else {}  # type: ignore[arg-type]
    except ValidationError:
        return  # reported with the overrides
    if role == "policy" and layout:
        layout, now["lora"] = {"lora": None, **layout}, view.model.lora and view.model.lora.model_dump()
    for key, before in layout.items():
        if now.get(key, before) == before:
            continue
        where = (
            f"{section_of(role)}.{key}"
            if role == "policy" or value_of(view.raw, f"{role}.{key}")
            else f"{role}.overrides.{key}"
        )
        where = "model.lora" if key == "lora" else where
        was, given = (show(value).replace("'", "") for value in (before, now[key]))
        rule = f"the {role}'s state in {checkpoint} was saved with {was}, and cannot be read with another value"
        setting = f"'{where}={was}'" if key == "lora" else f"{where}={was}"
        remedy = f"{setting}, or a new run: name=ANOTHER model.path={checkpoint.resolve() / 'hf'}"
        yield view.mistake(where, rule, remedy, value=given)


def _curriculum(checkpoint: Path, state: dict[str, Any], view: StageView) -> Iterator[Mistake]:
    if view.kind.reinforcement and state.get("stream"):
        before, key = state["stream"].get("curriculum", NO_CURRICULUM), "data.curriculum.name"
        if before != view.data.curriculum.name:
            rule = f"the checkpoint in {checkpoint} holds the state of the curriculum {before}"
            yield view.mistake(key, rule, f"{key}={before}, or a new run: name=ANOTHER")
