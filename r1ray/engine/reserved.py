"""The settings of vLLM that r1ray controls: engine arguments that a user cannot set, and its environment. Imports nothing."""

RESERVED_ENGINE_ARGS = {
    "model": "model.path",
    "tokenizer": "",
    "skip_tokenizer_init": "",
    "seed": "seed",
    "dtype": "rollout.dtype",
    "max_model_len": "data.max_prompt_length and rollout.max_response_length",
    "tensor_parallel_size": "rollout.tensor_parallel_size",
    "pipeline_parallel_size": "",
    "data_parallel_size": "",
    "distributed_executor_backend": "",
    "logprobs_mode": "",
    "max_logprobs": "",
    "weight_transfer_config": "",
    "worker_extension_cls": "",
    "async_scheduling": "",
    "enable_chunked_prefill": "",
    "disable_log_stats": "",
    "enable_sleep_mode": "rollout.sleep",
}
"""{argument: the key of r1ray that sets it}; "" where it is fixed because log-probs, seeds or the weight transfer need it so."""

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Of vLLM 0.32's attention on CPU (`CPUAttentionBackend.get_supported_head_sizes`); it refuses models of another one."""

VLLM_ENVIRONMENT = {
    # The engine core runs in the caller's process: no idle processes and no serialisation. On CPU it is also the only mode in which
    # OMP_NUM_THREADS alone sets the number of threads.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Otherwise all engines of a node are bound to the same cores (and vLLM reserves one for a scheduler that does not exist).
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
