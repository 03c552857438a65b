"""Keys of verl, TRL and OpenRLHF that r1ray calls otherwise: for the remedy when one of them is given (`conf/README.md`)."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "actor_learning_rate", "optim.lr", "adam.lr", "policy_lr"), "trainer.lr"),
    **dict.fromkeys(("critic.optim.lr", "critic.adam.lr", "critic_learning_rate"), "critic.lr"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), "trainer.lr_schedule"),
    **dict.fromkeys(("warmup_steps", "lr_warmup_steps", "num_warmup_steps", "warmup_ratio"), "trainer.warmup_updates"),
    **dict.fromkeys(("lr_warmup_ratio", "lr_warmup_steps_ratio"), "trainer.warmup_updates"),
    **dict.fromkeys(("max_grad_norm", "max_norm", "clip_grad", "gradient_clipping"), "trainer.grad_clip"),
    **dict.fromkeys(("adam_betas", "adam_beta1", "adam_beta2"), "trainer.betas"),
    **dict.fromkeys(("adam_epsilon",), "trainer.adam_eps"),
    **dict.fromkeys(("bf16", "fp16", "mixed_precision", "param_dtype", "fsdp_config.dtype"), "trainer.precision"),
    **dict.fromkeys(
        (
            *("gradient_checkpointing", "enable_gradient_checkpointing", "gradient_checkpointing_enable"),
            *("use_gradient_checkpointing",),
        ),
        "trainer.activation_checkpointing",
    ),
    **dict.fromkeys(("adam_offload", "optimizer_offload", "offload_optimizer"), "trainer.cpu_offload"),
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "micro_train_batch_size", "ppo_micro_batch_size_per_gpu"),
            *("ppo_max_token_len_per_gpu", "max_tokens_per_gpu", "train_micro_batch_size", "micro_batch_size"),
            *("gradient_accumulation_steps", "ppo_micro_batch_size"),
        ),
        "trainer.max_tokens_per_micro_batch",
    ),
    **dict.fromkeys(("ulysses_sequence_parallel_size", "ring_attn_size"), "trainer.sequence_parallel"),
    **dict.fromkeys(("n_gpus_per_node", "nnodes", "num_gpus_per_node"), "trainer.num_workers"),
    **dict.fromkeys(
        ("num_generations", "n_samples_per_prompt", "rollout.n", "num_return_sequences", "num_rollouts_per_prompt"),
        "algo.group_size",
    ),
    **dict.fromkeys(("data.train_batch_size", "rollout_batch_size", "rollout.batch_size"), "algo.prompts_per_step"),
    **dict.fromkeys(
        ("ppo_mini_batch_size", "train_batch_size", "mini_batch_size"),
        "algo.num_minibatches",
    ),
    **dict.fromkeys(
        ("beta", "kl_loss_coef", "init_kl_coef", "kl_coeff", "kl.init_coef", "use_kl_loss", "kl_penalty_coef"),
        "algo.kl_coef",
    ),
    **dict.fromkeys(("kl_loss_type", "kl.estimator", "kl_penalty"), "algo.kl_estimator"),
    **dict.fromkeys(("use_kl_in_reward",), "algo.kl_in"),
    **dict.fromkeys(
        ("epsilon", "clip_ratio", "clip_eps", "eps_clip", "clip_ratio_low", "eps_clip_low"), "algo.clip_low"
    ),
    **dict.fromkeys(("epsilon_high", "clip_ratio_high", "eps_clip_high", "eps_clip_low_high"), "algo.clip_high"),
    **dict.fromkeys(("clip_ratio_c", "delta"), "algo.dual_clip"),
    **dict.fromkeys(("loss_agg_mode", "loss_type"), "algo.aggregation"),
    **dict.fromkeys(("entropy_coeff", "entropy_loss_coef", "ent_coef"), "algo.entropy_coef"),
    **dict.fromkeys(
        ("norm_adv_by_std_in_grpo", "scale_rewards", "no_std_norm", "advantage.no_std_norm"), "algo.scale_by_std"
    ),
    **dict.fromkeys(("adv_estimator", "advantage_estimator", "advantage.estimator"), "algo"),
    **dict.fromkeys(("mask_truncated_completions", "overlong_filtering"), "reward.truncated"),
    **dict.fromkeys(("filter_groups", "dynamic_filtering"), "algo.filter.min_solve_rate"),
    **dict.fromkeys(("ref_model_sync_steps",), "algo.reference_refresh_updates"),
    **dict.fromkeys(
        ("max_completion_length", "max_new_tokens", "generate_max_len", "data.max_response_length", "max_tokens"),
        "rollout.max_response_length",
    ),
    **dict.fromkeys(("prompt_max_len", "max_prompt_len"), "data.max_prompt_length"),
    **dict.fromkeys(
        ("tensor_model_parallel_size", "vllm_tensor_parallel_size", "vllm.tensor_parallel_size"),
        "rollout.tensor_parallel_size",
    ),
    **dict.fromkeys(("vllm_num_engines", "vllm.num_engines", "num_engines"), "rollout.num_workers"),
    **dict.fromkeys(
        (
            "gpu_memory_utilization",
            "vllm_gpu_memory_utilization",
            "enforce_eager",
            "max_num_seqs",
            "max_num_batched_tokens",
        ),
        "rollout.engine_args",
    ),
    **dict.fromkeys(("stop_token_ids", "stop_strings", "stop_sequences", "stop_words"), "rollout.stop"),
    **dict.fromkeys(("model_name_or_path", "pretrain", "model_name", "pretrained_model"), "model.path"),
    **dict.fromkeys(("critic.model.path", "critic_pretrain", "critic.model_name_or_path"), "critic.path"),
    **dict.fromkeys(("lora_rank", "lora_r", "lora_alpha", "target_modules", "lora_target_modules"), "model.lora"),
    **dict.fromkeys(("truncation",), "data.overlong_prompt"),
    **dict.fromkeys(
        ("train_files", "prompt_data", "prompt_dataset", "dataset_name", "prompt_key", "input_key", "label_key"),
        "data.train",
    ),
    **dict.fromkeys(("val_files", "eval_dataset", "test_files"), "eval.sets"),
    **dict.fromkeys(
        ("reward_funcs", "custom_reward_function", "remote_rm_url", "reward_fn", "reward_model"), "reward.components"
    ),
    **dict.fromkeys(("reward_weights",), "reward.components"),
    **dict.fromkeys(("total_training_steps", "max_steps", "num_episodes", "num_steps", "total_steps"), "steps"),
    **dict.fromkeys(("total_epochs", "num_train_epochs", "num_epochs", "max_epochs"), "sft.epochs or steps"),
    **dict.fromkeys(("test_freq", "eval_steps", "eval.steps", "eval_freq"), "eval.every_steps"),
    **dict.fromkeys(("val_before_train", "eval_on_start"), "eval.before_training"),
    **dict.fromkeys(("save_freq", "save_steps", "ckpt.save_steps"), "checkpoint.every_steps"),
    **dict.fromkeys(("save_total_limit", "max_ckpt_num", "max_actor_ckpt_to_keep"), "checkpoint.keep"),
    **dict.fromkeys(("experiment_name", "run_name"), "name"),
    **dict.fromkeys(("project_name", "wandb_project_name"), "log.wandb_project"),
    **dict.fromkeys(("report_to", "use_wandb"), "log.wandb"),
    **dict.fromkeys(("default_local_dir", "output_dir", "save_path"), "run_dir"),
    **dict.fromkeys(("resume_mode", "resume_from_checkpoint", "load_checkpoint"), "resume"),
}
"""{their key, or the end of it: ours}. A longer one that fits comes first: `critic.optim.lr` before `optim.lr`."""


def synonyms_of(key: str, value: Any) -> list[str]:
    """Our keys for an unknown key and, if its value is a mapping, for those below it.

    Example: `synonyms_of("actor_rollout_ref", {"rollout": {"n": 8}})` is ["algo.group_size"].
    """
    found = (_ours(path) for path in _paths(key, value))
    return list(dict.fromkeys(ours for ours in found if ours))


def _paths(key: str, value: Any) -> Iterator[str]:
    yield key
    if isinstance(value, Mapping):
        for name, below in cast("Mapping[str, Any]", value).items():
            yield from _paths(f"{key}.{name}", below)


def _ours(path: str) -> str | None:
    parts = path.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((SYNONYMS[end] for end in ends if end in SYNONYMS), None)
