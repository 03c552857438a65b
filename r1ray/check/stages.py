"""The stages of a run: do they form a chain, and do their fragments and the overrides have an effect?"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from r1ray.config import StageConfig
from r1ray.config.tree import Tree, has, value_of
from r1ray.mistakes import Mistake, did_you_mean
from r1ray.plugin import resolve_or_none
from r1ray.stage_kinds import KINDS, StageKind

RUN_WIDE = ("name", "run_dir", "check", "resume", "stages", "cluster")
"""Keys that a stage cannot set: all stages share one run directory and one cluster."""


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
            rule = "the stages start from each other in a cycle"
            yield Mistake(key=key, value=after, rule=rule, remedy=f"{key}=null for the one that starts from model.path")
        elif isinstance(kind := resolve_or_none(stages[after].kind, KINDS), StageKind) and not kind.trains:
            rule = f"a stage of kind {stages[after].kind} trains nothing, so there is no checkpoint to start from"
            yield Mistake(key=key, value=after, rule=rule, remedy=f"{key}={stages[after].after or 'null'}")
    for name, stage in stages.items():
        for wide in stage.config.keys() & set(RUN_WIDE):
            rule = f"{wide} belongs to the whole run: a stage cannot set it"
            remedy = f"set {wide} outside of stages"
            yield Mistake(key=f"stages.{name}.config.{wide}", value=stage.config[wide], rule=rule, remedy=remedy)


def without_effect(stages: Mapping[str, StageConfig], overrides: Iterable[str]) -> Iterator[Mistake | str]:
    """Overrides that change nothing, because a stage's fragment, which is merged later, sets the same key.

    Example: with `recipe=deepscaler_1.5b` each of the three stages has its steps, so `steps=3` would have no effect.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        own = {name: value_of(stage.config, key) for name, stage in stages.items() if has(stage.config, key)}
        own = {name: there for name, there in own.items() if not isinstance(there, Mapping) and str(there) != value}
        if not own or not equals:
            continue
        listed = ", ".join(f"{name} {there}" for name, there in own.items())
        instead = " ".join(f"stages.{name}.config.{key}={value}" for name in own)
        if len(own) == len(stages):
            rule = f"has no effect: every stage sets this key ({listed})"
            yield Mistake(key=key, value=value, rule=rule, remedy=instead)
        else:
            yield f"{key}={value} has no effect in stages that set this key ({listed}): {instead}"


def removals_without_effect(raw: Tree, stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """A note on stages that remove datasets which the mixture does not have, for instance because of another `data=`."""
    for name, stage in stages.items():
        for key in ("data.train", "eval.sets"):
            own = cast("dict[str, Any]", value_of(stage.config, key) or {})
            there = cast("dict[str, Any]", value_of(raw, key) or {})
            gone = [entry for entry, value in own.items() if value is None]
            if gone and not any(entry in there for entry in gone):
                yield (
                    f"stage {name} removes {', '.join(gone)} from {key}, which has only {', '.join(there)}: this has no effect"
                )


def in_order(stages: Mapping[str, StageConfig]) -> list[str]:
    """Stage names in the order in which they run: each after the one it starts from, else as listed; any order for a cycle."""
    done: list[str] = []
    for name in stages:
        done += [stage for stage in [*reversed(_ancestors(name, stages)), name] if stage not in done]
    return done


def _ancestors(name: str, stages: Mapping[str, StageConfig]) -> list[str]:
    """The stages that a stage starts from, directly or not, nearest first; stops at a cycle."""
    found: list[str] = []
    after = stages[name].after
    while after is not None and after in stages and after not in found:
        found.append(after)
        after = stages[after].after
    return found
