"""What r1ray decides about vLLM itself: engine arguments that a user cannot set, and its environment. Imports nothing."""

RESERVED_ENGINE_ARGS = (
    "model",
    "tokenizer",
    "skip_tokenizer_init",
    "seed",
    "dtype",
    "max_model_len",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "distributed_executor_backend",
    "logprobs_mode",
    "max_logprobs",
    "weight_transfer_config",
    "worker_extension_cls",
    "async_scheduling",
    "enable_chunked_prefill",
    "disable_log_stats",
    "enable_sleep_mode",
)
"""Set from rollout.*, data.max_prompt_length and seed, or fixed: weight transfer, log-probs, seeds and versions depend on them."""

VLLM_ENVIRONMENT = {
    # The engine core runs in the caller's process: no idle processes, no serialisation, and on CPU the only form that obeys
    # OMP_NUM_THREADS alone.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Without it every engine of a node is bound to the same cores (vLLM keeps one back for a scheduler process that is not there).
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
