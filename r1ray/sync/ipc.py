"""The broadcast between processes that share a device: the sender fills memory that the engines have opened.

The memory is a block of the shared GPU on CUDA, and host memory on CPU (`r1ray.sync.shared_memory`); everything else is the same
code. The store carries the handle of the memory, and which ranks have read it.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import Store

from r1ray.sync.layout import SENDER_RANK
from r1ray.sync.shared_memory import SharedMemory, allocate_shared, open_shared

MIN_SLEEP_S, MAX_SLEEP_S = 5e-5, 1e-2
"""Time between two polls, which grows while a rank waits: a bucket takes a millisecond, the step of an engine far longer."""
LEFT = "left"


class IpcCommunicator:
    """One writer; any number of readers on CPU, one on CUDA. A bucket is overwritten when all readers have read it.

    The memory is as large as the largest bucket so far, so that it is rarely opened again.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        self.timeout_s = timeout_s
        self._store: Any = store
        self._rank, self._world_size = rank, world_size
        self._number = 0
        """Number of buckets and votes so far: all ranks make the same calls in the same order."""
        self._votes: list[str] = []
        self._memory: SharedMemory | None = None
        self._handle = b""
        self._opened = torch.empty(0, dtype=torch.uint8)
        try:
            self.agree(True)  # all ranks have joined
        except BaseException:
            self.close()  # ends the waits of the others
            raise

    def broadcast(self, flat: Tensor) -> None:
        number, readers = self._next(), [rank for rank in range(self._world_size) if rank != SENDER_RANK]
        sent, read = f"{number}/sent/{SENDER_RANK}", [f"{number}/read/{rank}" for rank in readers]
        if self._rank == SENDER_RANK:
            self._fill(flat)
            self._store.set(sent, self._handle)
            self._await(read)
            for key in (sent, *read):
                self._store.delete_key(key)
        else:
            self._await([sent])
            self._read(flat, self._store.get(sent))
            self._store.set(f"{number}/read/{self._rank}", b"")

    def agree(self, ok: bool) -> bool:
        number = self._next()
        votes = [f"{number}/vote/{rank}" for rank in range(self._world_size)]
        self._store.set(votes[self._rank], str(int(ok)).encode())
        self._await(votes)
        if self._rank == SENDER_RANK:
            for vote in self._votes:  # votes of the previous call: a rank that votes now has read them
                self._store.delete_key(vote)
        self._votes = votes
        return all(self._store.get(vote) == b"1" for vote in votes)

    def close(self) -> None:
        if self._store is not None:
            with suppress(RuntimeError):  # the sender's store may be gone, which ends all waits too
                self._store.set(LEFT, str(self._rank).encode())
        self._store = None
        if self._memory is not None:
            self._memory.close()
        self._memory, self._opened = None, self._opened[:0].clone()

    def _next(self) -> int:
        if self._store is None:
            raise RuntimeError("this communicator is closed")
        self._number += 1
        return self._number

    def _fill(self, flat: Tensor) -> None:
        if self._memory is None or len(self._memory.tensor) < len(flat):
            if self._memory is not None:
                self._memory.close()
            # A power of two, so that buckets of many sizes do not need many blocks.
            self._memory = allocate_shared(1 << (len(flat) - 1).bit_length(), self.device)
            self._handle = json.dumps(self._memory.handle).encode()
        self._memory.tensor[: len(flat)].copy_(flat)
        self._finish()

    def _read(self, flat: Tensor, handle: bytes) -> None:
        if handle != self._handle:
            self._opened = self._opened[:0].clone()  # releases the previous block
            self._opened, self._handle = open_shared(json.loads(handle), self.device), handle
        flat.copy_(self._opened[: len(flat)])
        self._finish()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _await(self, keys: Sequence[str]) -> None:
        """Poll until the keys exist: `Store.wait` would not notice that a rank has left, and logs warnings about long waits."""
        deadline, sleep_s = time.monotonic() + self.timeout_s, MIN_SLEEP_S
        while not self._store.check(list(keys)):
            if self._store.check([LEFT]):
                left = self._store.get(LEFT).decode()
                raise RuntimeError(f"rank {left} has left the transfer")
            if time.monotonic() > deadline:
                missing = [key.rpartition("/")[2] for key in keys if not self._store.check([key])]
                raise TimeoutError(f"rank {', '.join(missing)} did not answer within {self.timeout_s:.0f} s")
            time.sleep(sleep_s)
            sleep_s = min(2 * sleep_s, MAX_SLEEP_S)
