"""A stage of kind `sft`: supervised fine-tuning on the trainer group alone.

The same trainer class as in reinforcement learning, with the negative log-likelihood as its algorithm; `sft.init=random` draws
the weights anew, which is how the built-in base model is made.
"""

import time

from r1ray.actors.start import started, wait_until_up
from r1ray.actors.trainer_group import TrainerGroup
from r1ray.algo.sft import Sft
from r1ray.data.pack import pack
from r1ray.data.sft import batch_of, num_updates, sft_set
from r1ray.loop import due
from r1ray.run.checkpoint import Progress
from r1ray.stages.context import StageContext


def run(context: StageContext) -> None:
    """Train for cfg.sft.epochs over cfg.data.train; one step is one optimiser update."""
    cfg, algo = context.cfg, Sft()
    tokenizer = context.tokenizer()
    data = sft_set(cfg, tokenizer)
    context.run.event("data", stage=context.name, **data.counts)
    last = num_updates(len(data.samples), batch_size=cfg.sft.batch_size, epochs=cfg.sft.epochs)
    checkpoints = context.checkpoints()
    checkpoint = context.restored(checkpoints)
    first = checkpoint.progress.step if checkpoint else 0
    if first >= last:
        return
    log = context.log(tokenizer, first_step=first + 1, last_step=last)
    with started(
        cfg,
        roles=("trainer",),
        model_path=context.model_path,
        reference_path=context.model_path,
        trainer_kwargs={"algorithm": algo, "total_updates": last, "init": cfg.sft.init},
        log_dir=context.run.path / "logs",
    ) as groups:
        wait_until_up(groups, cfg)
        policy = TrainerGroup(groups["trainer"], cfg=cfg.trainer)
        if checkpoint:
            policy.load(str(checkpoint.trainer))
        for step in range(first + 1, last + 1):
            start = time.perf_counter()
            samples = batch_of(data.samples, batch_size=cfg.sft.batch_size, seed=cfg.seed, step=step - 1)
            batch = pack(
                samples,
                weights=algo.weights(samples, {}),
                num_ranks=cfg.trainer.num_workers,
                max_tokens=cfg.trainer.micro_batch_tokens,
            )
            metrics = policy.update(batch)
            seconds = time.perf_counter() - start
            metrics |= {"time/step": seconds, "tokens_per_second/train": batch.num_tokens / seconds, "update": step}
            log.step(step, metrics)
            if due(step, cfg.checkpoint.every_steps, last=last):
                context.save(checkpoints, policy, Progress(step=step, updates=step, version=0), metrics)
        log.close()
