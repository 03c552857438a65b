"""From what Hydra composed to what the run uses: every rule asked, every mistake reported at once.

Needs no network, no Ray and no GPU, and imports neither torch nor transformers.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.algo import attempt, roles_of_made
from r1ray.check import (
    algorithms,
    answers,
    curriculum,
    devices,
    judges,
    lora,
    mined,
    model,
    names,
    rules,
    sampling,
    stages,
    trainers,
)
from r1ray.check.directory import run_directory, trainer_layout
from r1ray.check.mistakes import ConfigError, Mistake
from r1ray.check.overrides import facts_of_another, recipe_against_scale, stood_in
from r1ray.check.schema import validate, without, without_removed
from r1ray.config import Config, StageConfig

COMMON = (
    *(devices.devices, devices.shared_rows, devices.shared_heads),
    *(rules.transport, rules.precision, rules.trainer_args, rules.faults, names.datasets, model.trained_files),
)
GENERATING = (
    *(
        devices.tensor_parallel,
        rules.lengths,
        sampling.whole_distribution,
        sampling.temperature,
        rules.engine_args,
        rules.rewards,
        rules.overlong,
        rules.evaluation,
    ),
    *(names.engine_name, names.reward_names, judges.judges, judges.engines, model.think_tags, answers.asked_for),
)
RULES: Mapping[str, tuple[Callable[..., Iterable[Mistake | str]], ...]] = {
    "rl": (
        *(*algorithms.RULES, trainers.other_trainers, names.curriculum_name, curriculum.arguments),
        *(sampling.temperature_schedule, rules.sleeping, rules.not_empty, lora.targets, model.dense),
        *(*GENERATING, *COMMON),
    ),
    "sft": (rules.sft_length, rules.not_empty, lora.targets, lora.something_to_adapt, model.dense, *COMMON),
    "eval": (rules.not_empty, *GENERATING, *COMMON),
}
"""What is asked of a stage, by its kind."""
NOTHING: Mapping[str, str] = {}


class CheckedStage(NamedTuple):
    name: str
    stage: StageConfig
    config: Config
    """The whole tree with the stage's fragment laid over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """A configuration in which nothing is known to be wrong."""

    config: Config
    stages: list[CheckedStage]
    """In the order in which they run."""
    overrides: list[str]
    notes: list[str]
    """Worth knowing; what could not be checked begins with "not checked: "."""
    raw: dict[str, Any]
    """The resolved configuration as plain values, for config.yaml."""


def load(
    cfg: DictConfig,
    overrides: Sequence[str] = (),
    choices: Mapping[str, str] = NOTHING,
    folders: Sequence[Path] = (),
) -> CheckedRun:
    """Check everything. `choices` are what Hydra chose of each group, and `folders` where it looked, for notes.

    Raises:
        ConfigError: with every mistake that was found.
    """
    raw, mistakes = _plain_values(cfg)
    raw = without_removed(raw)
    groups, wrong = validate(raw)
    told = {mistake.key for mistake in mistakes}
    findings: list[Mistake | str] = [*mistakes, *(mistake for mistake in wrong if mistake.key not in told)]
    findings += _ask((rules.labels, rules.logging), groups)
    if {"run_dir", "resume"} <= groups.keys():
        findings += run_directory(groups["run_dir"], groups["resume"], raw)
    trees: dict[str, dict[str, Any]] = {}
    if "stages" in groups:
        findings += [*stages.graph(groups["stages"]), *stages.passed_over(groups["stages"], overrides)]
        findings += stages.take_out_nothing(raw, groups["stages"])
        for name in stages.in_order(groups["stages"]):
            trees[name], stage_findings = _check_stage(name, groups["stages"], raw)
            findings += stage_findings
        if "run_dir" in groups:
            findings += mined.mined_problems(groups["run_dir"], groups["stages"], trees)
        if {"run_dir", "resume"} <= groups.keys() and groups["resume"] == "auto":
            findings += trainer_layout(groups["run_dir"], groups["stages"], trees)
            findings += curriculum.goes_on(groups["run_dir"], groups["stages"], trees)
    findings += [*recipe_against_scale(raw, overrides, choices, folders), *stood_in(choices)]
    findings += facts_of_another(raw, overrides, choices, folders)
    notes = list(dict.fromkeys(finding for finding in findings if isinstance(finding, str)))
    wrong = [finding for finding in findings if isinstance(finding, Mistake)]
    if wrong:
        raise ConfigError(wrong, notes)
    config = Config.model_validate(raw)
    checked = [CheckedStage(name, config.stages[name], Config.model_validate(tree)) for name, tree in trees.items()]
    return CheckedRun(config=config, stages=checked, overrides=list(overrides), notes=notes, raw=raw)


def load_rewards(cfg: DictConfig) -> Config:
    """Check what concerns rewards alone, for tools that score and do not train.

    Raises:
        ConfigError: with every mistake that was found.
    """
    raw, mistakes = _plain_values(cfg)
    raw = without_removed(raw)
    groups, wrong = validate(raw)
    findings = [*mistakes, *wrong, *_ask((names.reward_names, judges.with_address), groups)]
    if found := [finding for finding in findings if isinstance(finding, Mistake)]:
        raise ConfigError(found)
    return Config.model_validate(raw)


def _check_stage(
    name: str, all_stages: Mapping[str, StageConfig], raw: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Mistake | str]]:
    """One stage's whole tree, and what is wrong with it beyond the base tree."""
    stage = all_stages[name]
    prefix = f"stages.{name}.config."
    tree = without_removed(stages.laid_over(raw, stage.config))
    groups, mistakes = validate(tree, prefix=prefix)
    # What is wrong in the base tree has been said without the prefix.
    findings: list[Mistake | str] = [m for m in mistakes if stages.has(stage.config, m.key.removeprefix(prefix))]
    known = dict(groups) | {"kind": stage.kind}
    if "algo" in groups:
        known["needed"] = []
        if stage.kind == "rl":
            made = attempt(groups["algo"])
            known |= {"made": made, "needed": roles_of_made(made)}
    if "model" in groups:
        facts, about = model.facts_of(groups["model"])
        known |= {"facts": facts} if facts else {}
        findings += about
    for finding in _ask(RULES[stage.kind], known):
        if isinstance(finding, Mistake) and stages.has(stage.config, finding.key):
            finding = replace(finding, key=prefix + finding.key)
        elif isinstance(finding, Mistake) and len(all_stages) > 1:
            finding = replace(finding, rule=f"{finding.rule} (stage {name})")
        findings.append(finding)
    return tree, findings


def _ask(asked: Iterable[Callable[..., Iterable[Mistake | str]]], known: Mapping[str, Any]) -> Iterator[Mistake | str]:
    """The findings of the rules all of whose parameters are known."""
    for rule in asked:
        parameters = list(inspect.signature(rule).parameters)
        if all(name in known for name in parameters):
            yield from rule(**{name: known[name] for name in parameters})


def _plain_values(cfg: DictConfig) -> tuple[dict[str, Any], list[Mistake]]:
    """Interpolations resolved, one that leads nowhere being a mistake and null from there on; keys that stand at ??? left out."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    mistakes: list[Mistake] = []
    while True:
        try:
            values = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
            return without(values, [tuple(key.split(".")) for key in OmegaConf.missing_keys(cfg)]), mistakes
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            rule = f"refers to something that is not there ({str(error).splitlines()[0]})"
            mistakes.append(Mistake(key=key, value="${...}", rule=rule, remedy="correct the name inside ${...}"))
            OmegaConf.update(cfg, key, None)
