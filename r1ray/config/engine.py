"""Engines, and the transfer of weights to them."""

from typing import Any, Literal

from r1ray.config.base import Gpus, NonNegativeFloat, NotEmpty, PositiveFloat, PositiveInt, StrictModel, Temperature


class RolloutConfig(StrictModel):
    engine: str
    """`vllm`, or `package.module:Class`."""
    num_workers: PositiveInt
    tensor_parallel_size: PositiveInt
    cpus_per_worker: NonNegativeFloat
    gpus_per_worker: Gpus
    """The whole engine gets this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_response_length: PositiveInt
    temperature: Temperature
    temperature_schedule: dict[PositiveInt, Temperature]
    """{first step: temperature from this step on}, for example {200: 1.1}."""
    top_p: float
    top_k: int
    stop: list[NotEmpty]
    """Texts that end a completion, besides the model's EOS: they are kept in it, and it counts as finished. Also used in
    evaluation.
    """
    max_attempts: PositiveInt
    """Attempts for a group whose completions or scores failed; after the last it is dropped and counted."""
    timeout_s: PositiveFloat
    """An engine that has work but finishes no group for this long counts as unresponsive and is restarted."""
    start_timeout_s: PositiveFloat
    sleep: bool
    """Engines free their GPU memory from the last completion of a step until the next weights arrive."""
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class JudgeConfig(StrictModel):
    """Engines that the run starts for its judge rewards: for the components that have no args.url."""

    path: str | None
    """A chat model, as model.path; null: no judge is started."""
    num_workers: PositiveInt
    tensor_parallel_size: PositiveInt
    cpus_per_worker: NonNegativeFloat
    gpus_per_worker: Gpus
    """The whole engine gets this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_length: PositiveInt
    """Tokens of a question and its verdict together."""
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class SyncConfig(StrictModel):
    backend: Literal["auto", "gloo", "nccl", "ipc"]
    """auto: gloo on cpu; on cuda nccl, or ipc where engine and trainer share one GPU (`r1ray.sync.backend`)."""
    bucket_mb: PositiveFloat
    timeout_s: PositiveFloat
