"""A stage of kind `rl`: the loop of `r1ray.loop` on its four groups of actors."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import r1ray.algo
from r1ray.actors.annotate import annotate
from r1ray.actors.group import ActorGroup
from r1ray.actors.reference_group import ReferenceGroup
from r1ray.actors.start import started, wait_until_up
from r1ray.actors.trainer_group import TrainerGroup
from r1ray.actors.workers import RayWorkers
from r1ray.algo.base import Algorithm
from r1ray.collect import Collector
from r1ray.config import RolloutConfig
from r1ray.data.prompts import ProblemSet, evaluation_sets, training_sets
from r1ray.data.stream import ProblemStream
from r1ray.engine.base import SamplingSpec
from r1ray.evaluate import evaluator_of
from r1ray.loop import Parts, train
from r1ray.run.checkpoint import Checkpoints, Progress
from r1ray.stages.context import StageContext
from r1ray.sync.push import WeightSync


def run(context: StageContext) -> None:
    """Train from context.model_path, or from the newest whole checkpoint when the run is resumed, to cfg.steps."""
    cfg = context.cfg
    checkpoints = context.checkpoints()
    checkpoint = context.restored(checkpoints)
    progress = checkpoint.progress if checkpoint else Progress(step=0, updates=0, version=0)
    if progress.step >= cfg.steps:
        return
    algo = r1ray.algo.make(cfg.algo, max_response_length=cfg.rollout.max_response_length)
    with started(
        cfg,
        roles=["rollout", "reward", "trainer", *(["reference"] if "ref_logprobs" in algo.needs else [])],
        model_path=context.model_path,
        reference_path=context.reference_path(progress),
        trainer_kwargs={"algorithm": algo, "total_updates": cfg.steps * cfg.algo.minibatches},
        log_dir=context.run.path / "logs",
    ) as groups:
        tokenizer = context.tokenizer()
        stream, held_out = problems_of(context, tokenizer)
        log = context.log(tokenizer, first_step=progress.step + (progress.step > 0), last_step=cfg.steps)
        wait_until_up(groups, cfg)
        policy = TrainerGroup(groups["trainer"], cfg=cfg.trainer)
        if checkpoint:
            stream.load_state_dict(progress.stream)
            policy.load(str(checkpoint.trainer))
        sync = WeightSync(groups["trainer"], groups["rollout"], cfg=cfg, vocab_size=len(tokenizer))
        workers = RayWorkers(groups["rollout"], groups["reward"], cfg=cfg, event=context.run.event, served=sync.again)
        sync.restart_dead = workers.restart_dead
        collector = Collector(
            problems=stream,
            workers=workers,
            group_size=cfg.algo.group_size,
            sampling=training_sampling(cfg.rollout),
            max_attempts=cfg.rollout.max_attempts,
            keep=algo.keep,
            run_seed=cfg.seed,
        )
        parts = Parts(
            algo=algo,
            collector=collector,
            policy=policy,
            sync=sync,
            evaluate=evaluator_of(cfg, workers, held_out),
            save=partial(save, context, checkpoints, policy, stream),
            log=log,
            **reference_parts(context, groups, policy, algo),
        )
        try:
            train(cfg, parts, progress)
        finally:
            log.close()


def problems_of(context: StageContext, tokenizer: Any) -> tuple[ProblemStream, dict[str, ProblemSet]]:
    """The training stream and the evaluation sets; what was dropped, cut or held out stands in events.jsonl."""
    cfg = context.cfg
    held_out = evaluation_sets(cfg, tokenizer)
    training = training_sets(cfg, tokenizer, evaluation=held_out.values())
    for use, sets in (("train", training), ("eval", held_out)):
        for name, loaded in sets.items():
            context.run.event("data", stage=context.name, use=use, set=name, **loaded.counts)
    stream = ProblemStream(
        {name: loaded.problems for name, loaded in training.items()},
        weights={name: source.weight for name, source in cfg.data.train.items()},
        seed=cfg.seed,
        shuffle=cfg.data.shuffle,
    )
    return stream, held_out


def training_sampling(cfg: RolloutConfig) -> SamplingSpec:
    return SamplingSpec(
        temperature=cfg.temperature, max_tokens=cfg.max_response_length, top_p=cfg.top_p, top_k=cfg.top_k
    )


def reference_parts(
    context: StageContext, groups: Mapping[str, ActorGroup], policy: TrainerGroup, algo: Algorithm
) -> dict[str, Any]:
    """How samples get their log-probs, and how the reference is replaced by the policy."""
    cfg = context.cfg
    reference = None
    if "ref_logprobs" in algo.needs:
        reference = ReferenceGroup(groups["reference"], timeout_s=cfg.trainer.timeout_s)

    def replace_reference(updates: int) -> None:
        assert reference is not None, "an algorithm without a reference has none to replace"
        folder = str(context.reference_folder(updates))
        policy.export_hf(folder)
        reference.load(folder)

    tokens = cfg.trainer.micro_batch_tokens
    return {
        "annotate": partial(annotate, trainers=policy, reference=reference, max_tokens=tokens),
        "replace_reference": replace_reference,
    }


def save(
    context: StageContext,
    checkpoints: Checkpoints,
    policy: TrainerGroup,
    stream: ProblemStream,
    progress: Progress,
    metrics: Mapping[str, float],
) -> None:
    context.save(checkpoints, policy, replace(progress, stream=stream.state_dict()), metrics)
    context.forget_references(checkpoints)
