"""Engines, and the transfer of weights to them."""

from typing import Any, Literal

from r1ray.config.base import AbovePositive, Gpus, NotEmpty, NotNegative, Positive, Strict, Temperature


class RolloutConfig(Strict):
    engine: str
    """`vllm`, or `package.module:Class`."""
    num_workers: Positive
    tensor_parallel_size: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: Gpus
    """For the whole engine is this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_response_length: Positive
    temperature: Temperature
    temperature_schedule: dict[Positive, Temperature]
    """{step from which on: another temperature}, as in {200: 1.1}."""
    top_p: float
    top_k: int
    stop: list[NotEmpty]
    """Texts that end a completion, besides the model's EOS: they are kept in it, and it counts as finished. Evaluation has the
    same.
    """
    max_attempts: Positive
    """Attempts for a group whose completions or scores failed; after the last it is dropped and counted."""
    timeout_s: AbovePositive
    """An engine with work that finishes no group for this long is unresponsive and restarted."""
    start_timeout_s: AbovePositive
    sleep: bool
    """Engines free their GPU memory from the last completion of a step until the next weights arrive."""
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class JudgeConfig(Strict):
    """Engines of the run's own for the judges among the rewards: those parts that name no args.url."""

    path: str | None
    """A chat model, as model.path; null: no judge is started."""
    num_workers: Positive
    tensor_parallel_size: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: Gpus
    """For the whole engine is this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_length: Positive
    """Tokens of a question and its verdict together."""
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class SyncConfig(Strict):
    backend: Literal["auto", "gloo", "nccl", "ipc"]
    """auto: gloo on cpu; on cuda nccl, or ipc where engine and trainer share one GPU (`r1ray.sync.backend`)."""
    bucket_mb: AbovePositive
    timeout_s: AbovePositive
