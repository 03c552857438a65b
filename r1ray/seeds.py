"""Sampling seeds: a stable hash, so that a resumed run or a redispatch samples the same completions."""

import hashlib


def seed_of(run_seed: int, problem_id: str, epoch: int, attempt: int, k: int) -> int:
    """A seed in [0, 2**63) for completion `k` of a problem; k = -1 is the seed of the whole group (`RewardContext.seed`).

    The G completions of a group differ by `k`. A redispatch keeps `attempt`, so it repeats the completion; a regeneration adds 1.
    """
    key = f"{run_seed}\0{problem_id}\0{epoch}\0{attempt}\0{k}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
