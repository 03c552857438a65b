"""Joining the process group of a role whose ranks compute together (trainers; the reference with ZeRO-3)."""

import os


def join_ranks(
    *, rank: int, world_size: int, master_addr: str, master_port: int, device: str, timeout_s: float
) -> None:
    """Set the environment that torch.distributed and DeepSpeed read, and join the other ranks within `timeout_s`."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        # Ray shows each worker its own GPU only, so it is always the first.
        "LOCAL_RANK": "0",
        "LOCAL_SIZE": str(world_size),
        "MASTER_ADDR": master_addr,
        "MASTER_PORT": str(master_port),
        "DS_ACCELERATOR": device,
    }
    # Not imported before: DeepSpeed reads DS_ACCELERATOR when it is imported.
    from r1ray.model.deepspeed import init_distributed

    init_distributed(device=device, timeout_s=timeout_s)
