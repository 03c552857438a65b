"""Which backend moves weights from the trainer to the engines. Pure: the check of the configuration and the weight sync use it."""

from r1ray.config import ClusterConfig, RolloutConfig, SyncConfig, TrainerConfig
from r1ray.sync.layout import Backend


def backend_of(
    *, device: str, sync: SyncConfig, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig
) -> Backend:
    """auto: gloo on CPU. On CUDA nccl when engines and trainers have whole GPUs, ipc when one engine and one trainer share a GPU
    (NCCL cannot use a GPU twice), otherwise gloo.

    Raises ValueError with the remedy for a backend that cannot work.
    """
    if sync.backend == "auto" and device == "cpu":
        return "gloo"
    backends: tuple[Backend, ...] = ("nccl", "ipc", "gloo") if sync.backend == "auto" else (sync.backend,)
    reason = None
    for backend in backends:
        reason = unusable_reason(backend, device=device, rollout=rollout, trainer=trainer, cluster=cluster)
        if reason is None:
            return backend
    raise ValueError(f"sync.backend={sync.backend}: {reason}: set sync.backend=auto")


def unusable_reason(
    backend: Backend, *, device: str, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig
) -> str | None:
    """Why this backend cannot work; None when it can. On CPU, ipc needs one machine, which only the first push can check."""
    shares = [gpus for gpus in (rollout.gpus_per_worker, trainer.gpus_per_worker) if gpus < 1]
    if backend == "nccl" and device == "cpu":
        return "NCCL moves weights between GPUs, but device is cpu"
    if backend == "nccl" and shares:
        return f"NCCL needs whole GPUs for engines and trainers, but some have {shares[0]:g} of one"
    if backend == "ipc" and device == "cuda" and not on_one_gpu(rollout, trainer, cluster):
        return (
            "a GPU's memory can be opened on that GPU only, so ipc needs one engine of one GPU and one trainer rank that share it "
            "(rollout.num_workers=1, rollout.tensor_parallel_size=1, trainer.num_workers=1, gpus_per_worker together at most 1, "
            "the same cluster.labels)"
        )
    return None


def on_one_gpu(rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig) -> bool:
    """Whether engine and trainer can share one GPU (`r1ray.actors.placement` then puts them on the same one)."""
    alone = rollout.num_workers == rollout.tensor_parallel_size == trainer.num_workers == 1
    shares = rollout.gpus_per_worker, trainer.gpus_per_worker
    same_labels = cluster.labels.get("rollout", {}) == cluster.labels.get("policy", {})
    return alone and same_labels and min(shares) > 0 and round(sum(shares), 4) <= 1
