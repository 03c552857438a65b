"""Do workers have the devices that they need, and do engines and trainers divide their model evenly?"""

from collections.abc import Iterator
from typing import NamedTuple

from r1ray.check.mistakes import Mistake
from r1ray.check.model import facts_of
from r1ray.config import (
    AuxiliaryTrainerConfig,
    CriticConfig,
    JudgeConfig,
    ModelConfig,
    ModelFacts,
    ReferenceConfig,
    RolloutConfig,
    TrainerConfig,
)
from r1ray.model.heads import head_splits
from r1ray.roles import TrainerRole, section_of


def devices(
    device: str,
    needed: list[str],
    rollout: RolloutConfig,
    judge: JudgeConfig,
    trainer: TrainerConfig,
    critic: CriticConfig,
    prm: AuxiliaryTrainerConfig,
    reference: ReferenceConfig,
    kind: str,
) -> Iterator[Mistake]:
    roles: dict[str, float] = {"trainer": trainer.gpus_per_worker} if kind != "eval" else {}
    others = {"critic": critic.gpus_per_worker, "prm": prm.gpus_per_worker, "reference": reference.gpus_per_worker}
    roles |= {role: gpus for role, gpus in others.items() if role in needed}
    engines: dict[str, RolloutConfig | JudgeConfig] = {} if kind == "sft" else {"rollout": rollout}
    if engines and judge.path is not None:
        engines["judge"] = judge
    roles |= {role: engine.gpus_per_worker for role, engine in engines.items()}
    for role, gpus in roles.items():
        key = f"{role}.gpus_per_worker"
        if device == "cpu" and gpus > 0:
            yield Mistake(key=key, value=gpus, rule="device is cpu", remedy=f"{key}=0, or device=cuda")
        if device == "cuda" and gpus == 0:
            rule = "device is cuda, so each worker needs a GPU or a share of one"
            yield Mistake(
                key=key, value=gpus, rule=rule, remedy=f"{key}=1, or scale=one_gpu to share one, or device=cpu"
            )
        if gpus > 1:
            rule = "a worker drives one GPU: at most 1"
            yield Mistake(key=key, value=gpus, rule=rule, remedy=f"{key}=1 and a larger {role}.num_workers")
    for role, engine in engines.items():
        size, gpus = engine.tensor_parallel_size, engine.gpus_per_worker
        if size > 1 and 0 < gpus < 1:
            rule = f"an engine split over {size} GPUs needs whole ones"
            remedy = f"{role}.gpus_per_worker=1, or {role}.tensor_parallel_size=1"
            yield Mistake(key=f"{role}.gpus_per_worker", value=gpus, rule=rule, remedy=remedy)
    ranks = {"trainer": trainer.num_workers, "critic": critic.num_workers, "prm": prm.num_workers}
    ranks |= {"reference": reference.num_workers} if reference.zero_stage == 3 else {}
    for role, num in ranks.items():
        if device == "cuda" and num > 1 and 0 < roles.get(role, 0) < 1:
            rule = f"{num} ranks that compute together need whole GPUs (NCCL joins each GPU once)"
            remedy = f"{role}.num_workers=1, or {role}.gpus_per_worker=1"
            yield Mistake(key=f"{role}.gpus_per_worker", value=roles[role], rule=rule, remedy=remedy)


def tensor_parallel(rollout: RolloutConfig, facts: ModelFacts) -> Iterator[Mistake]:
    yield from divides("rollout.tensor_parallel_size", rollout.tensor_parallel_size, facts)


def shared_rows(
    needed: list[str], trainer: TrainerConfig, critic: CriticConfig, prm: AuxiliaryTrainerConfig, kind: str
) -> Iterator[Mistake]:
    """Ranks that share rows come in whole groups."""
    for sharing in _sharing(needed, trainer, critic, prm, kind):
        num, size = sharing.num_workers, sharing.size
        if num % size:
            fits = max(n for n in range(1, size) if num % n == 0)
            yield Mistake(
                key=f"{section_of(sharing.role)}.num_workers",
                value=num,
                rule=f"{sharing.key}={size} ranks share each row, so it must be a multiple of {size}",
                remedy=f"{section_of(sharing.role)}.num_workers={-(-num // size) * size}, or {sharing.key}={fits}",
            )


def shared_heads(
    needed: list[str],
    trainer: TrainerConfig,
    critic: CriticConfig,
    prm: AuxiliaryTrainerConfig,
    kind: str,
    facts: ModelFacts,
) -> Iterator[Mistake]:
    """Ranks that share rows split the attention heads."""
    for sharing in _sharing(needed, trainer, critic, prm, kind):
        its = ModelConfig(path=sharing.path, template="none", facts=None, lora=None) if sharing.path else None
        own = facts_of(its)[0] if its else facts
        # A trainer that has both from the policy's would say the same again.
        if own is not None and (sharing.role == "policy" or sharing.path or sharing.size != trainer.sequence_parallel):
            yield from divides(sharing.key, sharing.size, own)


class _Sharing(NamedTuple):
    """How many ranks of a trainer share a row, and the key that says so."""

    role: TrainerRole
    key: str
    size: int
    num_workers: int
    path: str | None
    """Of a model other than the policy's."""


def _sharing(
    needed: list[str], trainer: TrainerConfig, critic: CriticConfig, prm: AuxiliaryTrainerConfig, kind: str
) -> Iterator[_Sharing]:
    """Of the trainers that a stage has."""
    if kind != "eval":
        yield _Sharing("policy", "trainer.sequence_parallel", trainer.sequence_parallel, trainer.num_workers, None)
    others: tuple[tuple[TrainerRole, AuxiliaryTrainerConfig], ...] = (("critic", critic), ("prm", prm))
    for role, other in others:
        size = other.overrides.get("sequence_parallel", trainer.sequence_parallel)
        # A value that is none is reported with the other keys of `critic.overrides`.
        if role in needed and isinstance(size, int) and size >= 1:
            yield _Sharing(role, f"{role}.overrides.sequence_parallel", size, other.num_workers, other.path)


def divides(key: str, size: int, facts: ModelFacts) -> Iterator[Mistake]:
    heads, kv_heads = facts.num_attention_heads, facts.num_key_value_heads
    fits = head_splits(heads, kv_heads)
    if size not in fits:
        yield Mistake(
            key=key,
            value=size,
            rule=f"must divide the model's {heads} attention heads, and divide or be a multiple of its {kv_heads} key-value heads",
            remedy=f"{key}={max(n for n in fits if n <= size)} (possible: {', '.join(map(str, fits))})",
        )
