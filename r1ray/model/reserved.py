"""Keys of DeepSpeed's configuration that r1ray controls and `trainer.deepspeed` cannot set. Imports nothing."""

RESERVED_DEEPSPEED_KEYS = {
    "train_batch_size": "algo.prompts_per_step, algo.group_size and algo.num_minibatches",
    "train_micro_batch_size_per_gpu": "trainer.max_tokens_per_micro_batch",
    "gradient_accumulation_steps": "trainer.max_tokens_per_micro_batch",
    "managed_gradient_accumulation": "",
    "gradient_clipping": "trainer.grad_clip",
    "gradient_allreduce_op": "",
    "prescale_gradients": "",
    "gradient_predivide_factor": "",
    "optimizer": "trainer.lr, betas, adam_eps and weight_decay",
    "scheduler": "trainer.lr_schedule, lr_min_ratio and warmup_updates",
    "fp16": "trainer.precision",
    "bf16": "trainer.precision",
    "amp": "",
    "torch_autocast": "trainer.precision",
    "data_types": "",
    "activation_checkpointing": "trainer.activation_checkpointing",
    "zero_allow_untested_optimizer": "",
    "zero_force_ds_cpu_optimizer": "",
    "sequence_parallel_size": "trainer.sequence_parallel",
    "data_parallel_size": "",
    "zero_optimization.stage": "trainer.zero_stage",
    "zero_optimization.offload_optimizer": "trainer.cpu_offload",
}
"""{key, dotted where nested: the key of r1ray that sets it}; "" where no key does, because r1ray needs one certain value. For
example DeepSpeed must only sum gradients: r1ray divides the loss itself, by weights per token.
"""

DEEPSPEED_BLOCKS = (
    *(
        "zero_optimization",
        "comms_logger",
        "flops_profiler",
        "aio",
        "tensorboard",
        "wandb",
        "csv_monitor",
        "checkpoint",
    ),
    *("data_efficiency", "curriculum_learning", "compression_training", "elasticity", "autotuning", "compile"),
)
"""Keys of DeepSpeed's configuration that hold mappings."""


def reserved_deepspeed_keys(deepspeed: dict[str, object]) -> list[str]:
    """The RESERVED_DEEPSPEED_KEYS that a `trainer.deepspeed` mapping sets, with dots."""
    taken = []
    for key in RESERVED_DEEPSPEED_KEYS:
        outer, _, inner = key.partition(".")
        value = deepspeed.get(outer)
        if outer in deepspeed and (not inner or (isinstance(value, dict) and inner in value)):
            taken.append(key)
    return taken
