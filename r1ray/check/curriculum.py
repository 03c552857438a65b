"""Curricula: do their arguments and the problems fit, and can a run that goes on go on with them?"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.check.directory import mapping_in
from r1ray.config import SourceConfig, StageConfig
from r1ray.config.tree import has, value_of
from r1ray.config.view import StageView
from r1ray.data.curriculum import CURRICULA, make
from r1ray.data.sources import is_left_by_a_run, load_source, needs_network
from r1ray.data.stream import ProblemStream
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, did_you_mean
from r1ray.run.checkpoint import STATE
from r1ray.run.directory import RunDir
from r1ray.types import Problem

HEAD = 64
"""Rows of a source that are looked at: its generators deal the levels in turn."""


def arguments(view: StageView) -> Iterator[Finding]:
    """One of ours is made of the first problems, as the run will make it of all; one of the user's own only when the run begins."""
    data = view.data
    name, args = data.curriculum.name, data.curriculum.args
    if name not in CURRICULA or not data.train:
        return
    taken = [parameter for parameter in inspect.signature(CURRICULA[name]).parameters if parameter != "stream"]
    unknown = sorted(set(args) - set(taken))
    for argument in unknown:
        rule, remedy = f"the curriculum {name} takes no such argument", did_you_mean(argument, taken)
        yield Mistake(key=f"data.curriculum.args.{argument}", value=args[argument], rule=rule, remedy=remedy)
    if unknown or name == "none":
        return
    if later := [source for source, cfg in data.train.items() if needs_network(cfg) or is_left_by_a_run(cfg)]:
        yield f"{NOT_CHECKED}data.curriculum.name={name} with the problems of {', '.join(later)}"
        return
    try:
        problems = {source: _first_problems(source, cfg) for source, cfg in data.train.items()}
    except (TypeError, ValueError):
        return  # said of the dataset itself
    stream = ProblemStream(problems, weights=dict.fromkeys(problems, 1.0), seed=0, shuffle=False)
    try:
        make(data.curriculum, stream)
    except ValueError as error:
        remedy = "correct data.curriculum.args or the data, or data.curriculum.name=none"
        yield Mistake(key="data.curriculum", value={"name": name, "args": args}, rule=str(error), remedy=remedy)


def goes_on(
    run_dir: str, stages: Mapping[str, StageConfig], trees: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mistake]:
    """A stage goes on from its checkpoint under the curriculum with which that was saved: what it remembers is in there.

    `trees` holds each stage's whole configuration as plain values.
    """
    for name, stage in stages.items():
        latest = RunDir(Path(run_dir).expanduser()).stage(name).checkpoints / "latest"
        state = mapping_in(latest / STATE)
        if stage.kind != "rl" or not state or not state.get("stream"):
            continue
        before, now = state["stream"].get("curriculum", "none"), value_of(trees[name], "data.curriculum.name")
        if before != now and now is not None:
            key = "data.curriculum.name"
            where = f"stages.{name}.config.{key}" if has(stage.config, key) else key
            rule = f"the checkpoint in {latest} remembers what the curriculum {before} has seen"
            yield Mistake(key=where, value=now, rule=rule, remedy=f"{where}={before}, or a new run: name=ANOTHER")


def _first_problems(name: str, cfg: SourceConfig) -> list[Problem]:
    """As far as a curriculum looks at them; they are not rendered."""
    return [
        Problem(
            id=str(item.id),
            source=name,
            messages=item.messages,
            prompt_ids_T=np.zeros(1, np.int32),
            verifier=item.verifier,
            payload=item.payload,
            meta=item.meta,
        )
        for item in load_source(name, cfg, head=HEAD).items
    ]
