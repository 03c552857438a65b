"""The critic and the process reward model: are their trainers' keys sound, and is there a model to start from?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from r1ray.mistakes import NOT_CHECKED, Mistake, did_you_mean
from r1ray.check.model import facts_of, files, token_count
from r1ray.check.rules import precision, trainer_args
from r1ray.config import (
    AlgoConfig,
    AuxiliaryTrainerConfig,
    CriticConfig,
    ModelConfig,
    ModelFacts,
    RolloutConfig,
    TrainerConfig,
)

OWN = AuxiliaryTrainerConfig.model_fields.keys() & TrainerConfig.model_fields.keys()
THE_POLICYS = {"logprob_gap_limit", "timeout_s", "start_timeout_s"}
"""Keys that concern the policy, or all trainers alike."""


def other_trainers(view: StageView) -> Iterator[Mistake | str]:
    algo, rollout, trainer, critic, prm, steps, facts, model, needed = view.algo, view.rollout, view.trainer, view.critic, view.prm, view.steps, view.facts, view.model, view.roles
    if "prm" in needed and algo.reference_refresh_updates:
        key, rule = (
            "algo.reference_refresh_updates",
            "process rewards are measured from the reference, which has to stay",
        )
        yield Mistake(key=key, value=algo.reference_refresh_updates, rule=rule, remedy=f"{key}=0")
    frozen = algo.args.get("policy_frozen_steps", 0)
    if isinstance(frozen, int) and frozen >= steps:
        key, rule = "algo.args.policy_frozen_steps", f"of steps={steps} none would be left in which the policy learns"
        yield Mistake(key=key, value=frozen, rule=rule, remedy=f"{key}={steps // 4}, or more steps")
    for name, other in (("critic", critic), ("prm", prm)):
        yield from _keys(f"{name}.overrides", other, trainer, rollout)
        updates, completions = algo.args.get(f"{name}_updates", 1), algo.prompts_per_step * algo.group_size
        if name in needed and isinstance(updates, int) and 0 < completions // max(1, updates) < other.num_workers:
            yield f"an update of the {name} has {completions // max(1, updates)} samples for {other.num_workers} ranks: some ranks idle"
        if other.path is None:
            continue
        if name not in needed:
            rule = f"algo.name={algo.name} has no such trainer, so nobody would load this model"
            yield Mistake(key=f"{name}.path", value=other.path, rule=rule, remedy=f"{name}.path=null")
            continue
        its = ModelConfig(path=other.path, template="none", facts=None, lora=None)
        found, findings = facts_of(its)
        for finding in (*findings, *files(its, tokenizer=False)):
            yield replace(finding, key=f"{name}.path") if isinstance(finding, Mistake) else finding
        if found is not None and found.vocab_size < facts.vocab_size:
            yield from _vocabulary(
                f"{name}.path", other.path, found.vocab_size, policy=model.path, of_policy=facts.vocab_size
            )


def _vocabulary(key: str, path: str, size: int, *, policy: str, of_policy: int) -> Iterator[Mistake | str]:
    """A model of a smaller vocabulary than the policy's (whose weights may be padded) must have every token of the tokenizer."""
    tokens = token_count(policy)
    if tokens is None:
        yield (
            f"{NOT_CHECKED}whether the vocabulary of {key}={path} ({size}) has every token of {policy}'s tokenizer: "
            f"the policy's own has room for {of_policy}"
        )
    elif size < tokens:
        rule = f"its vocabulary of {size} has not every token of the policy's tokenizer, which are {tokens}: both read the same"
        remedy = f"a model of the policy's family, or {key}=null"
        yield Mistake(key=key, value=path, rule=rule, remedy=remedy)


def _keys(key: str, other: AuxiliaryTrainerConfig, trainer: TrainerConfig, rollout: RolloutConfig) -> Iterator[Mistake]:
    """Those of `critic.overrides`: known, sound and not said twice."""
    for name, value in other.overrides.items():
        if name in OWN:
            whole = f"{key.partition('.')[0]}.{name}"
            yield Mistake(
                key=f"{key}.{name}", value=value, rule="is a key of its own, not an override", remedy=f"{whole}={value}"
            )
        elif name in THE_POLICYS:
            yield Mistake(key=f"{key}.{name}", value=value, rule="is trainer's alone", remedy=f"trainer.{name}={value}")
        elif name not in TrainerConfig.model_fields:
            remedy = did_you_mean(name, TrainerConfig.model_fields)
            yield Mistake(key=f"{key}.{name}", value=value, rule="there is no such key of trainer", remedy=remedy)
    known = {name: value for name, value in other.overrides.items() if name in TrainerConfig.model_fields}
    try:
        merged = TrainerConfig.model_validate({**trainer.model_dump(), **known})
    except ValidationError as error:
        for problem in error.errors():
            name: Any = problem["loc"][0]
            remedy = f"as trainer.{name}={getattr(trainer, name)}"
            yield Mistake(key=f"{key}.{name}", value=problem["input"], rule=problem["msg"], remedy=remedy)
        return
    said = {finding.key for finding in _rules(trainer, rollout) if isinstance(finding, Mistake)}
    for finding in _rules(merged, rollout):
        if isinstance(finding, Mistake) and finding.key not in said:  # else it has been said of the policy's
            name = finding.key.removeprefix("trainer.")
            yield replace(finding, key=f"{key}.{name}", remedy=finding.remedy.replace("trainer.", f"{key}."))


def _rules(view: StageView) -> Iterator[Mistake | str]:
    """Those that look at one trainer alone."""
    trainer, rollout = view.trainer, view.rollout
    yield from precision(trainer, rollout, "sft")
    yield from trainer_args(trainer)
