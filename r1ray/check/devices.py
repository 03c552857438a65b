"""Do workers have the devices that they need, and do engines and trainers divide their model evenly?"""

from collections.abc import Iterator
from contextlib import suppress

from pydantic import ValidationError

from r1ray.config import JudgeConfig, ModelConfig, ModelProperties, RolloutConfig, TrainerConfig
from r1ray.config.view import StageView
from r1ray.mistakes import Mistake
from r1ray.model.heads import head_splits
from r1ray.model.properties import properties_of
from r1ray.roles import TRAINERS, TrainerRole, section_of, trainer_config


def devices(view: StageView) -> Iterator[Mistake]:
    device = view.device
    sections = {"trainer": view.trainer, "critic": view.critic, "prm": view.prm, "reference": view.reference}
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
    for role, engine in engines.items():
        size, gpus = engine.tensor_parallel_size, engine.gpus_per_worker
        if size > 1 and 0 < gpus < 1:
            rule = f"an engine split over {size} GPUs needs whole ones"
            remedy = f"{role}.gpus_per_worker=1, or {role}.tensor_parallel_size=1"
            yield view.mistake(f"{role}.gpus_per_worker", rule, remedy)
    for role, section in sections.items():
        together = role != "reference" or view.reference.zero_stage == 3
        if device == "cuda" and together and section.num_workers > 1 and 0 < roles.get(role, 0) < 1:
            rule = f"{section.num_workers} ranks that compute together need whole GPUs (NCCL allows one rank per GPU)"
            remedy = f"{role}.num_workers=1, or {role}.gpus_per_worker=1"
            yield view.mistake(f"{role}.gpus_per_worker", rule, remedy)


def tensor_parallel(view: StageView) -> Iterator[Mistake]:
    yield from divides("rollout.tensor_parallel_size", view.rollout.tensor_parallel_size, view.properties)


def sequence_parallel_size(view: StageView) -> Iterator[Mistake]:
    """The number of ranks is a multiple of the sequence-parallel size."""
    for role, key, trainer in _trainers(view):
        num, size = trainer.num_workers, trainer.sequence_parallel
        if num % size:
            fits = max(n for n in range(1, size) if num % n == 0)
            workers, rule = (
                f"{section_of(role)}.num_workers",
                f"{key}={size} ranks share each row, so it must be a multiple of {size}",
            )
            yield view.mistake(workers, rule, f"{workers}={-(-num // size) * size}, or {key}={fits}")


def sequence_parallel_heads(view: StageView) -> Iterator[Mistake]:
    """Ranks that share rows split the attention heads."""
    paths = {"policy": None, "critic": view.critic.path, "prm": view.prm.path}
    for role, key, trainer in _trainers(view):
        model = ModelConfig(path=path, template="none", properties=None, lora=None) if (path := paths[role]) else None
        properties = properties_of(model)[0] if model else view.properties
        # A trainer with the policy's model and size would repeat the policy's mistake.
        repeats = role != "policy" and not model and trainer.sequence_parallel == view.trainer.sequence_parallel
        if properties is not None and not repeats:
            yield from divides(key, trainer.sequence_parallel, properties)


def _trainers(view: StageView) -> Iterator[tuple[TrainerRole, str, TrainerConfig]]:
    """(role, key of its sequence parallelism, configuration) of the trainers that a stage starts."""
    for role in TRAINERS:
        if role in view.roles or (role == "policy" and view.kind.trains):
            key = "trainer.sequence_parallel" if role == "policy" else f"{role}.overrides.sequence_parallel"
            with suppress(ValidationError):  # reported by trainers.auxiliary_trainers
                yield role, key, trainer_config(view, role)


def divides(key: str, size: int, properties: ModelProperties) -> Iterator[Mistake]:
    heads, kv_heads = properties.num_attention_heads, properties.num_key_value_heads
    fits = head_splits(heads, kv_heads)
    if size not in fits:
        rule = f"must divide the model's {heads} attention heads, and divide or be a multiple of its {kv_heads} key-value heads"
        remedy = f"{key}={max(n for n in fits if n <= size)} (possible: {', '.join(map(str, fits))})"
        yield Mistake(key=key, value=size, rule=rule, remedy=remedy)
