"""The broadcast between processes that share a device: the sender fills memory that the engines have opened.

On CUDA that is a block of the GPU on which both work, on CPU memory of the machine; all but the kind of memory is the same code
(`r1ray.sync.shared_memory`). The store at which they meet carries a handle, and who has read.
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
from r1ray.sync.shared_memory import SharedMemory, opened, shared

SHORT_NAP_S, LONG_NAP_S = 5e-5, 1e-2
"""Between two looks, the longer the longer a rank has waited: a bucket takes a millisecond, an engine may have to finish a step."""
LEFT = "left"


class IpcCommunicator:
    """One writer, any number of readers on CPU, one on CUDA. A bucket is overwritten when all have read it.

    The memory is as large as the largest bucket so far, and is opened once.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        self.timeout_s = timeout_s
        self._store: Any = store
        self._rank, self._world_size = rank, world_size
        self._number = 0
        """Of the next bucket or vote: all ranks make the same calls in the same order."""
        self._votes: list[str] = []
        self._memory: SharedMemory | None = None
        self._handle = b""
        self._opened = torch.empty(0, dtype=torch.uint8)
        try:
            self.agree(True)  # all are there, each with a rank of its own
        except BaseException:
            self.close()  # tells the others
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
            for vote in self._votes:  # the last ones: who votes now has read them
                self._store.delete_key(vote)
        self._votes = votes
        return all(self._store.get(vote) == b"1" for vote in votes)

    def close(self) -> None:
        if self._store is not None:
            with suppress(RuntimeError):  # the sender's store may be gone, and with it everybody who waits there
                self._store.set(LEFT, str(self._rank).encode())
        self._store = None
        if self._memory is not None:
            self._memory.close()
        self._memory, self._opened = None, self._opened[:0].clone()

    def _next(self) -> int:
        if self._store is None:
            raise RuntimeError("the transfer was given up")
        self._number += 1
        return self._number

    def _fill(self, flat: Tensor) -> None:
        if self._memory is None or len(self._memory.tensor) < len(flat):
            if self._memory is not None:
                self._memory.close()
            # Powers of two: buckets of many sizes should not mean many handles.
            self._memory = shared(1 << (len(flat) - 1).bit_length(), self.device)
            self._handle = json.dumps(self._memory.handle).encode()
        self._memory.tensor[: len(flat)].copy_(flat)
        self._finish()

    def _read(self, flat: Tensor, handle: bytes) -> None:
        if handle != self._handle:
            self._opened = self._opened[:0].clone()  # lets go of the one before
            self._opened, self._handle = opened(json.loads(handle), self.device), handle
        flat.copy_(self._opened[: len(flat)])
        self._finish()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _await(self, keys: Sequence[str]) -> None:
        """Looks again and again: `Store.wait` could not be told that somebody has left, and complains of long waits in the log."""
        deadline, nap_s = time.monotonic() + self.timeout_s, SHORT_NAP_S
        while not self._store.check(list(keys)):
            if self._store.check([LEFT]):
                left = self._store.get(LEFT).decode()
                raise RuntimeError(f"rank {left} has given the transfer up")
            if time.monotonic() > deadline:
                late = [key.rpartition("/")[2] for key in keys if not self._store.check([key])]
                raise TimeoutError(f"no answer from rank {', '.join(late)} within {self.timeout_s:.0f} s")
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, LONG_NAP_S)
