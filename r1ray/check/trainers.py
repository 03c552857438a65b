"""The critic and the process reward model: are their trainers' keys valid, and is there a model to start from?"""

from collections.abc import Iterator
from dataclasses import replace

from pydantic import ValidationError

from r1ray.check.rules import optimizer, trainer_args
from r1ray.check.schema import as_mistakes
from r1ray.config import AuxiliaryTrainerConfig, ModelConfig, TrainerConfig
from r1ray.config.view import StageView
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake
from r1ray.model.files import token_count
from r1ray.model.properties import missing_files, properties_of
from r1ray.roles import TrainerRole

OWN = AuxiliaryTrainerConfig.model_fields.keys() & TrainerConfig.model_fields.keys()
POLICY_ONLY = {"logprob_gap_limit", "timeout_s", "start_timeout_s"}
"""Keys that concern the policy, or all trainers together."""


def auxiliary_trainers(view: StageView) -> Iterator[Finding]:
    completions = view.algo.prompts_per_step * view.algo.group_size
    objectives = view.algorithm.objectives
    sections: dict[TrainerRole, AuxiliaryTrainerConfig] = {"critic": view.critic, "prm": view.prm}
    for name, section in sections.items():
        yield from _overrides(f"{name}.overrides", section, view.trainer)
        objective = objectives.get(name)
        if objective and 0 < completions // objective.updates_per_step < section.num_workers:
            samples = completions // objective.updates_per_step
            yield f"an update of the {name} has {samples} samples for {section.num_workers} ranks: some ranks idle"
        if section.path is None:
            continue
        if objective is None:
            rule = f"algo.name={view.algo.name} has no such trainer, so this model would not be loaded"
            yield view.mistake(f"{name}.path", rule, f"{name}.path=null")
            continue
        model = ModelConfig(path=section.path, template="none", properties=None, lora=None)
        found, findings = properties_of(model)
        for finding in (*findings, *missing_files(model, tokenizer=False)):
            yield replace(finding, key=f"{name}.path") if isinstance(finding, Mistake) else finding
        if found is not None and found.vocab_size < view.properties.vocab_size:
            yield from _vocabulary(f"{name}.path", section.path, found.vocab_size, view)


def _vocabulary(key: str, path: str, size: int, view: StageView) -> Iterator[Finding]:
    """The policy's vocabulary may be padded, so a smaller one is allowed if it has every token of the tokenizer."""
    policy = view.model.path
    tokens = token_count(policy)
    if tokens is None:
        yield (
            f"{NOT_CHECKED}whether the vocabulary of {key}={path} ({size}) has every token of {policy}'s tokenizer: "
            f"the policy has room for {view.properties.vocab_size}"
        )
    elif size < tokens:
        rule = f"its vocabulary of {size} lacks some of the {tokens} tokens of the policy's tokenizer, which both models read"
        remedy = f"a model of the policy's family, or {key}=null"
        yield view.mistake(key, rule, remedy)


def _overrides(key: str, section: AuxiliaryTrainerConfig, trainer: TrainerConfig) -> Iterator[Finding]:
    """The keys of `critic.overrides` are keys of `trainer` that the critic has no key for, and their values are valid."""
    given = dict(section.overrides)
    for name in given.keys() & (OWN | POLICY_ONLY):
        other = "trainer" if name in POLICY_ONLY else key.partition(".")[0]
        remedy = f"{other}.{name}={given[name]}"
        yield Mistake(key=f"{key}.{name}", value=given.pop(name), rule=f"must be set as {other}.{name}", remedy=remedy)
    try:
        merged = TrainerConfig.model_validate({**trainer.model_dump(), **given})
    except ValidationError as error:
        yield from as_mistakes(error, TrainerConfig, given, owner="trainer", prefix=f"{key}.")
        return
    reported = {finding.key for finding in _of_one_trainer(trainer) if isinstance(finding, Mistake)}
    for finding in _of_one_trainer(merged):
        if isinstance(finding, Mistake) and finding.key not in reported:
            name = finding.key.removeprefix("trainer.")
            yield replace(finding, key=f"{key}.{name}", remedy=finding.remedy.replace("trainer.", f"{key}."))


def _of_one_trainer(trainer: TrainerConfig) -> Iterator[Finding]:
    view = StageView(trainer=trainer, raw={"trainer": trainer.model_dump()})
    yield from optimizer(view)
    yield from trainer_args(view)
