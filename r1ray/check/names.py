"""Names of code and data: algorithm, rewards, engine, datasets. Local files are opened, hub names judged by their form."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from r1ray.algo import ALGORITHMS
from r1ray.check.mistakes import NOT_CHECKED, Mistake, did_you_mean
from r1ray.check.model import HUB_NAME
from r1ray.config import AlgoConfig, DataConfig, EvalConfig, RewardConfig, RolloutConfig, SourceConfig
from r1ray.data.sources import SOURCES, load_source, needs_network
from r1ray.engine import ENGINES
from r1ray.reward import REWARDS, make

Finding = Mistake | str
HEAD = 64
"""Rows of a local dataset that are read."""


def algorithm_name(algo: AlgoConfig) -> Iterator[Finding]:
    # A module of the user's own is looked for but not imported: it would import torch.
    yield from _name("algo.name", algo.name, ALGORITHMS, what="an algorithm")
    module = algo.name.partition(":")[0]
    if ":" in algo.name and not _module_exists(module):
        rule = f"there is no module {module}"
        yield Mistake(key="algo.name", value=algo.name, rule=rule, remedy="put its package on PYTHONPATH")


def engine_name(rollout: RolloutConfig) -> Iterator[Finding]:
    if rollout.engine not in ENGINES:
        remedy = did_you_mean(rollout.engine, ENGINES)
        yield Mistake(key="rollout.engine", value=rollout.engine, rule="is not an engine's name", remedy=remedy)


def reward_names(reward: RewardConfig) -> Iterator[Finding]:
    """Every reward is built, so user code is imported and its arguments are bound, as the reward workers will do."""
    for key, part in reward.parts.items():
        name = part.name or key
        where = f"reward.parts.{key}" + (".name" if part.name else "")
        unknown = list(_name(where, name, REWARDS, what="a reward"))
        yield from unknown
        if unknown:
            continue
        try:
            make(reward.model_copy(update={"parts": {key: part}}))
        except ValueError as error:
            remedy = "correct the name and the args; a package of your own must be on PYTHONPATH"
            yield Mistake(key=where, value=name, rule=str(error), remedy=remedy)


def datasets(data: DataConfig, eval: EvalConfig, kind: str) -> Iterator[Finding]:
    named = {f"data.train.{name}": source for name, source in data.train.items()} if kind != "eval" else {}
    for key, source in named.items():
        yield from _dataset(key, source, to_learn=kind == "sft")
    if kind != "sft":
        for name, source in eval.sets.items():
            yield from _dataset(f"eval.sets.{name}", source, to_learn=False)


def _dataset(key: str, source: SourceConfig, *, to_learn: bool) -> Iterator[Finding]:
    unknown = list(_name(f"{key}.source", source.source, SOURCES, what="a dataset"))
    yield from unknown
    if unknown:
        return
    if needs_network(source):
        if HUB_NAME.fullmatch(source.path or ""):
            yield f"{NOT_CHECKED}{key}.path={source.path} is a hub name (or a folder that does not exist)"
        else:
            rule = "is neither a file or folder that exists nor a hub name (org/name)"
            yield Mistake(
                key=f"{key}.path", value=source.path, rule=rule, remedy="check the spelling, or give org/name"
            )
        return
    try:
        items = load_source(key.rpartition(".")[2], source, head=HEAD).items
    except ValueError as error:
        where, value = (f"{key}.path", source.path) if source.path else (key, source.source)
        remedy = f"correct {key}.path, .columns or .args ({key}.columns.OURS=THEIRS)"
        yield Mistake(key=where, value=value, rule=str(error), remedy=remedy)
        return
    if to_learn and items[0].response is None:
        rule = "gives problems without replies: there is nothing to imitate"
        yield Mistake(
            key=f"{key}.source", value=source.source, rule=rule, remedy="a source with replies: traces or sft"
        )
    if not to_learn and items[0].response is not None:
        rule = "gives replies to imitate, not problems to solve"
        yield Mistake(key=f"{key}.source", value=source.source, rule=rule, remedy="use it in a stage of kind sft")


def _name(key: str, name: str, known: Mapping[str, Any], *, what: str) -> Iterator[Mistake]:
    if name not in known and ":" not in name:
        rule = f"is neither {what} of r1ray's nor package.module:attribute"
        yield Mistake(key=key, value=name, rule=rule, remedy=did_you_mean(name, known))


def _module_exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
