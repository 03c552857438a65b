"""A stage of kind `rl`: the loop of `r1ray.loop` on groups of actors."""

import atexit
import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import r1ray.algo
from r1ray.actors.group import ActorGroup
from r1ray.actors.reference_group import ReferenceGroup
from r1ray.actors.start import actor_groups, scoring_roles, wait_until_ready
from r1ray.actors.trainer_group import TrainerGroup
from r1ray.actors.watchdog import Watchdog
from r1ray.actors.weight_sync import SyncFailed, WeightSync
from r1ray.actors.workers import RayWorkers
from r1ray.algo.base import Algorithm, Need, Objective
from r1ray.annotate import annotate
from r1ray.collect import Collector
from r1ray.collect.outages import Outages
from r1ray.collect.reward_errors import RewardErrors
from r1ray.config import Config, RolloutConfig
from r1ray.data import curriculum
from r1ray.data.prompts import ProblemSet, evaluation_sets, training_sets
from r1ray.data.stream import Problems, ProblemStream
from r1ray.engine.base import SamplingSpec
from r1ray.evaluator import evaluator_of
from r1ray.failures import RestartBudget
from r1ray.loop import LoopComponents, train
from r1ray.roles import TRAINERS, TrainerRole, trainer_config
from r1ray.run.checkpoint import Checkpoint, Checkpoints, Progress
from r1ray.run.ledger import Ledger
from r1ray.run.phases import announce, phase
from r1ray.run.seal import sealed
from r1ray.run.stop import raise_if_stop_requested, stop_requested
from r1ray.stages.context import StageContext
from r1ray.stages.faults import Faults
from r1ray.stages.recovery import run_with_recovery
from r1ray.step_schedule import value_at

START = Progress(step=0, updates=0, version=0)


def run(context: StageContext) -> None:
    """Train from context.model_path, or from the newest valid checkpoint when the run resumes, to cfg.steps."""
    cfg = context.cfg
    checkpoints = context.checkpoints()
    checkpoint = context.resume_checkpoint(checkpoints)
    progress = checkpoint.progress if checkpoint else START
    if progress.step >= cfg.steps and not progress.unevaluated:
        return
    algo = r1ray.algo.make(cfg.algo, max_response_length=cfg.rollout.max_response_length)
    with actor_groups(
        cfg,
        roles=["rollout", *scoring_roles(cfg), *r1ray.algo.training_roles(algo)],
        model_path=context.model_path,
        reference_path=context.reference_path(progress),
        trainer_kwargs=trainer_kwargs(cfg, algo),
        run=context.run,
    ) as groups:
        train_on(groups, context, algo, checkpoints, checkpoint)


def trainer_kwargs(cfg: Config, algo: Algorithm) -> dict[str, dict[str, Any]]:
    """{trainer role: arguments of its workers}. total_updates counts the updates of each trainer; a frozen policy makes none."""
    objectives: dict[str, tuple[Objective, int]] = {
        "policy": (algo, (cfg.steps - algo.frozen_steps) * cfg.algo.num_minibatches)
    }
    objectives |= {
        role: (objective, cfg.steps * objective.updates_per_step) for role, objective in algo.objectives.items()
    }
    return {
        role: {"objective": objective, "total_updates": updates} for role, (objective, updates) in objectives.items()
    }


def train_on(
    groups: Mapping[str, ActorGroup],
    context: StageContext,
    algo: Algorithm,
    checkpoints: Checkpoints,
    checkpoint: Checkpoint | None,
) -> None:
    """Train with these actors, which may still be starting, from a checkpoint or from the beginning."""
    cfg, progress = context.cfg, checkpoint.progress if checkpoint else START
    with phase("loading data"):
        tokenizer = context.tokenizer()
        stream, held_out = problems_of(context, tokenizer)
    wait_until_ready(groups, cfg)
    gc.collect()
    gc.freeze()  # imported modules stay: scanning them every few steps took a fifth of the driver's time
    atexit.register(gc.unfreeze)  # otherwise libraries that check for leaks at exit report all of it
    restarts = RestartBudget(cfg.cluster.max_restarts, event=context.run.event)
    with Watchdog(groups, cfg=cfg.cluster, event=context.run.event) as watchdog:
        resources = StageResources(
            algo=algo,
            groups=groups,
            reference=reference_of(cfg, groups, restarts, path=context.reference_path(progress)),
            first_reference=context.reference_path(progress),
            tokenizer=tokenizer,
            stream=stream,
            held_out=held_out,
            restarts=restarts,
            watchdog=watchdog,
            faults=Faults(cfg.fault, stage=context.name, groups=groups, run=context.run),
        )
        body = partial(train_from, context, checkpoints, resources)
        run_with_recovery(context, groups, restarts, checkpoints, body, checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResources:
    """Everything that lives as long as the stage: a restart of the trainers does not replace it."""

    algo: Algorithm
    groups: Mapping[str, ActorGroup]
    reference: ReferenceGroup | None
    first_reference: str
    """The model folder that reference workers load when they start."""
    tokenizer: Any
    stream: Problems
    held_out: Mapping[str, ProblemSet]
    restarts: RestartBudget
    watchdog: Watchdog
    faults: Faults


def train_from(
    context: StageContext, checkpoints: Checkpoints, resources: StageResources, checkpoint: Checkpoint | None
) -> None:
    """The loop from a checkpoint, or from the beginning, to cfg.steps."""
    raise_if_stop_requested()  # before the first evaluation, which may take minutes
    cfg, groups = context.cfg, resources.groups
    progress = checkpoint.progress if checkpoint else START
    resources.stream.load_state_dict(progress.stream)
    trainers: dict[TrainerRole, TrainerGroup] = {
        role: TrainerGroup(groups[role], cfg=trainer_config(cfg, role)) for role in TRAINERS if role in groups
    }
    if checkpoint:
        for role, trainer in trainers.items():
            trainer.load(str(checkpoint.state_of(role)))
    if resources.reference:
        resources.reference.load(context.reference_path(progress))
    sync = WeightSync(groups["policy"], groups["rollout"], cfg=cfg, vocab_size=len(resources.tokenizer))
    workers = RayWorkers(
        groups["rollout"],
        groups["reward"],
        cfg=cfg,
        restarts=resources.restarts,
        push_current=sync.push_current,
        last_progress=resources.watchdog.last_progress,
    )
    sync.on_failure = partial(on_sync_failed, context, trainers["policy"], workers)
    workers.restart_unhealthy()  # what killed trainers (a lost node, missing memory) may have killed engines too
    ledger = Ledger(context.run.stage(context.name).ledger, step=progress.step)
    first_step = progress.step + (progress.step > 0 and not progress.unevaluated)
    log = context.log(
        resources.tokenizer,
        first_step=first_step,
        last_step=cfg.steps,
        trained=progress.step,
        memory=resources.watchdog.memory,
    )
    reward_errors = RewardErrors(event=context.run.event)
    collector = Collector(
        problems=resources.stream,
        workers=workers,
        group_size=cfg.algo.group_size,
        sampling=partial(training_sampling, cfg.rollout),
        max_attempts=cfg.rollout.max_attempts,
        keep=resources.algo.keep,
        min_share=cfg.algo.filter.min_share,
        max_refills=cfg.algo.filter.max_refills,
        run_seed=cfg.seed,
        ledger=ledger,
        outages=Outages(timeout_s=cfg.reward.outage_timeout_s, event=context.run.event),
        reward_errors=reward_errors,
        stopping=stop_requested,
    )
    components = LoopComponents(
        algo=resources.algo,
        collector=collector,
        annotate=partial(annotate, groups=annotators(trainers, resources.reference)),
        trainers=trainers,
        sync=sync,
        on_step_begin=partial(begin, resources),
        replace_reference=partial(replace_reference, context, trainers["policy"], resources.reference),
        evaluate=evaluator_of(
            cfg,
            workers,
            resources.held_out,
            reward_errors=reward_errors,
            record=log.evaluation,
            stopping=stop_requested,
        ),
        save=partial(save, context, checkpoints, trainers, resources.stream, ledger, resources.first_reference),
        log=log,
    )
    announce(f"stage {context.name} sends the weights to the engines and begins with step {progress.step + 1}")
    try:
        train(cfg, components, progress)
        ledger.sync()
    finally:
        workers.abort()
        log.close()


def annotators(
    trainers: Mapping[TrainerRole, TrainerGroup], reference: ReferenceGroup | None
) -> dict[Need, TrainerGroup | ReferenceGroup]:
    """{need of an algorithm: the group that computes it}."""
    groups: dict[Need, TrainerGroup | ReferenceGroup | None] = {
        "old_logprobs": trainers["policy"],
        "ref_logprobs": reference,
        "old_values": trainers.get("critic"),
        "process_rewards": trainers.get("prm"),
    }
    return {need: group for need, group in groups.items() if group is not None}


def begin(resources: StageResources, step: int) -> None:
    raise_if_stop_requested()
    resources.restarts.begin_step(step)
    resources.faults.begin_step(step)


def on_sync_failed(context: StageContext, policy: TrainerGroup, workers: RayWorkers, error: SyncFailed) -> None:
    """After a failed transfer: raise TrainersLost if a trainer rank is lost (`recovery`), and replace lost engines."""
    context.run.event("sync_failed", error=str(error))
    policy.raise_if_lost(error.unresponsive)
    workers.restart_unhealthy(error.unresponsive)


def problems_of(context: StageContext, tokenizer: Any) -> tuple[Problems, dict[str, ProblemSet]]:
    """The training stream and the evaluation sets."""
    cfg = context.cfg
    held_out = evaluation_sets(cfg, tokenizer)
    training = training_sets(cfg, tokenizer, evaluation=held_out.values())
    context.report_sets("train", training, tokenizer)
    context.report_sets("eval", held_out, tokenizer)
    stream = ProblemStream(
        {name: loaded.problems for name, loaded in training.items()},
        weights={name: source.weight for name, source in cfg.data.train.items()},
        seed=cfg.seed,
        shuffle=cfg.data.shuffle,
    )
    return curriculum.make(cfg.data.curriculum, stream), held_out


def training_sampling(cfg: RolloutConfig, step: int) -> SamplingSpec:
    """How the completions of a step are sampled."""
    temperature = value_at(step, cfg.temperature, cfg.temperature_schedule)
    return SamplingSpec(
        temperature=temperature,
        max_tokens=cfg.max_response_length,
        top_p=cfg.top_p,
        top_k=cfg.top_k,
        stop=tuple(cfg.stop),
    )


def reference_of(
    cfg: Config, groups: Mapping[str, ActorGroup], restarts: RestartBudget, *, path: str
) -> ReferenceGroup | None:
    """The reference workers, which have started with the model at `path`; None when the algorithm needs none."""
    if "reference" not in groups:
        return None
    return ReferenceGroup(
        groups["reference"],
        initial_path=path,
        max_tokens=cfg.trainer.max_tokens_per_micro_batch,
        timeout_s=cfg.trainer.timeout_s,
        start_timeout_s=cfg.trainer.start_timeout_s,
        restarts=restarts,
    )


def replace_reference(
    context: StageContext, policy: TrainerGroup, reference: ReferenceGroup | None, updates: int
) -> None:
    assert reference is not None, "an algorithm without a reference has none to replace"
    folder = context.reference_folder(updates)
    with sealed(folder) as temporary:
        policy.export_hf(str(temporary))
    reference.load(str(folder))


def save(
    context: StageContext,
    checkpoints: Checkpoints,
    trainers: Mapping[TrainerRole, TrainerGroup],
    stream: Problems,
    ledger: Ledger,
    first_reference: str,
    progress: Progress,
    metrics: Mapping[str, float],
) -> None:
    ledger.sync()
    newest = checkpoints.newest
    if newest and newest.step == progress.step and bool(newest.unevaluated) == bool(progress.unevaluated):
        return  # asked to stop right after a save or a resume
    context.save(checkpoints, trainers, replace(progress, stream=stream.state_dict()), metrics)
    context.remove_unused_references(checkpoints, first=first_reference)
