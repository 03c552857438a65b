"""Plug-ins of any kind: is there such a name, and do its arguments fit what it declares (`r1ray.plugin.Args`)?

No plug-in is known by name here. Each rule lists the plug-ins of one kind that a stage uses; `_check` checks any of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

from pydantic import ValidationError

from r1ray.algo import ALGORITHMS
from r1ray.check.schema import as_mistakes
from r1ray.config import SourceConfig
from r1ray.config.view import NotSound, StageView
from r1ray.data.curriculum import CURRICULA
from r1ray.data.sources import SOURCES
from r1ray.engine import ENGINES
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, did_you_mean
from r1ray.plugin import Registry, args_of, found, resolve
from r1ray.reward import REWARDS
from r1ray.reward.accuracy import VERIFIERS
from r1ray.reward.answers import EXTRACTORS
from r1ray.stage_kinds import KINDS, StageKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """One use of a plug-in in a configuration."""

    what: str
    """For messages: `an algorithm`."""
    known: Registry
    name: str
    name_key: str
    args: Mapping[str, Any]
    args_key: str
    owner: Any
    """The section that holds name and arguments."""


def algorithm(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    yield from _check(view, _used("an algorithm", ALGORITHMS, "algo", algo.name, algo.args, algo))


def rewards(view: StageView) -> Iterator[Finding]:
    for key, component in view.reward.components.items():
        where = f"reward.components.{key}"
        used = _used("a reward", REWARDS, where, component.name or key, component.args, component)
        yield from _check(view, used)


def curriculum(view: StageView) -> Iterator[Finding]:
    cfg = view.data.curriculum
    yield from _check(view, _used("a curriculum", CURRICULA, "data.curriculum", cfg.name, cfg.args, cfg))


def engine(view: StageView) -> Iterator[Finding]:
    yield from _name("rollout.engine", view.rollout.engine, ENGINES, what="an engine")


def kind(view: StageView) -> Iterator[Finding]:
    stage = view.run.stages[view.name]
    where = f"stages.{view.name}"
    used = _used("a kind of stage", KINDS, where, stage.kind, stage.args, stage, field="kind")
    plugin = found(stage.kind, KINDS)
    if plugin is None or isinstance(plugin, StageKind):
        yield from _check(view, used)
    else:
        rule, remedy = f"is {plugin!r:.60}, which is not a stage kind", "name a r1ray.stage_kinds.StageKind"
        yield Mistake(key=f"{where}.kind", value=stage.kind, rule=rule, remedy=remedy)
    if isinstance(plugin, StageKind):  # not imported here: it may need Ray
        yield from _name(f"{where}.kind", plugin.run, {}, what="a run function")


def sources(view: StageView) -> Iterator[Finding]:
    for key, source in sources_of(view).items():
        yield from source_findings(view, key, source)


def source_findings(view: StageView, key: str, source: SourceConfig) -> Iterator[Finding]:
    """Of one dataset: its source, the verifier that its arguments name, and the way in which answers are read."""
    yield from _check(view, _used("a dataset", SOURCES, key, source.source, source.args, source, field="source"))
    if isinstance(verifier := source.args.get("verifier"), str):
        where, args = f"{key}.args.verifier", source.args.get("verifier_args")
        args = cast("dict[str, Any]", args) if isinstance(args, dict) else {}
        yield from _check(
            view,
            Used(
                what="a verifier",
                known=VERIFIERS,
                name=verifier,
                name_key=where,
                args=args,
                args_key=f"{where}_args",
                owner=source,
            ),
        )
    if source.extract is not None:
        yield from _name(f"{key}.extract", source.extract, EXTRACTORS, what="a way to read answers")


def sources_of(view: StageView) -> dict[str, SourceConfig]:
    """{key: dataset} of what the stage reads. A stage that only trains reads evaluation sets too: it leaves their problems out."""
    train = {f"data.train.{name}": source for name, source in view.data.train.items()} if view.kind.trains else {}
    return train | {f"eval.sets.{name}": source for name, source in view.eval.sets.items()}


PLACES: tuple[tuple[str, Registry, str], ...] = (
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
    for place, known, name_key in PLACES:
        whole = _completed(whole, place.split("."), known, name_key)
    return whole


def _completed(section: Any, path: Sequence[str], known: Registry, name_key: str, key: str = "") -> Any:
    if not isinstance(section, dict):
        return section
    values = cast("dict[str, Any]", section)
    if path:
        inner = values if path[0] == "*" else values.keys() & {path[0]}
        return values | {name: _completed(values[name], path[1:], known, name_key, name) for name in inner}
    plugin = found(values.get(name_key) or key, known)
    try:
        args = args_of(plugin).model_validate(values.get("args") or {}) if plugin else None
    except ValidationError:
        args = None
    return values if args is None else {**values, "args": args.model_dump(mode="json")}


def _used(
    what: str, known: Registry, where: str, name: str, args: Mapping[str, Any], owner: Any, *, field: str = "name"
) -> Used:
    own_name = getattr(owner, field) is not None
    name_key = f"{where}.{field}" if own_name else where
    return Used(what=what, known=known, name=name, name_key=name_key, args=args, args_key=f"{where}.args", owner=owner)


def _check(view: StageView, used: Used) -> Iterator[Finding]:
    unknown = list(_name(used.name_key, used.name, used.known, what=used.what))
    if unknown:
        yield from unknown
        return
    try:
        plugin = resolve(used.name, used.known, what=used.what)
    except ValueError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == "torch":
            yield f"{NOT_CHECKED}{used.name_key}={used.name} and its args: it needs torch, which is not installed here"
            return
        remedy = "correct the name; a package of your own must be on PYTHONPATH"
        yield view.mistake(used.name_key, str(error), remedy)
        return
    if not callable(plugin) and not hasattr(plugin, "Args"):
        rule, remedy = f"is {plugin!r:.60}, which cannot be called", "name a class or a function"
        yield view.mistake(used.name_key, rule, remedy)
        return
    try:
        args = args_of(plugin).model_validate(dict(used.args))
    except ValidationError as error:
        yield from as_mistakes(error, args_of(plugin), used.args, owner=used.name, prefix=f"{used.args_key}.")
        return
    with suppress(NotSound):  # of this plug-in; the others are still checked
        yield from args.check(view, used.args_key, used.owner)


def _name(key: str, name: str, known: Registry, *, what: str) -> Iterator[Mistake]:
    if name in known:
        return
    module, colon, _ = name.partition(":")
    if not colon:
        rule = f"is neither {what} of r1ray's nor package.module:attribute"
        yield Mistake(key=key, value=name, rule=rule, remedy=did_you_mean(name, known))
    elif not _module_exists(module):
        rule = f"there is no module {module}"
        yield Mistake(key=key, value=name, rule=rule, remedy="put its package on PYTHONPATH")


def _module_exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
