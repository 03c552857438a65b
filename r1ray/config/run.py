"""Evaluation, checkpoints, cluster, logging and stages."""

from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from r1ray.config.base import NonNegativeInt, PositiveFloat, PositiveInt, Seed, StrictModel
from r1ray.config.data import SourceConfig


class EvalConfig(StrictModel):
    sets: dict[str, SourceConfig]
    every_steps: NonNegativeInt
    """0: only before the first step (if `before_training`) and after the last."""
    before_training: bool
    num_samples: PositiveInt
    """Completions per problem: avg@k."""
    pass_at: list[PositiveInt]
    temperature: Annotated[float, Field(ge=0, le=2)]
    """0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class CheckpointConfig(StrictModel):
    every_steps: NonNegativeInt
    keep: PositiveInt
    best_metric: str | None
    """A metric key whose best checkpoint is kept as `best`; higher is better. auto: the accuracy of the first evaluation set."""


class _Evaluated(Protocol):
    """A configuration, or a view of one."""

    @property
    def checkpoint(self) -> CheckpointConfig: ...
    @property
    def eval(self) -> EvalConfig: ...


def best_metric(cfg: _Evaluated) -> str | None:
    """`checkpoint.best_metric`, with `auto` resolved; None where no checkpoint is kept as the best."""
    if cfg.checkpoint.best_metric != "auto":
        return cfg.checkpoint.best_metric
    return next((f"eval/{name}/accuracy" for name in cfg.eval.sets), None)


Role = Literal["rollout", "judge", "reward", "reference", "policy", "critic", "prm"]
"""Groups of workers."""


class ClusterConfig(StrictModel):
    address: str | None
    """null: RAY_ADDRESS if set (a submitted job), else a local Ray."""
    num_cpus: PositiveFloat | None
    """Of a local Ray; null: what the machine has."""
    placement_timeout_s: PositiveFloat
    max_restarts: NonNegativeInt
    """A failure ends the run after this many restarts without a completed step. Workers that are lost together count once."""
    heartbeat_s: PositiveFloat
    """Seconds between heartbeats of a worker; one that misses three in a row is killed and restarted."""
    watchdog_s: PositiveFloat
    """When nothing has finished for this long, stacks and queues are logged to events.jsonl and the console."""
    labels: dict[Role, dict[str, str]]
    """{role: {node label: value}}."""
    threads_per_worker: PositiveInt | None
    """OMP threads of each engine and trainer; null: cores of the node / workers of the role there."""


class LogConfig(StrictModel):
    wandb: Literal["auto", "online", "offline", "disabled"]
    """auto: online with WANDB_API_KEY, else offline."""
    wandb_project: str
    tensorboard: bool
    rollouts_every_steps: NonNegativeInt
    report_every_steps: NonNegativeInt


class StageConfig(StrictModel):
    kind: str
    """A name in r1ray.stage_kinds.KINDS, or `package.module:NAME` of a `StageKind`."""
    after: str | None = None
    """The stage whose checkpoint this one starts from; null: model.path."""
    args: dict[str, Any] = {}
    """Arguments of the kind (its `Args`)."""
    config: dict[str, Any] = {}
    """Keys of this same configuration that differ in this stage, as a tree."""
