"""Evaluation, checkpoints, cluster, logging and stages."""

from typing import Annotated, Any, Literal

from pydantic import Field

from r1ray.config.base import AbovePositive, Count, Positive, Seed, Strict
from r1ray.config.data import SourceConfig


class EvalConfig(Strict):
    sets: dict[str, SourceConfig]
    every_steps: Count
    """0: only before the first step (if `before`) and after the last."""
    before: bool
    num_samples: Positive
    """Completions per problem: avg@k."""
    pass_at: list[Positive]
    temperature: Annotated[float, Field(ge=0, le=2)]
    """0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class CheckpointConfig(Strict):
    every_steps: Count
    keep: Positive
    best_metric: str | None
    """A metric key whose best checkpoint is kept as `best`; higher is better."""


Role = Literal["rollout", "judge", "reward", "reference", "policy", "critic", "prm"]
"""Groups of workers."""


class ClusterConfig(Strict):
    address: str | None
    """null: RAY_ADDRESS if set (a submitted job), else a local Ray."""
    num_cpus: AbovePositive | None
    """Of a local Ray; null: what the machine has."""
    placement_timeout_s: AbovePositive
    max_restarts: Count
    """Restarts (of a worker, or of all those lost together) without a new step in between, before the next loss ends the run."""
    heartbeat_s: AbovePositive
    """Seconds between heartbeats of a worker; one that misses three in a row is killed and restarted."""
    watchdog_s: AbovePositive
    """When nothing has finished for this long, stacks and queues are logged to events.jsonl and the console."""
    labels: dict[Role, dict[str, str]]
    """{role: {node label: value}}."""
    threads_per_worker: Positive | None
    """OMP threads of each engine and trainer; null: cores of the node / workers of the role there."""


class LogConfig(Strict):
    wandb: Literal["auto", "online", "offline", "disabled"]
    """auto: online with WANDB_API_KEY, else offline."""
    wandb_project: str
    tensorboard: bool
    rollouts_every_steps: Count
    report_every_steps: Count


class StageConfig(Strict):
    kind: str
    """A name in r1ray.stage_kinds.KINDS, or `package.module:NAME` of a `StageKind`."""
    after: str | None = None
    """The stage whose checkpoint this one starts from; null: model.path."""
    args: dict[str, Any] = {}
    """Of a kind that takes some."""
    config: dict[str, Any] = {}
    """A fragment of this same tree, laid over it for this stage."""
