"""A stage of kind `sft`: supervised fine-tuning on the trainer group alone.

It uses the trainer of reinforcement learning, with the negative log-likelihood as the objective. `sft.init=random` draws new
weights, which is how the built-in base model is made.
"""

import time
from collections.abc import Sequence

from r1ray.actors.start import actor_groups, wait_until_ready
from r1ray.actors.trainer_group import TrainerGroup
from r1ray.actors.watchdog import Watchdog
from r1ray.algo.sft import Sft
from r1ray.data.pack import pack
from r1ray.data.sft import batch_of, num_updates, sft_set
from r1ray.failures import RestartBudget
from r1ray.loop import due
from r1ray.run.checkpoint import Checkpoint, Checkpoints, Progress
from r1ray.run.log import RunLog
from r1ray.run.phases import announce, phase
from r1ray.run.stop import raise_if_stop_requested, stop_requested
from r1ray.stages.context import StageContext
from r1ray.stages.faults import Faults
from r1ray.stages.recovery import run_with_recovery
from r1ray.types import Sample


def run(context: StageContext) -> None:
    """Train for cfg.sft.epochs over cfg.data.train; one step is one optimizer update."""
    cfg, algo = context.cfg, Sft()
    with phase("loading data"):
        tokenizer = context.tokenizer()
        data = sft_set(cfg, tokenizer)
    context.run.event("data_loaded", stage=context.name, **data.counts)
    last = num_updates(len(data.samples), batch_size=cfg.sft.batch_size, epochs=cfg.sft.epochs)
    announce(f"{len(data.samples)} examples, {last} updates")
    checkpoints = context.checkpoints()
    checkpoint = context.resume_checkpoint(checkpoints)
    if first_step(checkpoint) > last:
        return
    with actor_groups(
        cfg,
        roles=("policy",),
        model_path=context.model_path,
        reference_path=context.model_path,
        trainer_kwargs={"policy": {"objective": algo, "total_updates": last, "init": cfg.sft.init}},
        run=context.run,
    ) as groups:
        wait_until_ready(groups, cfg)
        restarts = RestartBudget(cfg.cluster.max_restarts, event=context.run.event)
        with Watchdog(groups, cfg=cfg.cluster, event=context.run.event) as watchdog:
            faults = Faults(cfg.fault, stage=context.name, groups=groups, run=context.run)
            policy = TrainerGroup(groups["policy"], cfg=cfg.trainer)

            def body(checkpoint: Checkpoint | None) -> None:
                first = first_step(checkpoint)
                log = context.log(tokenizer, first_step=first, last_step=last, memory=watchdog.memory)
                try:
                    train_from(context, checkpoints, policy, restarts, faults, log, data.samples, last, checkpoint)
                finally:
                    log.close()

            run_with_recovery(context, groups, restarts, checkpoints, body, checkpoint)


def first_step(checkpoint: Checkpoint | None) -> int:
    return checkpoint.progress.step + 1 if checkpoint else 1


def train_from(
    context: StageContext,
    checkpoints: Checkpoints,
    policy: TrainerGroup,
    restarts: RestartBudget,
    faults: Faults,
    log: RunLog,
    data: Sequence[Sample],
    last: int,
    checkpoint: Checkpoint | None,
) -> None:
    """The updates from the checkpoint to number `last`. When the run is asked to stop, it saves and raises Stopped."""
    cfg, algo = context.cfg, Sft()
    if checkpoint:
        policy.load(str(checkpoint.state_of("policy")))
    for step in range(first_step(checkpoint), last + 1):
        if stop_requested() and (checkpoints.newest is None or checkpoints.newest.step != step - 1):
            context.save(checkpoints, {"policy": policy}, Progress(step=step - 1, updates=step - 1, version=0), {})
        raise_if_stop_requested()
        restarts.begin_step(step)
        faults.begin_step(step)
        start = time.perf_counter()
        samples = batch_of(data, batch_size=cfg.sft.batch_size, seed=cfg.seed, step=step - 1)
        batch = pack(
            samples,
            weights=algo.weights(samples, {}),
            num_ranks=cfg.trainer.data_parallel,
            max_tokens=cfg.trainer.max_tokens_per_micro_batch,
        )
        metrics = policy.update(batch)
        seconds = time.perf_counter() - start
        metrics |= {"time/step": seconds, "tokens_per_second/train": batch.num_tokens / seconds, "update": step}
        log.step(step, metrics)
        if due(step, cfg.checkpoint.every_steps, last=last):
            context.save(checkpoints, {"policy": policy}, Progress(step=step, updates=step, version=0), metrics)
