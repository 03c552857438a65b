"""Names of code and data: rewards, engine, datasets. Local files are read, large ones in part, hub names judged by form."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from r1ray.check.model import HUB_NAME
from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.asked import HEAD
from r1ray.data.curriculum import CURRICULA
from r1ray.data.files import size_of
from r1ray.data.sources import (
    SOURCES,
    Loaded,
    check_columns_and_args,
    is_left_by_a_run,
    load_source,
    needs_network,
)
from r1ray.engine import ENGINES
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, did_you_mean
from r1ray.reward import REWARDS, make
from r1ray.reward.accuracy import VERIFIERS
from r1ray.reward.answers import EXTRACTORS

WHOLE_ROWS, WHOLE_BYTES = 20_000, 16 << 20
"""What is on this disk is read whole up to here, which takes a second at most."""


def curriculum_name(view: StageView) -> Iterator[Finding]:
    data = view.data
    yield from name_in_module("data.curriculum.name", data.curriculum.name, CURRICULA, what="a curriculum")


def engine_name(view: StageView) -> Iterator[Finding]:
    rollout = view.rollout
    yield from name_in_module("rollout.engine", rollout.engine, ENGINES, what="an engine")


def reward_names(view: StageView) -> Iterator[Finding]:
    """Every reward is built, so user code is imported and its arguments are bound, as the reward workers will do."""
    reward = view.reward
    for key, part in reward.components.items():
        name = part.name or key
        where = f"reward.components.{key}" + (".name" if part.name else "")
        unknown = list(_name(where, name, REWARDS, what="a reward"))
        yield from unknown
        if unknown:
            continue
        try:
            make(reward.model_copy(update={"parts": {key: part}}))
        except ValueError as error:
            remedy = "correct the name and the args; a package of your own must be on PYTHONPATH"
            yield Mistake(key=where, value=name, rule=str(error), remedy=remedy)


def datasets(view: StageView) -> Iterator[Finding]:
    data, eval = view.data, view.eval
    named = {f"data.train.{name}": source for name, source in data.train.items()} if view.kind.trains else {}
    for key, source in named.items():
        yield from _dataset(key, source, to_learn=not view.kind.generates)
    # An sft stage reads them too: their problems are left out of its training.
    for name, source in eval.sets.items():
        yield from _dataset(f"eval.sets.{name}", source, to_learn=False)


def _dataset(key: str, source: SourceConfig, *, to_learn: bool) -> Iterator[Finding]:
    unknown = list(_name(f"{key}.source", source.source, SOURCES, what="a dataset"))
    if not unknown and "verifier" in source.args:
        verifier = str(source.args["verifier"])
        unknown = list(name_in_module(f"{key}.args.verifier", verifier, VERIFIERS, what="a verifier"))
    if source.extract is not None:
        unknown += _extract(f"{key}.extract", source)
    yield from unknown
    if unknown:
        return
    if is_left_by_a_run(source):
        return  # r1ray.check.mined
    if needs_network(source):
        if HUB_NAME.fullmatch(source.path or ""):
            yield from _of_hub(key, source)
        else:
            rule = "is neither a file or folder that exists nor a hub name (org/name)"
            yield Mistake(
                key=f"{key}.path", value=source.path, rule=rule, remedy="check the spelling, or give org/name"
            )
        return
    try:
        head = _head(source)
        loaded = load_source(key.rpartition(".")[2], source, head=head)
    except TypeError as error:
        rule = f"{source.source} takes no such values ({error})"
        remedy = "give each of the args a value of the right type, as in conf/data"
        yield Mistake(key=f"{key}.args", value=source.args, rule=rule, remedy=remedy)
        return
    except ValueError as error:
        where, value = (f"{key}.path", source.path) if source.path else (key, source.source)
        remedy = f"correct the file, or {key}.path, .columns or .args ({key}.columns.OURS=THEIRS)"
        if not source.path and source.source in SOURCES and SOURCES[source.source].generate:
            where, value, remedy = f"{key}.args", source.args, f"correct {key}.args"
        yield Mistake(key=where, value=value, rule=str(error), remedy=remedy)
        return
    yield from _of_rows(key, source, loaded, head=head)
    items = loaded.items
    if to_learn and items[0].response is None:
        rule = "gives problems without completions: there is nothing to imitate"
        yield Mistake(
            key=f"{key}.source", value=source.source, rule=rule, remedy="a source with completions: traces or sft"
        )
    if not to_learn and items[0].response is not None:
        rule = "gives completions to imitate, not problems to solve"
        yield Mistake(key=f"{key}.source", value=source.source, rule=rule, remedy="use it in a stage of kind sft")


def _head(source: SourceConfig) -> int:
    """How many rows to read."""
    if source.path is None:
        return HEAD
    return WHOLE_ROWS if size_of(source.path, split=source.split) <= WHOLE_BYTES else HEAD


def _of_rows(key: str, source: SourceConfig, loaded: Loaded, *, head: int) -> Iterator[str]:
    """What a person would want to know of the rows of a dataset that can be used."""
    read, unreadable = loaded.counts["rows"] - loaded.counts["filtered"], loaded.counts["unreadable"]
    partly = read == head and len(loaded.items) != source.limit
    if unreadable:
        yield f"{unreadable} of the {'first ' if partly else ''}{read} rows of {key} cannot be used: {loaded.why}"
    if partly and source.path is not None:
        yield f"{NOT_CHECKED}{key}.path={source.path}: only its first {head} rows were read"


def _of_hub(key: str, source: SourceConfig) -> Iterator[Finding]:
    try:
        check_columns_and_args(key.rpartition(".")[2], source)
    except ValueError as error:
        yield Mistake(key=key, value=source.source, rule=str(error), remedy=f"correct {key}.args or {key}.columns")
    yield f"{NOT_CHECKED}{key}.path={source.path} is a hub name (or a folder that does not exist)"


def _extract(key: str, source: SourceConfig) -> Iterator[Mistake]:
    assert source.extract is not None
    yield from name_in_module(key, source.extract, EXTRACTORS, what="a way to read answers")
    if source.source in SOURCES and SOURCES[source.source].programs(source.args):
        rule = "completions are programs, which are read from their fences"
        yield Mistake(key=key, value=source.extract, rule=rule, remedy=f"{key}=null")


def _name(key: str, name: str, known: Mapping[str, Any], *, what: str) -> Iterator[Mistake]:
    if name not in known and ":" not in name:
        rule = f"is neither {what} of r1ray's nor package.module:attribute"
        yield Mistake(key=key, value=name, rule=rule, remedy=did_you_mean(name, known))


def name_in_module(key: str, name: str, known: Mapping[str, Any], *, what: str) -> Iterator[Mistake]:
    """The same; a module of the user's own is looked for but not imported, since it may import torch."""
    yield from _name(key, name, known, what=what)
    module = name.partition(":")[0]
    if name not in known and ":" in name and not _module_exists(module):
        rule = f"there is no module {module}"
        yield Mistake(key=key, value=name, rule=rule, remedy="put its package on PYTHONPATH")


def _module_exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
