"""What r1ray decides about DeepSpeed itself: keys of its configuration that `trainer.deepspeed` cannot set. Imports nothing."""

RESERVED_DEEPSPEED_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "managed_gradient_accumulation",
    "gradient_clipping",
    "gradient_allreduce_op",
    "prescale_gradients",
    "gradient_predivide_factor",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
    "amp",
    "torch_autocast",
    "data_types",
    "activation_checkpointing",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "sequence_parallel_size",
    "data_parallel_size",
    "zero_optimization.stage",
    "zero_optimization.offload_optimizer",
)
"""Set from trainer.*, or fixed because the loss is a sum whose weights hold the denominator already. Dots mark nested keys."""


def reserved_deepspeed_keys(deepspeed: dict[str, object]) -> list[str]:
    """Those of RESERVED_DEEPSPEED_KEYS that a `trainer.deepspeed` mapping sets, dotted."""
    taken = []
    for key in RESERVED_DEEPSPEED_KEYS:
        outer, _, inner = key.partition(".")
        value = deepspeed.get(outer)
        if outer in deepspeed and (not inner or (isinstance(value, dict) and inner in value)):
            taken.append(key)
    return taken
