"""Do workers have the devices that they need, and do engines and trainers divide their model evenly?"""

from collections.abc import Iterator
from typing import NamedTuple

from r1ray.check.model import facts_of
from r1ray.config import (
    AuxiliaryTrainerConfig,
    JudgeConfig,
    ModelConfig,
    ModelFacts,
    RolloutConfig,
)
from r1ray.config.view import StageView
from r1ray.mistakes import Mistake
from r1ray.model.heads import head_splits
from r1ray.trainers import TrainerRole, section_of


def devices(view: StageView) -> Iterator[Mistake]:
    device, sections = (
        view.device,
        {"trainer": view.trainer, "critic": view.critic, "prm": view.prm, "reference": view.reference},
    )
    roles = {role: sections[role].gpus_per_worker for role in view.roles if role in sections}
    if view.kind.trains:
        roles["trainer"] = view.trainer.gpus_per_worker
    engines: dict[str, RolloutConfig | JudgeConfig] = {"rollout": view.rollout} if view.kind.generates else {}
    if engines and view.judge.path is not None:
        engines["judge"] = view.judge
    roles |= {role: engine.gpus_per_worker for role, engine in engines.items()}
    for role, gpus in roles.items():
        key = f"{role}.gpus_per_worker"
        if device == "cpu" and gpus > 0:
            yield view.mistake(key, "device is cpu", f"{key}=0, or device=cuda")
        if device == "cuda" and gpus == 0:
            rule = "device is cuda, so each worker needs a GPU or a share of one"
            remedy = f"{key}=1, or scale=one_gpu to share one, or device=cpu"
            yield view.mistake(key, rule, remedy)
        if gpus > 1:
            rule, remedy = "a worker drives one GPU: at most 1", f"{key}=1 and a larger {role}.num_workers"
            yield view.mistake(key, rule, remedy)
    for role, engine in engines.items():
        size, gpus = engine.tensor_parallel_size, engine.gpus_per_worker
        if size > 1 and 0 < gpus < 1:
            rule = f"an engine split over {size} GPUs needs whole ones"
            remedy = f"{role}.gpus_per_worker=1, or {role}.tensor_parallel_size=1"
            yield view.mistake(f"{role}.gpus_per_worker", rule, remedy)
    for role, section in sections.items():
        together = role != "reference" or view.reference.zero_stage == 3
        if device == "cuda" and together and section.num_workers > 1 and 0 < roles.get(role, 0) < 1:
            rule = f"{section.num_workers} ranks that compute together need whole GPUs (NCCL joins each GPU once)"
            remedy = f"{role}.num_workers=1, or {role}.gpus_per_worker=1"
            yield view.mistake(f"{role}.gpus_per_worker", rule, remedy)


def tensor_parallel(view: StageView) -> Iterator[Mistake]:
    yield from divides("rollout.tensor_parallel_size", view.rollout.tensor_parallel_size, view.facts)


def shared_rows(view: StageView) -> Iterator[Mistake]:
    """Ranks that share rows come in whole groups."""
    for sharing in _sharing(view):
        num, size = sharing.num_workers, sharing.size
        if num % size:
            fits = max(n for n in range(1, size) if num % n == 0)
            yield view.mistake(
                f"{section_of(sharing.role)}.num_workers",
                f"{sharing.key}={size} ranks share each row, so it must be a multiple of {size}",
                f"{section_of(sharing.role)}.num_workers={-(-num // size) * size}, or {sharing.key}={fits}",
            )


def shared_heads(view: StageView) -> Iterator[Mistake]:
    """Ranks that share rows split the attention heads."""
    trainer, facts = view.trainer, view.facts
    for sharing in _sharing(view):
        model = ModelConfig(path=sharing.path, template="none", facts=None, lora=None) if sharing.path else None
        own = facts_of(model)[0] if model else facts
        # A trainer with the policy's model and size would repeat the policy's mistake.
        if own is not None and (sharing.role == "policy" or sharing.path or sharing.size != trainer.sequence_parallel):
            yield from divides(sharing.key, sharing.size, own)


class _Sharing(NamedTuple):
    """How many ranks of a trainer share a row, and the key that sets it."""

    role: TrainerRole
    key: str
    size: int
    num_workers: int
    path: str | None
    """Of a model other than the policy's."""


def _sharing(view: StageView) -> Iterator[_Sharing]:
    """Of the trainers that a stage has."""
    needed, trainer, critic, prm = view.roles, view.trainer, view.critic, view.prm
    if view.kind.trains:
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
