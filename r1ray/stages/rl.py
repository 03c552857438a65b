"""A stage of kind `rl`: the loop of `r1ray.loop` on its four groups of actors."""

from collections.abc import Mapping
from functools import partial

import r1ray.algo
from r1ray.actors.annotate import annotate
from r1ray.actors.reference import ReferenceGroup
from r1ray.actors.start import started
from r1ray.actors.trainer import TrainerGroup
from r1ray.actors.workers import RayWorkers
from r1ray.collect import Collector
from r1ray.data.prompts import evaluation_sets, training_sets
from r1ray.data.stream import ProblemStream
from r1ray.engine.base import SamplingSpec
from r1ray.evaluate import evaluator_of
from r1ray.loop import Parts, train
from r1ray.run.checkpoint import State
from r1ray.stages.context import StageContext, with_stream
from r1ray.sync.push import WeightSync


def run(context: StageContext) -> None:
    """Train from context.model_path, or from the newest whole checkpoint when the run is resumed, to cfg.steps."""
    cfg = context.cfg
    tokenizer = context.tokenizer()
    held_out = evaluation_sets(cfg, tokenizer)
    training = training_sets(cfg, tokenizer, evaluation=held_out.values())
    for name, loaded in (training | held_out).items():
        context.run.event("data", stage=context.name, set=name, **loaded.counts)
    stream = ProblemStream(
        {name: loaded.problems for name, loaded in training.items()},
        weights={name: source.weight for name, source in cfg.data.train.items()},
        seed=cfg.seed,
        shuffle=cfg.data.shuffle,
    )
    algo = r1ray.algo.make(cfg.algo, max_response_length=cfg.rollout.max_response_length)
    checkpoints = context.checkpoints()
    checkpoint = context.restored(checkpoints)
    progress = checkpoint.state if checkpoint else State(step=0, updates=0, version=0)
    if checkpoint:
        stream.load_state_dict(progress.stream)
    roles = ["rollout", "reward", "trainer"] + (["reference"] if "ref_logprobs" in algo.needs else [])
    log = context.log(tokenizer, first_step=progress.step + (progress.step > 0), last_step=cfg.steps)
    with started(
        cfg,
        roles=roles,
        model_path=context.model_path,
        reference_path=context.reference_path(progress),
        trainer_kwargs={"algorithm": algo, "total_updates": cfg.steps * cfg.algo.minibatches},
        log_dir=context.run.path / "logs",
    ) as groups:
        policy = TrainerGroup(groups["trainer"], cfg=cfg.trainer)
        references = (
            ReferenceGroup(groups["reference"], timeout_s=cfg.trainer.timeout_s) if "reference" in groups else None
        )
        if checkpoint:
            policy.load(str(checkpoint.trainer))
        workers = RayWorkers(
            groups["rollout"],
            groups["reward"],
            rollout_timeout_s=cfg.rollout.timeout_s,
            reward_timeout_s=cfg.reward.timeout_s,
        )

        def replace_reference(updates: int) -> None:
            assert references is not None
            folder = str(context.reference_folder(updates))
            policy.export_hf(folder)
            references.load(folder)

        def save(progress: State, metrics: Mapping[str, float]) -> None:
            context.save(checkpoints, policy, with_stream(progress, stream), metrics)
            context.forget_references(before=progress.reference_updates)

        parts = Parts(
            algo=algo,
            collector=Collector(
                problems=stream,
                workers=workers,
                group_size=cfg.algo.group_size,
                sampling=SamplingSpec(
                    temperature=cfg.rollout.temperature,
                    max_tokens=cfg.rollout.max_response_length,
                    top_p=cfg.rollout.top_p,
                    top_k=cfg.rollout.top_k,
                ),
                max_attempts=cfg.rollout.max_attempts,
                keep=algo.keep,
                run_seed=cfg.seed,
            ),
            annotate=partial(
                annotate, trainers=policy, reference=references, max_tokens=cfg.trainer.micro_batch_tokens
            ),
            policy=policy,
            sync=WeightSync(groups["trainer"], groups["rollout"], cfg=cfg, vocab_size=len(tokenizer)),
            replace_reference=replace_reference,
            evaluate=evaluator_of(cfg, workers, held_out),
            save=save,
            log=log,
        )
        try:
            train(cfg, parts, progress)
        finally:
            log.close()
