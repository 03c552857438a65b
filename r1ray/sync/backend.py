"""Over which link weights go from the trainer to the engines. Pure: the check of the configuration and the push ask alike."""

from r1ray.config import ClusterConfig, RolloutConfig, SyncConfig, TrainerConfig
from r1ray.sync.layout import Backend


def backend_of(
    *, device: str, sync: SyncConfig, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig
) -> Backend:
    """auto: gloo on CPU; on CUDA ipc where engine and trainer are alone on one GPU (NCCL cannot join one GPU twice), NCCL where all
    have GPUs of their own, gloo for what is between.

    Raises ValueError with the remedy for a backend that cannot work.
    """
    wanted = sync.backend
    if wanted != "auto":
        reason = why_not(wanted, device=device, rollout=rollout, trainer=trainer, cluster=cluster)
        if reason is not None:
            raise ValueError(f"sync.backend={wanted}: {reason}: set sync.backend=auto")
        return wanted
    if device == "cpu":
        return "gloo"
    links: tuple[Backend, ...] = ("nccl", "ipc", "gloo")
    return next(
        link for link in links if not why_not(link, device=device, rollout=rollout, trainer=trainer, cluster=cluster)
    )


def why_not(
    backend: Backend, *, device: str, rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig
) -> str | None:
    """Why weights cannot go over this link; None when they can. On CPU ipc is the memory of one machine, which only the first push
    sees."""
    shares = [gpus for gpus in (rollout.gpus_per_worker, trainer.gpus_per_worker) if gpus < 1]
    if backend == "nccl" and device == "cpu":
        return "NCCL moves weights between GPUs and device is cpu"
    if backend == "nccl" and shares:
        return f"NCCL needs whole GPUs for engines and trainers, and some have {shares[0]:g} of one"
    if backend == "ipc" and device == "cuda" and not on_one_gpu(rollout, trainer, cluster):
        return (
            "a GPU's memory can be opened on that GPU only, so it needs one engine of one GPU and one trainer rank that share it "
            "(rollout.num_workers=1, rollout.tensor_parallel_size=1, trainer.num_workers=1, gpus_per_worker together at most 1, "
            "the same cluster.labels)"
        )
    return None


def on_one_gpu(rollout: RolloutConfig, trainer: TrainerConfig, cluster: ClusterConfig) -> bool:
    """Whether engine and trainer have shares of one GPU (`r1ray.actors.placement` then sees to it that it is the same one)."""
    alone = rollout.num_workers == rollout.tensor_parallel_size == trainer.num_workers == 1
    shares = rollout.gpus_per_worker, trainer.gpus_per_worker
    alike = cluster.labels.get("rollout", {}) == cluster.labels.get("policy", {})
    return alone and alike and min(shares) > 0 and round(sum(shares), 4) <= 1
