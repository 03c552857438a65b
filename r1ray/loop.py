"""The reinforcement learning loop: the algorithm of DeepSeek-R1-Zero (arXiv 2501.12948, 2.2) on four groups of actors.

    groups  = collector.collect()       P problems, G scored completions each
    samples = annotate(to_samples())    old and reference log-probs, values, process rewards, if the algorithm needs them
    samples = algo.advantages()         pure, sees the whole step
    trainers update per minibatch       DeepSpeed: the policy first, then critic and process reward model
    sync.push()                         new weights, verified, before the next completion is sampled

Everything else is elsewhere: refills and retries in `collect`, the differences between algorithms in `algo`, placement and
processes in `actors`, files and curves in `run`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from r1ray.advantages import advantages_of
from r1ray.algo.base import Algorithm, Need, Objective, State
from r1ray.collect import Collector
from r1ray.collect.outages import RewardOutage
from r1ray.config import Config
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples
from r1ray.data.stream import NothingToLearn
from r1ray.failures import UpdateFailed
from r1ray.plugin_errors import PluginFailed, failing_as_plugin
from r1ray.roles import TrainerRole, trainer_config
from r1ray.run.checkpoint import Progress
from r1ray.run.clock import Clock
from r1ray.run.metrics import reduce_trainers, sample_metrics, step_metrics
from r1ray.run.stop import Stopped, stop_reason
from r1ray.types import Batch, Collected, Floats, Sample

Updates = dict[str, list[dict[str, float]]]
"""{trainer: the metrics of each of its updates in this step}."""
Plan = list[tuple[Sequence[Sample], Sequence[Mapping[str, Floats]]]]
"""The minibatches of a trainer with their weights."""


class Trainer(Protocol):
    def update(self, batch: Batch) -> dict[str, float]:
        """One optimizer step over all ranks; metrics are reduced over them. Raises UpdateFailed when it changed no weights."""
        ...


class Sync(Protocol):
    def push(self, version: int) -> dict[str, float]:
        """Send the weights of the policy to every engine; returns when all engines serve `version` and were verified."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopComponents:
    """What `train` works with; `r1ray.stages.rl` builds it from actors, tests from fakes."""

    algo: Algorithm
    collector: Collector
    annotate: Callable[[Sequence[Sample], frozenset[Need]], list[Sample]]
    trainers: Mapping[TrainerRole, Trainer]
    sync: Sync
    on_step_begin: Callable[[int], None]
    """Called with the number of a step before it begins; raises Stopped if the run is to stop."""
    replace_reference: Callable[[int], None]
    evaluate: Callable[[int], dict[str, float]]
    save: Callable[[Progress, Mapping[str, float]], None]
    log: Any
    """`r1ray.run.log.RunLog`: `step(step, metrics)`, `rollouts(step, groups)`, `event(kind, **fields)`."""


def train(cfg: Config, components: LoopComponents, progress: Progress) -> Progress:
    """Run the loop from `progress` to cfg.steps and return the final progress. Steps are numbered from 1.

    Raises (after saving the last complete step):
        Stopped: the run was asked to stop. An evaluation that this cuts short is saved as pending, and finished on resume.
        RewardOutage: a reward component was down for too long.
        NothingToLearn: too few problems are left from which this model can learn.
        PluginFailed, UpdateFailed: a reward or the algorithm has a bug. A loss that fails after the first update of a step costs
            the steps since the last checkpoint, because the weights are no longer those of a step.
    """
    components.sync.push(progress.version)
    if progress.step == 0 and cfg.eval.before_training and (metrics := components.evaluate(0)):
        components.log.step(0, metrics)
    if progress.unevaluated:
        progress = evaluate_and_save(cfg, components, progress)
    while progress.step < cfg.steps:
        step, version, clock = progress.step + 1, progress.version, Clock()
        state = progress.algo or components.algo.initial_state()
        updates: Updates = {role: [] for role in components.trainers}
        drawn = components.collector.problems.state_dict()
        try:
            components.on_step_begin(step)
            with clock("collect"):
                collected = components.collector.collect(cfg.algo.prompts_per_step, step=step)
            curriculum = components.collector.problems.observe(collected.generated)
            with clock("annotate"):
                samples = annotated(cfg, components, collected, state)
            with clock("train"):
                plans = {role: plan(role, cfg, components, samples, state, step) for role in components.trainers}
                for role in components.trainers:
                    update_all(role, cfg, components, plans[role], updates[role])
        except (Stopped, RewardOutage, NothingToLearn, PluginFailed, UpdateFailed) as error:
            if not any(updates.values()):  # the weights are those of the last step
                components.collector.problems.load_state_dict(drawn)
                if step > 1 or not isinstance(error, PluginFailed | UpdateFailed):
                    components.save(progress, {})
            raise
        moved = num_applied(updates["policy"])
        progress = replace(
            progress, step=step, updates=progress.updates + moved, version=progress.version + (moved > 0)
        )
        with clock("sync"):
            sync = components.sync.push(progress.version) if moved else {}
        progress = refresh_reference(cfg, components, progress)
        metrics = step_metrics(collected, clock.seconds, version=version) | reduce_trainers(updates) | sync
        metrics |= curriculum | {"update": progress.updates} | sample_metrics(samples)
        components.log.rollouts(step, collected.generated)
        progress = evaluate_and_save(cfg, components, replace(progress, unevaluated=metrics))
    return progress


def evaluate_and_save(cfg: Config, components: LoopComponents, progress: Progress) -> Progress:
    """The end of a step, after its training (`progress.unevaluated` has the metrics so far): update the state of the algorithm,
    evaluate and save if due, and log the metrics. What is cut short is saved as it was before, and repeated on resume.
    """
    step, metrics, algo = progress.step, progress.unevaluated, components.algo
    try:
        with failing_as_plugin(f"update_state of algo.name={cfg.algo.name}"):
            state = algo.update_state(progress.algo or algo.initial_state(), metrics)
        metrics = {**metrics, **{f"state/{name}": float(value) for name, value in state.items() if is_number(value)}}
        if due(step, cfg.eval.every_steps, last=cfg.steps):
            evaluated = components.evaluate(step)
            if not evaluated:
                raise Stopped(f"{stop_reason()} during the evaluation of step {step}, which a resume finishes")
            metrics = {**metrics, **evaluated}
    except (Stopped, PluginFailed):
        components.save(progress, {})
        raise
    components.log.step(step, metrics)
    progress = replace(progress, algo=state, unevaluated={})
    if due(step, cfg.checkpoint.every_steps, last=cfg.steps):
        components.save(progress, metrics)
    return progress


def is_number(value: object) -> bool:
    return isinstance(value, int | float)


def annotated(cfg: Config, components: LoopComponents, collected: Collected, state: State) -> list[Sample]:
    """The samples of a step, with what the algorithm needs from models and with their advantages."""
    samples = to_samples(collected.kept, truncated=cfg.reward.truncated)
    samples = components.annotate(samples, components.algo.needs)
    return advantages_of(components.algo, samples, state, name=cfg.algo.name)


def plan(
    role: TrainerRole, cfg: Config, components: LoopComponents, samples: Sequence[Sample], state: State, step: int
) -> Plan:
    """The minibatches of one trainer in this step, with the weights of their tokens."""
    objective: Objective = components.algo if role == "policy" else components.algo.objectives[role]
    rng = np.random.default_rng((cfg.seed, step, *role.encode()) if role != "policy" else (cfg.seed, step))
    where = f"of algo.name={cfg.algo.name} ({role})"
    with failing_as_plugin(f"minibatches {where}"):
        minibatches = list(objective.minibatches(samples, state, rng))
    with failing_as_plugin(f"weights {where}"):
        return [(minibatch, objective.weights(minibatch, state)) for minibatch in minibatches]


def update_all(
    role: TrainerRole, cfg: Config, components: LoopComponents, plan: Plan, updates: list[dict[str, float]]
) -> None:
    """All updates of one trainer in this step; appends the metrics of each one to `updates`."""
    section = trainer_config(cfg, role)
    for minibatch, weights in plan:
        batch = pack(
            minibatch,
            weights=weights,
            num_ranks=section.data_parallel,
            max_tokens=section.max_tokens_per_micro_batch,
        )
        updates.append(components.trainers[role].update(batch))


def num_applied(updates: Sequence[Mapping[str, float]]) -> int:
    """How many updates have changed the weights."""
    return len(updates) - int(sum(update["updates_skipped"] for update in updates))


def refresh_reference(cfg: Config, components: LoopComponents, progress: Progress) -> Progress:
    """Replace the reference by the policy every algo.reference_refresh_updates (arXiv 2501.12948v2: every 400 steps)."""
    every = cfg.algo.reference_refresh_updates
    if (
        "ref_logprobs" not in components.algo.needs
        or not every
        or progress.updates - progress.reference_updates < every
    ):
        return progress
    components.replace_reference(progress.updates)
    components.log.event("reference_replaced", updates=progress.updates)
    return replace(progress, reference_updates=progress.updates)


def due(step: int, every: int, *, last: int) -> bool:
    """Whether something that happens every N steps and after the last one is due; every=0: after the last one only."""
    return step == last or (every > 0 and step % every == 0)
