"""Do workers have the devices that they need, and do engines divide their model evenly?"""

from collections.abc import Iterator

from r1ray.algo import roles_of
from r1ray.check.mistakes import Mistake
from r1ray.config import (
    AlgoConfig,
    CriticConfig,
    JudgeConfig,
    ModelFacts,
    OtherTrainerConfig,
    ReferenceConfig,
    RolloutConfig,
    TrainerConfig,
)


def devices(
    device: str,
    algo: AlgoConfig,
    rollout: RolloutConfig,
    judge: JudgeConfig,
    trainer: TrainerConfig,
    critic: CriticConfig,
    prm: OtherTrainerConfig,
    reference: ReferenceConfig,
    kind: str,
) -> Iterator[Mistake]:
    roles: dict[str, float] = {"trainer": trainer.gpus_per_worker} if kind != "eval" else {}
    needed = roles_of(algo) if kind == "rl" else []
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


def tensor_parallel(rollout: RolloutConfig, facts: ModelFacts) -> Iterator[Mistake]:
    yield from divides("rollout", rollout.tensor_parallel_size, facts)


def divides(role: str, size: int, facts: ModelFacts) -> Iterator[Mistake]:
    heads, kv_heads = facts.num_attention_heads, facts.num_key_value_heads
    # vLLM splits query heads evenly; key-value heads are split, or each is copied to the same number of devices.
    fits = [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
    if size not in fits:
        key = f"{role}.tensor_parallel_size"
        yield Mistake(
            key=key,
            value=size,
            rule=f"must divide the model's {heads} attention heads, and divide or be a multiple of its {kv_heads} key-value heads",
            remedy=f"{key}={max(n for n in fits if n <= size)} (possible: {', '.join(map(str, fits))})",
        )
