"""Plug-ins of any kind: does the name exist, and do the arguments fit those that the plug-in declares (`r1ray.plugin.Args`)?

No plug-in is known by name here. Each rule lists the plug-ins of one kind that a stage uses; `_check` checks any of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, cast

from pydantic import ValidationError

from r1ray.algo import ALGORITHMS
from r1ray.check.schema import as_mistakes
from r1ray.config import SourceConfig
from r1ray.config.tree import value_of
from r1ray.config.view import InvalidSection, StageView
from r1ray.data.curriculum import CURRICULA
from r1ray.data.sources import SOURCES
from r1ray.engine import ENGINES
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, did_you_mean
from r1ray.plugin import Registry, args_of, resolve, resolve_or_none
from r1ray.reward import REWARDS
from r1ray.reward.accuracy import VERIFIERS
from r1ray.reward.answers import EXTRACTORS
from r1ray.reward.forms import ACCEPTED, as_reward
from r1ray.stage_kinds import KINDS, StageKind


def algorithm(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    yield from _check(view, "an algorithm", ALGORITHMS, "algo.name", algo.name, "algo.args", algo)


def rewards(view: StageView) -> Iterator[Finding]:
    for key, component in view.reward.components.items():
        where = f"reward.components.{key}"
        name_key = f"{where}.name" if component.name else where
        yield from _check(view, "a reward", REWARDS, name_key, component.name or key, f"{where}.args", component)
        plugin = resolve_or_none(component.name or key, REWARDS)
        try:
            if callable(plugin):
                as_reward(plugin)
        except ValueError as error:
            yield Mistake(key=name_key, value=component.name, rule=str(error), remedy=ACCEPTED)


def curriculum(view: StageView) -> Iterator[Finding]:
    cfg = view.data.curriculum
    yield from _check(view, "a curriculum", CURRICULA, "data.curriculum.name", cfg.name, "data.curriculum.args", cfg)


def engine(view: StageView) -> Iterator[Finding]:
    yield from _name("rollout.engine", view.rollout.engine, ENGINES, what="an engine")


def kind(view: StageView) -> Iterator[Finding]:
    stage = view.run.stages[view.name]
    where = f"stages.{view.name}"
    plugin = resolve_or_none(stage.kind, KINDS)
    if plugin is None or isinstance(plugin, StageKind):
        yield from _check(view, "a kind of stage", KINDS, f"{where}.kind", stage.kind, f"{where}.args", stage)
    else:
        rule, remedy = f"is {plugin!r:.60}, which is not a stage kind", "name a r1ray.stage_kinds.StageKind"
        yield Mistake(key=f"{where}.kind", value=stage.kind, rule=rule, remedy=remedy)
    if isinstance(plugin, StageKind):  # not imported here: it may need Ray
        yield from _name(f"{where}.kind", plugin.run, {}, what="a run function")


def sources(view: StageView) -> Iterator[Finding]:
    for key, source in sources_of(view).items():
        yield from source_findings(view, key, source)


def source_findings(view: StageView, key: str, source: SourceConfig) -> Iterator[Finding]:
    """Findings about one dataset: its source, the verifier that its arguments name, and its answer extractor."""
    yield from _check(view, "a dataset", SOURCES, f"{key}.source", source.source, f"{key}.args", source)
    if isinstance(verifier := source.args.get("verifier"), str):
        where = f"{key}.args.verifier"
        yield from _check(view, "a verifier", VERIFIERS, where, verifier, f"{where}_args", source)
    if source.extract is not None:
        yield from _name(f"{key}.extract", source.extract, EXTRACTORS, what="an answer extractor")


def sources_of(view: StageView) -> dict[str, SourceConfig]:
    """{key: dataset} of what the stage reads. A stage that only trains reads the evaluation sets too, to exclude their
    problems from training.
    """
    train = {f"data.train.{name}": source for name, source in view.data.train.items()} if view.kind.trains else {}
    return train | {f"eval.sets.{name}": source for name, source in view.eval.sets.items()}


PLUGIN_SECTIONS: tuple[tuple[str, Registry, str], ...] = (
    ("algo", ALGORITHMS, "name"),
    ("data.curriculum", CURRICULA, "name"),
    ("data.train.*", SOURCES, "source"),
    ("eval.sets.*", SOURCES, "source"),
    ("reward.components.*", REWARDS, "name"),
    ("stages.*", KINDS, "kind"),
)
"""(section, registry, key of the plug-in's name)."""


def with_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration, as plain values, with the defaults of plug-ins' arguments; what is invalid stays as it is."""
    whole = dict(tree)
    for place, known, name_key in PLUGIN_SECTIONS:
        whole = _with_default_args(whole, place.split("."), known, name_key)
    return whole


def _with_default_args(section: Any, path: Sequence[str], known: Registry, name_key: str, key: str = "") -> Any:
    if not isinstance(section, dict):
        return section
    values = cast("dict[str, Any]", section)
    if path:
        inner = values if path[0] == "*" else values.keys() & {path[0]}
        return values | {name: _with_default_args(values[name], path[1:], known, name_key, name) for name in inner}
    plugin = resolve_or_none(values.get(name_key) or key, known)
    try:
        args = args_of(plugin).model_validate(values.get("args") or {}) if plugin else None
    except ValidationError:
        args = None
    return values if args is None else {**values, "args": args.model_dump(mode="json")}


def _check(
    view: StageView, what: str, known: Registry, name_key: str, name: str, args_key: str, owner: Any
) -> Iterator[Finding]:
    """Findings about one use of a plug-in.

    Args:
        what: the kind of plug-in, for messages: "an algorithm".
        owner: the section that holds its name and arguments.
    """
    unknown = list(_name(name_key, name, known, what=what))
    if unknown:
        yield from unknown
        return
    try:
        plugin = resolve(name, known, what=what)
    except ValueError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == "torch":
            yield f"{NOT_CHECKED}{name_key}={name} and its args: it needs torch, which is not installed here"
            return
        yield view.mistake(name_key, str(error), "correct the name; a package of your own must be on PYTHONPATH")
        return
    if not callable(plugin) and not hasattr(plugin, "Args"):
        yield view.mistake(name_key, f"is {plugin!r:.60}, which cannot be called", "name a class or a function")
        return
    given = value_of(view.raw, args_key)
    given = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    try:
        args = args_of(plugin).model_validate(given)
    except ValidationError as error:
        yield from as_mistakes(error, args_of(plugin), given, owner=name, prefix=f"{args_key}.")
        return
    with suppress(InvalidSection):  # of this plug-in; the others are still checked
        yield from args.check(view, args_key, owner)


def _name(key: str, name: str, known: Registry, *, what: str) -> Iterator[Mistake]:
    if name in known:
        return
    module, colon, _ = name.partition(":")
    if not colon:
        rule = f"is not the name of {what} in r1ray, and not of the form package.module:attribute"
        yield Mistake(key=key, value=name, rule=rule, remedy=did_you_mean(name, known))
    elif not _module_exists(module):
        rule = f"there is no module {module}"
        yield Mistake(key=key, value=name, rule=rule, remedy="put its package on PYTHONPATH")


def _module_exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
