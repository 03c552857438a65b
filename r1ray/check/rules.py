"""Rules that look at more than one key. Each is a generator of findings: a Mistake, or a plain sentence worth knowing.

A rule names the groups it reads as its parameters (`facts` is what is known of the model, `kind` the stage's kind, `needed` the
roles that its algorithm needs); it is asked only when all of them are sound, so one mistake never causes another message.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from math import lcm

from r1ray.check.mistakes import NOT_CHECKED, Mistake, closest, did_you_mean
from r1ray.config import (
    AuxiliaryTrainerConfig,
    CheckpointConfig,
    ClusterConfig,
    CriticConfig,
    DataConfig,
    EvalConfig,
    JudgeConfig,
    LogConfig,
    ModelFacts,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    SftConfig,
    SyncConfig,
    TrainerConfig,
)
from r1ray.engine.reserved import RESERVED_ENGINE_ARGS
from r1ray.model.reserved import reserved_deepspeed_keys
from r1ray.roles import section_of
from r1ray.run.fault import parse
from r1ray.run.metrics import eval_metrics, is_metric
from r1ray.sync.backend import on_one_gpu, why_not

Finding = Mistake | str
INSTEAD = {
    "model": "model.path",
    "seed": "seed",
    "dtype": "rollout.dtype",
    "max_model_len": "data.max_prompt_length and rollout.max_response_length",
    "tensor_parallel_size": "rollout.tensor_parallel_size",
    "enable_sleep_mode": "rollout.sleep",
    "train_micro_batch_size_per_gpu": "trainer.max_tokens_per_micro_batch",
    "train_batch_size": "algo.prompts_per_step, algo.group_size and algo.num_minibatches",
    "gradient_accumulation_steps": "trainer.max_tokens_per_micro_batch",
    "gradient_clipping": "trainer.grad_clip",
    "sequence_parallel_size": "trainer.sequence_parallel",
    "optimizer": "trainer.lr, betas, adam_eps and weight_decay",
    "scheduler": "trainer.lr_schedule, lr_min_ratio and warmup_updates",
    "fp16": "trainer.precision",
    "bf16": "trainer.precision",
    "torch_autocast": "trainer.precision",
    "activation_checkpointing": "trainer.activation_checkpointing",
    "zero_optimization.stage": "trainer.zero_stage",
    "zero_optimization.offload_optimizer": "trainer.cpu_offload",
}
"""{key that is refused in a pass-through: ours}."""
ROLES = ("rollout", "judge", "reward", "reference", "policy", "critic", "prm")
DEEPSPEED_BLOCKS = (
    *(
        "zero_optimization",
        "comms_logger",
        "flops_profiler",
        "aio",
        "tensorboard",
        "wandb",
        "csv_monitor",
        "checkpoint",
    ),
    *("data_efficiency", "curriculum_learning", "compression_training", "elasticity", "autotuning", "compile"),
)
"""Keys of DeepSpeed's configuration under which it expects further keys."""


def lengths(data: DataConfig, rollout: RolloutConfig, trainer: TrainerConfig, facts: ModelFacts) -> Iterator[Finding]:
    total = data.max_prompt_length + rollout.max_response_length
    if total > facts.context_length:
        left = facts.context_length - data.max_prompt_length
        remedy = f"rollout.max_response_length={left}" if left > 0 else "lower data.max_prompt_length"
        yield Mistake(
            key="rollout.max_response_length",
            value=rollout.max_response_length,
            rule=f"data.max_prompt_length + max_response_length = {data.max_prompt_length} + {rollout.max_response_length} "
            f"= {total}, but the model's context is {facts.context_length} tokens",
            remedy=f"{remedy}, or a model with a longer context",
        )
    elif total > trainer.max_tokens_per_micro_batch:
        yield (
            f"sequences of up to {total} tokens are longer than trainer.max_tokens_per_micro_batch={trainer.max_tokens_per_micro_batch}: "
            "each of those gets a row of its own"
        )


def sft_length(sft: SftConfig, facts: ModelFacts) -> Iterator[Finding]:
    if sft.max_length > facts.context_length:
        yield Mistake(
            key="sft.max_length",
            value=sft.max_length,
            rule=f"must fit the model's context of {facts.context_length} tokens",
            remedy=f"sft.max_length={facts.context_length}",
        )


def transport(
    device: str, sync: SyncConfig, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig, kind: str
) -> Iterator[Finding]:
    wanted = sync.backend
    reason = (
        None if wanted == "auto" else why_not(wanted, device=device, rollout=rollout, trainer=trainer, cluster=cluster)
    )
    if reason and (kind == "rl" or device == "cpu"):
        remedy = "sync.backend=auto" + (
            ", or rollout.gpus_per_worker=1 trainer.gpus_per_worker=1" if wanted == "nccl" and device == "cuda" else ""
        )
        yield Mistake(key="sync.backend", value=wanted, rule=reason, remedy=remedy)


def sleeping(device: str, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig) -> Iterator[Finding]:
    """Nothing is generated ahead of a step, so engines may always sleep while it is trained on; the question is who gains by it."""
    share = device == "cuda" and min(rollout.gpus_per_worker, trainer.gpus_per_worker) < 1
    if rollout.sleep and ":" in rollout.engine:
        yield f"{NOT_CHECKED}whether {rollout.engine} can sleep and wake (it is your own code)"
    if rollout.sleep and device == "cpu":
        yield "rollout.sleep=true with device=cpu: engines are told to sleep and to wake, and vLLM keeps its memory all the same"
    elif rollout.sleep and not share:
        yield "rollout.sleep=true gives memory back that nobody asks for: engines and trainers have GPUs of their own"
    elif share and not rollout.sleep and on_one_gpu(rollout, trainer, cluster):
        yield (
            "engine and trainer share a GPU and rollout.sleep=false: the trainer has to make do with what the engine leaves free "
            "all the time (rollout.engine_args.kv_cache_memory_bytes)"
        )


def precision(trainer: TrainerConfig, rollout: RolloutConfig, kind: str) -> Iterator[Finding]:
    if trainer.precision == "bf16" and trainer.zero_stage == 0:
        yield Mistake(
            key="trainer.precision",
            value="bf16",
            rule="DeepSpeed's bf16 optimizer without ZeRO follows another path and learns differently",
            remedy="trainer.zero_stage=1, or trainer.precision=bf16_autocast",
        )
    if trainer.cpu_offload and trainer.zero_stage == 0:
        rule = "DeepSpeed offloads the optimizer of ZeRO 1 and up"
        yield Mistake(key="trainer.cpu_offload", value=True, rule=rule, remedy="trainer.zero_stage=1")
    if kind != "rl":
        return
    if trainer.precision == "fp32" and rollout.dtype == "bfloat16" and trainer.logprob_gap_limit is None:
        yield Mistake(
            key="rollout.dtype",
            value="bfloat16",
            rule="with trainer.precision=fp32 log-probs must agree to 1e-3, and a bfloat16 engine's never do: no step would be "
            "trained on",
            remedy="rollout.dtype=float32, or trainer.precision=bf16_autocast, or trainer.logprob_gap_limit=0.5",
        )
    elif (trainer.precision == "fp32") != (rollout.dtype == "float32"):
        yield (
            f"trainer.precision={trainer.precision} and rollout.dtype={rollout.dtype} round differently: "
            "expect a larger mismatch/logprob_gap/max"
        )


def rewards(reward: RewardConfig, data: DataConfig, eval: EvalConfig) -> Iterator[Finding]:
    if not any(part.weighs for part in reward.components.values()):
        yield Mistake(
            key="reward.components",
            value={name: part.weight for name, part in reward.components.items()},
            rule="every weight is 0: there would be nothing to learn from",
            remedy="reward.components.accuracy.weight=1.0",
        )
    if reward.local:
        rule = "is for r1ray.grade: in a run the reward workers are actors"
        yield Mistake(key="reward.local", value=True, rule=rule, remedy="reward.local=false")
    sources = {f"data.train.{name}": source for name, source in data.train.items()}
    sources |= {f"eval.sets.{name}": source for name, source in eval.sets.items()}
    for key, source in sources.items():
        if source.accuracy not in reward.components:
            yield Mistake(
                key=f"{key}.accuracy",
                value=source.accuracy,
                rule="names the reward component that says whether a completion is correct, and there is no such part",
                remedy=did_you_mean(source.accuracy, reward.components),
            )
    named = {*data.train, *eval.sets}
    for name, part in reward.components.items():
        for source in part.sources or ():
            if source not in named:
                key, rule = f"reward.components.{name}.sources", "is not a name of data.train or eval.sets"
                others = [other for other in part.sources or () if other in named]
                without = f"{key}=[{','.join(others)}]" if others else f"reward.components.{name}=null"
                remedy = f"{did_you_mean(source, named)}. Without it: {without}"
                yield Mistake(key=key, value=source, rule=rule, remedy=remedy)
    for key, source in sources.items():
        part, name = reward.components.get(source.accuracy), key.rpartition(".")[2]
        if part is not None and part.sources is not None and name not in part.sources:
            rule = (
                f"names the reward component that says whether a completion is correct, and that part leaves {name} out"
            )
            remedy = f"add {name} to reward.components.{source.accuracy}.sources, or name another part"
            yield Mistake(key=f"{key}.accuracy", value=source.accuracy, rule=rule, remedy=remedy)


def overlong(reward: RewardConfig, rollout: RolloutConfig, kind: str) -> Iterator[Finding]:
    """Soft overlong punishment (arXiv 2503.14476, 3.4): does its cache fit the completions?"""
    for name, part in reward.components.items():
        limit, cache = part.args.get("max_length") or rollout.max_response_length, part.args.get("cache")
        if (part.name or name) != "overlong" or cache is None:
            continue
        key = f"reward.components.{name}.args.cache"
        if not (isinstance(limit, int) and isinstance(cache, int)):
            rule = f"cache and max_length are tokens, whole numbers, and these are {cache!r} and {limit!r}"
            yield Mistake(key=key, value=cache, rule=rule, remedy=f"{key}={rollout.max_response_length // 5}")
        elif not 0 < cache <= limit:
            rule = f"the last tokens of the {limit} that a completion may have, so at least 1 and at most all of them"
            yield Mistake(key=key, value=cache, rule=rule, remedy=f"{key}={max(1, limit // 5)} (DAPO: a fifth)")
        elif kind == "rl" and 2 * cache > limit:
            yield (
                f"{key}={cache} punishes a completion from its token {limit - cache} on, of {limit} that it may have: for DAPO's fifth "
                f"{key}={limit // 5}"
            )


def evaluation(eval: EvalConfig, checkpoint: CheckpointConfig, kind: str) -> Iterator[Finding]:
    for k in eval.pass_at:
        if k > eval.num_samples:
            rule = f"pass@{k} needs at least {k} completions a problem, eval.num_samples is {eval.num_samples}"
            yield Mistake(key="eval.pass_at", value=eval.pass_at, rule=rule, remedy=f"eval.num_samples={k}")
    if eval.temperature == 0 and eval.num_samples > 1:
        yield f"eval.temperature=0 makes all {eval.num_samples} completions of a problem equal: eval.num_samples=1 says the same"
    best = checkpoint.best_metric
    if best is None:
        return
    every, evaluated = checkpoint.every_steps, eval.every_steps
    if kind == "rl" and best.startswith("eval/") and every and evaluated and every % evaluated:
        yield (
            f"checkpoint.every_steps={every} is not a multiple of eval.every_steps={evaluated}: {best} is known only of the "
            f"checkpoints that fall on an evaluation (every {lcm(every, evaluated)} steps, and the last), only those can be best"
        )
    there = [
        name
        for set_name in eval.sets
        for name in eval_metrics(set_name, pass_at=eval.pass_at, samples=eval.num_samples)
    ]
    if best in there or (not best.startswith("eval/") and is_metric(best)):
        return
    guess = closest(best, there)
    yield Mistake(
        key="checkpoint.best_metric",
        value=best,
        rule="no evaluation set gives this metric" if best.startswith("eval/") else "there is no such metric",
        remedy=f"checkpoint.best_metric={guess or (there[0] if there else 'solve_rate')}, or null for none",
    )


def engine_args(rollout: RolloutConfig, judge: JudgeConfig) -> Iterator[Finding]:
    engines = [("rollout", rollout.engine_args, rollout.engine)]
    if judge.path is not None:
        engines.append(("judge", judge.engine_args, "vLLM"))
    for role, args, engine in engines:
        for name in sorted(args.keys() & set(RESERVED_ENGINE_ARGS)):
            instead = INSTEAD.get(name, "").replace("rollout", role)
            yield _reserved(f"{role}.engine_args.{name}", args[name], "" if instead == "judge.sleep" else instead)
        free = sorted(args.keys() - set(RESERVED_ENGINE_ARGS))
        if free:
            yield f"{NOT_CHECKED}{role}.engine_args {', '.join(free)}: only {engine} itself knows what it takes"


def trainer_args(trainer: TrainerConfig) -> Iterator[Finding]:
    for name in reserved_deepspeed_keys(trainer.deepspeed):
        outer, _, inner = name.partition(".")
        value = trainer.deepspeed[outer][inner] if inner else trainer.deepspeed[outer]
        yield _reserved(f"trainer.deepspeed.{name}", value, INSTEAD.get(name, ""))
    for name in DEEPSPEED_BLOCKS:
        if name in trainer.deepspeed and not isinstance(trainer.deepspeed[name], dict):
            key = f"trainer.deepspeed.{name}"
            remedy = f"{key}.KEY=VALUE with DeepSpeed's own keys" + (
                "; the stage is trainer.zero_stage" if name == "zero_optimization" else ""
            )
            rule = "must be a mapping (keys with values)"
            yield Mistake(key=key, value=trainer.deepspeed[name], rule=rule, remedy=remedy)


def _reserved(key: str, value: object, instead: str) -> Mistake:
    rule = "r1ray sets this itself, because log-probs, weights or the size of an update depend on it"
    return Mistake(key=key, value=value, rule=rule, remedy=f"remove it; set {instead}" if instead else "remove it")


def labels(cluster: ClusterConfig) -> Iterator[Finding]:
    for role in cluster.labels.keys() - set(ROLES):
        rule = "labels place the workers of a role, and there is no such role"
        yield Mistake(
            key=f"cluster.labels.{role}", value=cluster.labels[role], rule=rule, remedy=did_you_mean(role, ROLES)
        )


def logging(log: LogConfig) -> Iterator[Finding]:
    if log.tensorboard and find_spec("tensorboard") is None:
        rule = "the package tensorboard is not installed"
        yield Mistake(
            key="log.tensorboard", value=True, rule=rule, remedy="pip install tensorboard, or log.tensorboard=false"
        )


def faults(
    fault: list[str],
    rollout: RolloutConfig,
    judge: JudgeConfig,
    reward: RewardConfig,
    reference: ReferenceConfig,
    trainer: TrainerConfig,
    critic: CriticConfig,
    prm: AuxiliaryTrainerConfig,
) -> Iterator[Finding]:
    there = {"driver": 1, "rollout": rollout.num_workers, "judge": judge.num_workers, "reward": reward.num_workers}
    there |= {"reference": reference.num_workers, "policy": trainer.num_workers}
    there |= {"critic": critic.num_workers, "prm": prm.num_workers}
    for text in fault:
        try:
            wanted = parse(text)
        except ValueError as error:
            yield Mistake(key="fault", value=text, rule=str(error), remedy="for instance rollout:kill@2")
            continue
        if wanted.index >= there[wanted.role]:
            rule = f"{wanted.role} has {there[wanted.role]} workers, the first is {wanted.role}-0"
            yield Mistake(
                key="fault",
                value=text,
                rule=rule,
                remedy=f"{wanted.role}-0, or more {section_of(wanted.role)}.num_workers",
            )


def not_empty(data: DataConfig, reward: RewardConfig, eval: EvalConfig, kind: str) -> Iterator[Finding]:
    if kind == "eval":
        if not eval.sets:
            rule = "names no dataset, and an eval stage does nothing but evaluate"
            yield Mistake(
                key="eval.sets", value={}, rule=rule, remedy="eval=countdown, or eval.sets.NAME.source=... .path=..."
            )
        return
    if not data.train:
        yield Mistake(
            key="data.train", value={}, rule="names no dataset", remedy="data=countdown, or data.train.NAME.source=..."
        )
    if kind == "rl" and not reward.components:
        yield Mistake(key="reward.components", value={}, rule="names no reward", remedy="reward=r1_zero")
