"""Turn the configuration that Hydra composed into the one that the run uses: evaluate every rule, report every mistake at once.

Needs no network, no Ray and no GPU, and imports neither torch nor transformers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.algo import training_roles, try_make
from r1ray.check import (
    algorithms,
    datasets,
    devices,
    directory,
    lora,
    model,
    plugins,
    rewards,
    rules,
    sampling,
    stages,
    trainers,
)
from r1ray.check.overrides import stale_model_properties, substitute_notes, values_replaced_by_scale
from r1ray.check.schema import validate, without_null_entries
from r1ray.config import Config, StageConfig
from r1ray.config.tree import has, merge, without
from r1ray.config.view import AllStages, InvalidSection, StageView
from r1ray.data import answer_marks
from r1ray.mistakes import ConfigError, Finding, Mistake
from r1ray.model.properties import properties_of
from r1ray.run import resume
from r1ray.stage_kinds import KINDS, StageKind

Rule = Callable[[StageView], Iterable[Finding]]

RUN_RULES: tuple[Rule, ...] = (rules.logging, directory.run_directory)
STAGE_RULES: tuple[Rule, ...] = (
    *(
        plugins.kind,
        plugins.sources,
        datasets.datasets,
        devices.devices,
        devices.sequence_parallel_size,
        devices.sequence_parallel_heads,
    ),
    *(
        rules.transport,
        rules.optimizer,
        rules.learning_rates,
        rules.trainer_args,
        rules.faults,
        rules.not_empty,
        model.model_files,
    ),
)
GENERATION_RULES: tuple[Rule, ...] = (
    *(
        devices.tensor_parallel,
        rules.lengths,
        sampling.whole_distribution,
        sampling.evaluation_temperature,
        rules.engine_args,
    ),
    *(
        rules.rewards,
        rules.evaluation,
        plugins.engine,
        plugins.rewards,
        rewards.payloads,
        rewards.own_judges,
        model.template,
        model.head_size,
        model.end_of_turn,
    ),
    answer_marks.marks_not_in_prompts,
)
TRAINING_RULES: tuple[Rule, ...] = (lora.targets, model.dense)
RL_RULES: tuple[Rule, ...] = (
    *(*algorithms.RULES, trainers.auxiliary_trainers, plugins.curriculum),
    *(sampling.temperature_schedule, rules.sleeping, rules.precision),
)
SFT_RULES: tuple[Rule, ...] = (rules.sft_length, lora.something_to_adapt)
RESUME_RULES: tuple[Rule, ...] = (resume.conflicts,)
"""For a stage that may resume from its checkpoint."""
NO_CHOICES: Mapping[str, str] = {}


class CheckedStage(NamedTuple):
    name: str
    stage: StageConfig
    config: Config
    """The whole tree with the stage's fragment laid over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """A configuration in which no mistake was found."""

    config: Config
    stages: list[CheckedStage]
    """In the order in which they run."""
    overrides: list[str]
    notes: list[str]
    """Remarks for the user. One about something that could not be checked begins with "not checked: "."""
    raw: dict[str, Any]
    """The resolved configuration as plain values, for config.yaml."""


def load(
    cfg: DictConfig,
    overrides: Sequence[str] = (),
    choices: Mapping[str, str] = NO_CHOICES,
    folders: Sequence[Path] = (),
) -> CheckedRun:
    """Check everything. `choices` is {group: option that Hydra selected}, `folders` are those that it searched; notes use both.

    Raises:
        ConfigError: with every mistake that was found.
    """
    raw, base, findings = _validated(cfg)
    findings += _findings(RUN_RULES, base)
    trees: dict[str, dict[str, Any]] = {}
    if "stages" in vars(base):
        all_stages = cast("Mapping[str, StageConfig]", base.stages)
        findings += [*stages.graph(all_stages), *stages.without_effect(all_stages, overrides)]
        findings += stages.removals_without_effect(raw, all_stages)
        names = stages.in_order(all_stages)
        trees = {name: without_null_entries(merge(raw, all_stages[name].config)) for name in names}
        found = {name: plugins.resolve_or_none(all_stages[name].kind, KINDS) for name in names}
        kinds = {name: kind for name, kind in found.items() if isinstance(kind, StageKind)}
        run = AllStages(stages=all_stages, trees=trees, kinds=kinds)
        for name in names:
            findings += _check_stage(name, run, base)
    findings += [*values_replaced_by_scale(raw, overrides, choices, folders), *substitute_notes(raw, choices)]
    findings += stale_model_properties(raw, overrides, choices, folders)
    notes = list(dict.fromkeys(finding for finding in findings if isinstance(finding, str)))
    if mistakes := [finding for finding in findings if isinstance(finding, Mistake)]:
        raise ConfigError(mistakes, notes)
    raw = plugins.with_defaults(raw)
    config = Config.model_validate(raw)
    checked = [
        CheckedStage(name, config.stages[name], Config.model_validate(plugins.with_defaults(tree)))
        for name, tree in trees.items()
    ]
    return CheckedRun(config=config, stages=checked, overrides=list(overrides), notes=notes, raw=raw)


def load_rewards(cfg: DictConfig) -> Config:
    """Check what concerns rewards alone, for tools that score and do not train.

    Raises:
        ConfigError: with every mistake that was found.
    """
    raw, base, findings = _validated(cfg)
    known = dict(vars(base))
    if "judge" in known:  # such a tool starts no judges
        known["judge"] = known["judge"].model_copy(update={"path": None})
    findings += _findings((plugins.rewards,), StageView(**known))
    if found := [finding for finding in findings if isinstance(finding, Mistake)]:
        raise ConfigError(found)
    return Config.model_validate(plugins.with_defaults(raw))


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, plug-ins' arguments with their defaults, for `--cfg job`; mistakes stay in it."""
    return plugins.with_defaults(without_null_entries(_plain_values(cfg)[0]))


def _validated(cfg: DictConfig) -> tuple[dict[str, Any], StageView, list[Finding]]:
    """Plain values, a view of their valid sections, and the mistakes of the others."""
    raw, mistakes = _plain_values(cfg)
    raw = without_null_entries(raw)
    sections, invalid = validate(raw)
    reported = {mistake.key for mistake in mistakes}
    return (
        raw,
        StageView(raw=plugins.with_defaults(raw), **sections),
        [*mistakes, *(m for m in invalid if m.key not in reported)],
    )


def _check_stage(name: str, run: AllStages, base: StageView) -> Iterator[Finding]:
    """The findings of one stage, without the mistakes of the base configuration."""
    stage, tree = run.stages[name], run.trees[name]
    prefix = f"stages.{name}.config."
    sections, mistakes = validate(tree, prefix=prefix)
    # Mistakes of the base tree have been reported without the prefix.
    yield from (m for m in mistakes if has(stage.config, m.key.removeprefix(prefix)))
    kind = run.kinds.get(name)
    if kind is None:
        yield from plugins.kind(StageView(name=name, run=run, raw=tree))
        return
    view = StageView(
        **sections | {"name": name, "kind": kind, "run": run, "raw": plugins.with_defaults(tree), "roles": []}
    )
    if kind.reinforcement and "algo" in sections:
        made = try_make(sections["algo"])
        failed = isinstance(made, Exception)
        known = {"algorithm_error": made} if failed else {"algorithm": made, "roles": training_roles(made)}
        view = StageView(**vars(view) | {"roles": ["policy"]} | known)
    if "model" in sections:
        properties, about = properties_of(sections["model"])
        text = model.template_text(sections["model"])
        view = StageView(
            **vars(view)
            | ({"properties": properties} if properties else {})
            | ({"template_text": text} if text is not None else {})
        )
        yield from about
    applicable = [*STAGE_RULES, *(GENERATION_RULES if kind.generates else ()), *(TRAINING_RULES if kind.trains else ())]
    applicable += RL_RULES if kind.reinforcement else SFT_RULES if kind.trains else ()
    applicable += RESUME_RULES if kind.trains and getattr(base, "resume", "") == "auto" else ()
    for finding in _findings(applicable, view):
        if isinstance(finding, Mistake) and has(stage.config, finding.key):
            remedy = finding.remedy.replace(f"{finding.key}=", f"{prefix}{finding.key}=")
            if "." in remedy.partition("?")[0]:
                remedy = remedy.replace("did you mean ", f"did you mean {prefix}")
            finding = replace(finding, key=prefix + finding.key, remedy=remedy)
        elif isinstance(finding, Mistake) and len(run.stages) > 1 and not finding.key.startswith("stages."):
            finding = replace(finding, rule=f"{finding.rule} (stage {name})")
        yield finding


def _findings(applicable: Iterable[Rule], view: StageView) -> Iterator[Finding]:
    for rule in applicable:
        with suppress(InvalidSection):
            yield from rule(view)


def _plain_values(cfg: DictConfig) -> tuple[dict[str, Any], list[Mistake]]:
    """The configuration with interpolations resolved, without keys that are ???. An interpolation of a missing key is a mistake
    and becomes null.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    mistakes: list[Mistake] = []
    while True:
        try:
            values = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
            return without(values, [tuple(key.split(".")) for key in OmegaConf.missing_keys(cfg)]), mistakes
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            rule = f"refers to a key that does not exist ({str(error).splitlines()[0]})"
            mistakes.append(Mistake(key=key, value="${...}", rule=rule, remedy="correct the name inside ${...}"))
            OmegaConf.update(cfg, key, None)
