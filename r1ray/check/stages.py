"""The stages of a run: do their names form a chain, and what does each one's whole configuration look like?"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from r1ray.config import StageConfig
from r1ray.config.tree import Tree, has, value_of
from r1ray.mistakes import Mistake, did_you_mean
from r1ray.plugin import found
from r1ray.stages.kinds import KINDS

RUN_WIDE = ("name", "run_dir", "check", "resume", "stages", "cluster")
"""Keys that a stage cannot have of its own: one run directory and one cluster serve all stages."""


def graph(stages: Mapping[str, StageConfig]) -> Iterator[Mistake]:
    if not stages:
        yield Mistake(key="stages", value={}, rule="names no stage", remedy="stages=rl")
    for name, stage in stages.items():
        if not re.fullmatch(r"[\w.-]+", name):
            rule = "a stage's name becomes a folder: letters, digits, '.', '-' and '_' only"
            yield Mistake(key=f"stages.{name}", value=name, rule=rule, remedy="choose another name")
        key, after = f"stages.{name}.after", stage.after
        if after is None:
            continue
        if after not in stages:
            yield Mistake(key=key, value=after, rule="there is no such stage", remedy=did_you_mean(after, stages))
        elif name in _ancestors(name, stages):
            rule = "the stages wait for each other in a circle"
            yield Mistake(key=key, value=after, rule=rule, remedy=f"{key}=null for the one that starts from model.path")
        elif (kind := found(stages[after].kind, KINDS)) is not None and not kind.trains:
            rule = f"a stage of kind {stages[after].kind} trains nothing, so there is no checkpoint to start from"
            yield Mistake(key=key, value=after, rule=rule, remedy=f"{key}={stages[after].after or 'null'}")
    for name, stage in stages.items():
        for wide in stage.config.keys() & set(RUN_WIDE):
            rule = f"{wide} is the whole run's, a stage cannot have its own"
            remedy = f"set {wide} outside of stages"
            yield Mistake(key=f"stages.{name}.config.{wide}", value=stage.config[wide], rule=rule, remedy=remedy)


def passed_over(stages: Mapping[str, StageConfig], overrides: Iterable[str]) -> Iterator[Mistake | str]:
    """Overrides that change nothing, because stages, whose fragments come after, set the same key themselves.

    Example: with `recipe=deepscaler_1.5b` each of the three stages has its steps, so `steps=3` would be passed over.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        own = {name: value_of(stage.config, key) for name, stage in stages.items() if has(stage.config, key)}
        own = {name: there for name, there in own.items() if not isinstance(there, Mapping) and str(there) != value}
        if not own or not equals:
            continue
        told = ", ".join(f"{name} {there}" for name, there in own.items())
        instead = " ".join(f"stages.{name}.config.{key}={value}" for name in own)
        if len(own) == len(stages):
            rule = f"every stage sets its own ({told}), so this would change nothing"
            yield Mistake(key=key, value=value, rule=rule, remedy=instead)
        else:
            yield f"{key}={value} is passed over where a stage sets its own ({told}): {instead}"


def take_out_nothing(raw: Tree, stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Stages that take datasets out of the mixture, of which none is there: `data` was chosen anew."""
    for name, stage in stages.items():
        for key in ("data.train", "eval.sets"):
            own = cast("dict[str, Any]", value_of(stage.config, key) or {})
            there = cast("dict[str, Any]", value_of(raw, key) or {})
            gone = [entry for entry, value in own.items() if value is None]
            if gone and not any(entry in there for entry in gone):
                yield (
                    f"stage {name} takes {', '.join(gone)} out of {key}, where none of them is ({', '.join(there)}): its problems "
                    "are the same as without that"
                )


def in_order(stages: Mapping[str, StageConfig]) -> list[str]:
    """Names, each after the one it starts from, otherwise as the configuration lists them; any order when they form a circle."""
    done: list[str] = []
    for name in stages:
        done += [stage for stage in [*reversed(_ancestors(name, stages)), name] if stage not in done]
    return done


def _ancestors(name: str, stages: Mapping[str, StageConfig]) -> list[str]:
    """What a stage comes after, nearest first; ends where a circle closes."""
    found: list[str] = []
    after = stages[name].after
    while after is not None and after in stages and after not in found:
        found.append(after)
        after = stages[after].after
    return found
