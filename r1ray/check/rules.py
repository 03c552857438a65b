"""Rules that look at more than one key.

Each is a generator of findings (mistakes and notes) that reads the valid sections of a stage (`r1ray.config.view.StageView`).
"""

from collections.abc import Iterator
from importlib.util import find_spec
from math import lcm

from r1ray.config.run import best_metric
from r1ray.config.view import StageView
from r1ray.engine.reserved import RESERVED_ENGINE_ARGS
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, closest, did_you_mean
from r1ray.model.reserved import DEEPSPEED_BLOCKS, RESERVED_DEEPSPEED_KEYS, reserved_deepspeed_keys
from r1ray.roles import section_of
from r1ray.run.fault import parse
from r1ray.run.metrics import eval_metrics, is_metric
from r1ray.sync.backend import on_one_gpu, unusable_reason

MAX_LR = 1.0


def lengths(view: StageView) -> Iterator[Finding]:
    data, rollout, trainer, properties = view.data, view.rollout, view.trainer, view.properties
    total = data.max_prompt_length + rollout.max_response_length
    if total > properties.context_length:
        left = properties.context_length - data.max_prompt_length
        remedy = f"rollout.max_response_length={left}" if left > 0 else "lower data.max_prompt_length"
        rule = (
            f"data.max_prompt_length + max_response_length = {data.max_prompt_length} + {rollout.max_response_length} "
            f"= {total}, but the model's context is {properties.context_length} tokens"
        )
        remedy = f"{remedy}, or a model with a longer context"
        yield view.mistake("rollout.max_response_length", rule, remedy)
    elif total > trainer.max_tokens_per_micro_batch:
        yield (
            f"sequences of up to {total} tokens exceed "
            f"trainer.max_tokens_per_micro_batch={trainer.max_tokens_per_micro_batch}: "
            "each sequence that exceeds it is packed into a row of its own"
        )


def sft_length(view: StageView) -> Iterator[Finding]:
    sft, properties = view.sft, view.properties
    if sft.max_length > properties.context_length:
        rule = f"must fit the model's context of {properties.context_length} tokens"
        remedy = f"sft.max_length={properties.context_length}"
        yield view.mistake("sft.max_length", rule, remedy)


def transport(view: StageView) -> Iterator[Finding]:
    device, sync, rollout, trainer, cluster = view.device, view.sync, view.rollout, view.trainer, view.cluster
    backend = sync.backend
    reason = (
        None
        if backend == "auto"
        else unusable_reason(backend, device=device, rollout=rollout, trainer=trainer, cluster=cluster)
    )
    if reason and (view.kind.reinforcement or device == "cpu"):
        remedy = "sync.backend=auto" + (
            ", or rollout.gpus_per_worker=1 trainer.gpus_per_worker=1" if backend == "nccl" and device == "cuda" else ""
        )
        yield view.mistake("sync.backend", reason, remedy)


def sleeping(view: StageView) -> Iterator[Finding]:
    """Nothing is generated during training, so engines may always sleep then; the question is whether that frees anything."""
    device, rollout, trainer, cluster = view.device, view.rollout, view.trainer, view.cluster
    share = device == "cuda" and min(rollout.gpus_per_worker, trainer.gpus_per_worker) < 1
    if rollout.sleep and ":" in rollout.engine:
        yield f"{NOT_CHECKED}whether {rollout.engine} can sleep and wake"
    if rollout.sleep and device == "cpu":
        yield "rollout.sleep=true has no effect with device=cpu: vLLM keeps its memory"
    elif rollout.sleep and not share:
        yield "rollout.sleep=true has no effect: engine and trainer are not colocated"
    elif share and not rollout.sleep and on_one_gpu(rollout, trainer, cluster):
        yield (
            "engine and trainer share a GPU and rollout.sleep=false: the trainer has only the memory that the engine leaves free "
            "(rollout.engine_args.kv_cache_memory_bytes)"
        )


def optimizer(view: StageView) -> Iterator[Finding]:
    trainer = view.trainer
    if trainer.precision == "bf16" and trainer.zero_stage == 0:
        rule = "DeepSpeed's bf16 optimizer takes another code path without ZeRO and trains differently"
        remedy = "trainer.zero_stage=1, or trainer.precision=bf16_autocast"
        yield view.mistake("trainer.precision", rule, remedy)
    if trainer.cpu_offload and trainer.zero_stage == 0:
        rule = "DeepSpeed offloads the optimizer only with ZeRO stage 1 or higher"
        yield view.mistake("trainer.cpu_offload", rule, "trainer.zero_stage=1")


def learning_rates(view: StageView) -> Iterator[Mistake]:
    sections = {"trainer": view.trainer.lr, "critic": view.critic.lr, "prm": view.prm.lr}
    for section, lr in sections.items():
        if lr > MAX_LR and (section == "trainer" or section in view.roles):
            rule = (
                f"Adam moves each weight by about lr in every update: over {MAX_LR:g}, the first one destroys the model"
            )
            yield view.mistake(f"{section}.lr", rule, f"{section}.lr=1e-6; small models and adapters up to 1e-3")


def precision(view: StageView) -> Iterator[Finding]:
    trainer, rollout = view.trainer, view.rollout
    if trainer.precision == "fp32" and rollout.dtype == "bfloat16" and trainer.logprob_gap_limit is None:
        rule = (
            "trainer.precision=fp32 requires log-probs that agree to 1e-3, which a bfloat16 engine never reaches: every step "
            "would be skipped"
        )
        remedy = "rollout.dtype=float32, or trainer.precision=bf16_autocast, or trainer.logprob_gap_limit=0.5"
        yield view.mistake("rollout.dtype", rule, remedy)
    elif (trainer.precision == "fp32") != (rollout.dtype == "float32"):
        yield (
            f"trainer.precision={trainer.precision} and rollout.dtype={rollout.dtype} round differently: "
            "expect a larger mismatch/logprob_gap/max"
        )


def rewards(view: StageView) -> Iterator[Finding]:
    reward, data, eval = view.reward, view.data, view.eval
    if not any(part.has_weight for part in reward.components.values()):
        rule, remedy = "every weight is 0, so every reward would be 0", "reward.components.accuracy.weight=1.0"
        yield view.mistake("reward.components", rule, remedy, value=dict.fromkeys(reward.components, 0))
    if reward.local:
        rule = "is only for r1ray.grade: in a run, Ray actors compute the rewards"
        yield view.mistake("reward.local", rule, "reward.local=false")
    sources = {f"data.train.{name}": source for name, source in data.train.items()}
    sources |= {f"eval.sets.{name}": source for name, source in eval.sets.items()}
    named = {*data.train, *eval.sets}
    for name, component in reward.components.items():
        for source in set(component.sources or ()) - named:
            key, rule = f"reward.components.{name}.sources", "is not a name of data.train or eval.sets"
            others = [other for other in component.sources or () if other in named]
            without = f"{key}=[{','.join(others)}]" if others else f"reward.components.{name}=null"
            yield view.mistake(key, rule, f"{did_you_mean(source, named)}. Without it: {without}", value=source)
    for key, source in sources.items():
        component, name = reward.components.get(source.accuracy_component), key.rpartition(".")[2]
        rule, remedy = "names the reward component that decides whether a completion is correct, and ", ""
        if component is None:
            rule, remedy = (
                rule + "there is no such component",
                did_you_mean(source.accuracy_component, reward.components),
            )
        elif component.sources is not None and name not in component.sources:
            rule += f"the sources of that component do not include {name}"
            remedy = f"add {name} to reward.components.{source.accuracy_component}.sources, or name another component"
        if remedy:
            yield view.mistake(f"{key}.accuracy_component", rule, remedy)


def evaluation(view: StageView) -> Iterator[Finding]:
    eval, checkpoint = view.eval, view.checkpoint
    for k in eval.pass_at:
        if k > eval.num_samples:
            rule = f"pass@{k} needs at least {k} completions per prompt, eval.num_samples is {eval.num_samples}"
            yield view.mistake("eval.pass_at", rule, f"eval.num_samples={k}")
    if eval.temperature == 0 and eval.num_samples > 1:
        yield f"eval.temperature=0 makes all {eval.num_samples} completions of a prompt equal: eval.num_samples=1 is enough"
    best = best_metric(view)
    if best is None or not view.kind.trains:  # a stage that only evaluates saves nothing
        return
    every, evaluated = checkpoint.every_steps, eval.every_steps
    if view.kind.reinforcement and best.startswith("eval/") and every and evaluated and every % evaluated:
        yield (
            f"checkpoint.every_steps={every} is not a multiple of eval.every_steps={evaluated}: {best} is measured only "
            f"for checkpoints at an evaluation (every {lcm(every, evaluated)} steps, and the last), so only those can be the best"
        )
    there = [
        name
        for set_name in eval.sets
        for name in eval_metrics(set_name, pass_at=eval.pass_at, samples=eval.num_samples)
    ]
    if best in there or (not best.startswith("eval/") and is_metric(best)):
        return
    guess = closest(best, there)
    rule = "no evaluation set gives this metric" if best.startswith("eval/") else "there is no such metric"
    remedy = f"checkpoint.best_metric={guess or (there[0] if there else 'solve_rate')}, or null for none"
    yield view.mistake("checkpoint.best_metric", rule, remedy)


def engine_args(view: StageView) -> Iterator[Finding]:
    rollout, judge = view.rollout, view.judge
    engines = [("rollout", rollout.engine_args, rollout.engine)]
    if judge.path is not None:
        engines.append(("judge", judge.engine_args, "vLLM"))
    for role, args, engine in engines:
        for name in sorted(args.keys() & RESERVED_ENGINE_ARGS.keys()):
            instead = RESERVED_ENGINE_ARGS[name].replace("rollout", role)
            yield _reserved(f"{role}.engine_args.{name}", args[name], "" if instead == "judge.sleep" else instead)
        free = sorted(args.keys() - RESERVED_ENGINE_ARGS.keys())
        if free:
            yield f"{NOT_CHECKED}{role}.engine_args {', '.join(free)}: {engine} checks them when it starts"


def trainer_args(view: StageView) -> Iterator[Finding]:
    trainer = view.trainer
    for name in reserved_deepspeed_keys(trainer.deepspeed):
        outer, _, inner = name.partition(".")
        value = trainer.deepspeed[outer][inner] if inner else trainer.deepspeed[outer]
        yield _reserved(f"trainer.deepspeed.{name}", value, RESERVED_DEEPSPEED_KEYS[name])
    for name in DEEPSPEED_BLOCKS:
        if name in trainer.deepspeed and not isinstance(trainer.deepspeed[name], dict):
            key = f"trainer.deepspeed.{name}"
            remedy = f"{key}.KEY=VALUE with DeepSpeed's own keys" + (
                "; the stage is trainer.zero_stage" if name == "zero_optimization" else ""
            )
            rule = "must be a mapping (keys with values)"
            yield view.mistake(key, rule, remedy)


def _reserved(key: str, value: object, instead: str) -> Mistake:
    rule = "r1ray sets this, because log-probs, weights or the size of an update depend on it"
    return Mistake(key=key, value=value, rule=rule, remedy=f"remove it; set {instead}" if instead else "remove it")


def logging(view: StageView) -> Iterator[Finding]:
    log = view.log
    if log.tensorboard and find_spec("tensorboard") is None:
        rule = "the package tensorboard is not installed"
        yield view.mistake("log.tensorboard", rule, "pip install tensorboard, or log.tensorboard=false")


def faults(view: StageView) -> Iterator[Finding]:
    sections = {
        **{"rollout": view.rollout, "judge": view.judge, "reward": view.reward, "reference": view.reference},
        **{"policy": view.trainer, "critic": view.critic, "prm": view.prm},
    }
    num_workers = {"driver": 1} | {role: section.num_workers for role, section in sections.items()}
    for text in view.fault:
        try:
            fault = parse(text)
        except ValueError as error:
            yield view.mistake("fault", str(error), "for instance rollout:kill@2", value=text)
            continue
        if fault.index >= num_workers[fault.role]:
            rule = f"{fault.role} has {num_workers[fault.role]} workers, the first is {fault.role}-0"
            remedy = f"{fault.role}-0, or a larger {section_of(fault.role)}.num_workers"
            yield view.mistake("fault", rule, remedy, value=text)


def not_empty(view: StageView) -> Iterator[Finding]:
    if not view.kind.trains and not view.eval.sets:
        rule, remedy = (
            "names no dataset, and the stage only evaluates",
            "eval=countdown, or eval.sets.NAME.source=... .path=...",
        )
        yield view.mistake("eval.sets", rule, remedy)
    if view.kind.trains and not view.data.train:
        remedy = "data=countdown, or data.train.NAME.source=..."
        yield view.mistake("data.train", "names no dataset", remedy)
    if view.kind.reinforcement and not view.reward.components:
        yield view.mistake("reward.components", "names no reward", "reward=r1_zero")
