"""The broadcast from the trainer to all engine workers: gloo through host memory, NCCL between devices, or shared memory
(`r1ray.sync.ipc`).

Everything else of a sync (rank layout, buckets, order, timeouts, abort, rebuild) is the same code for all three, so a laptop runs
the code of a cluster. The ranks meet at a TCPStore that the sender opens on a free port. A communicator is never repaired: after a
failure both sides close theirs, and the next one gets a new store and a new tag.
"""

import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C._distributed_c10d import (
    BroadcastOptions,
    PrefixStore,
    ProcessGroupGloo,
    Store,
    TCPStore,
)

from r1ray.sync.ipc import IpcCommunicator
from r1ray.sync.layout import SENDER_RANK, Backend, Rendezvous

FIRST_ATTEMPT_S = 1.0
BACKLOG = 2048
"""Connections that may wait: all engine workers connect at the same time."""


class TransferError(RuntimeError):
    """The received weights differ from the sent ones; the engine still serves the old weights. (Defined in this module, so that a
    driver without vLLM can unpickle it.)"""


class Communicator(Protocol):
    device: torch.device
    """The device on which the sender's buckets have to be."""
    timeout_s: float

    def broadcast(self, flat: Tensor) -> None:
        """Send these uint8 bytes (rank 0) or overwrite them (all others). Returns when that is done; raises after timeout_s.

        No work on `flat` may be pending on another CUDA stream.
        """
        ...

    def agree(self, ok: bool) -> bool:
        """Whether `ok` is True on every rank; a collective. Raises after timeout_s, and when a rank is gone."""
        ...

    def close(self) -> None:
        """Leave the group. Peers that wait for this rank get an error at once, not after their timeout."""
        ...


def open_store(host: str, *, timeout_s: float) -> TCPStore:
    """The sender's store, on a free port (`store.port`) of this address of its node; a TCPStore itself would use all of them.

    What is no message of the store closes only the connection on which it came.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=BACKLOG)
    port, timeout = listener.getsockname()[1], timedelta(seconds=timeout_s)
    return TCPStore(host, port, None, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach())


def reach_store(host: str, port: int, *, timeout_s: float) -> TCPStore:
    """A client of the sender's store. In torch 2.13 one handshake in fifty is never answered: attempts are short, and repeated."""
    attempt_s, end = FIRST_ATTEMPT_S, time.monotonic() + timeout_s
    while True:
        left = max(0.1, end - time.monotonic())
        try:
            timeout = timedelta(seconds=min(attempt_s, left))
            store = TCPStore(host, port, None, False, timeout, wait_for_workers=False)
        except RuntimeError:
            if attempt_s >= left:
                raise
            attempt_s *= 2
            continue
        store.set_timeout(timedelta(seconds=timeout_s))
        return store


def connect(rendezvous: Rendezvous, *, rank: int, store: TCPStore | None = None) -> Communicator:
    """Join the group; returns when all ranks have joined, raises after about timeout_s. The sender passes its own store."""
    if store is None:
        store = reach_store(rendezvous.host, rendezvous.port, timeout_s=rendezvous.timeout_s)
    scoped = PrefixStore(rendezvous.tag, store)
    return COMMUNICATORS[rendezvous.backend](
        scoped, rank=rank, world_size=rendezvous.world_size, timeout_s=rendezvous.timeout_s
    )


class GlooCommunicator:
    """A gloo group separate from torch's default group, which vLLM or DeepSpeed uses.

    `ProcessGroupGloo.abort` does not end the waits of other ranks. The timeout of the group does, and when a failed sender closes
    its sockets the waits of its receivers end at once.
    """

    device = torch.device("cpu")

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._world_size = world_size
        self._group: Any = ProcessGroupGloo(store, rank, world_size, timedelta(seconds=timeout_s))
        self._from_sender = BroadcastOptions()
        self._from_sender.rootRank, self._from_sender.rootTensor = SENDER_RANK, 0

    def broadcast(self, flat: Tensor) -> None:
        self._group.broadcast([flat], self._from_sender).wait()

    def agree(self, ok: bool) -> bool:
        votes = torch.tensor([int(ok)])
        self._group.allreduce([votes]).wait()
        return votes.item() == self._world_size

    def close(self) -> None:
        self._group = None


class NcclCommunicator:
    """vLLM's PyNcclCommunicator on the current CUDA device, with timeouts, which NCCL itself does not have."""

    def __init__(self, store: Store, *, rank: int, world_size: int, timeout_s: float) -> None:
        from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
        from vllm.distributed.utils import StatelessProcessGroup
        from vllm.utils.nccl import unpinned_nccl_env

        self.device = torch.device("cuda", torch.cuda.current_device())
        self.timeout_s = timeout_s
        self._world_size = world_size
        self._stream = torch.cuda.Stream(self.device)
        self._bounce = torch.empty(0, dtype=torch.uint8, device=self.device)

        def join() -> PyNcclCommunicator:
            torch.cuda.set_device(self.device)
            with unpinned_nccl_env(), torch.cuda.stream(self._stream):
                group = StatelessProcessGroup(rank=rank, world_size=world_size, store=store)  # type: ignore[arg-type]
                return PyNcclCommunicator(group, device=self.device)

        self._nccl = _with_timeout(
            join, timeout_s=timeout_s, what=f"joining the NCCL group as rank {rank} of {world_size}"
        )
        if self._nccl.disabled:
            # A disabled communicator skips every broadcast silently.
            raise RuntimeError("vLLM found no NCCL library (or VLLM_DISABLE_PYNCCL is set): set sync.backend=gloo")

    def broadcast(self, flat: Tensor) -> None:
        on_host = flat.device.type == "cpu"
        if on_host and len(self._bounce) < len(flat):
            self._bounce = torch.empty(len(flat), dtype=torch.uint8, device=self.device)
        buffer = self._bounce[: len(flat)] if on_host else flat
        self._finish(
            lambda: self._nccl.broadcast(buffer, src=SENDER_RANK, stream=self._stream),
            what=f"broadcast of {len(flat)} bytes",
        )
        if on_host:
            flat.copy_(buffer)

    def agree(self, ok: bool) -> bool:
        votes = torch.tensor([float(ok)], device=self.device)
        torch.cuda.current_stream(self.device).synchronize()
        total = self._finish(lambda: self._nccl.all_reduce(votes, stream=self._stream), what="vote")
        return int(total.item()) == self._world_size

    def _finish(self, launch: Callable[[], Any], *, what: str) -> Any:
        # A thread starts on device 0; the worker of a tensor-parallel engine may use another one.
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            result = launch()
            done = torch.cuda.Event()
            done.record(self._stream)
        deadline = time.monotonic() + self.timeout_s
        while not done.query():
            if time.monotonic() > deadline:
                self.close()
                raise TimeoutError(f"NCCL {what} did not finish within {self.timeout_s:.0f} s")
            time.sleep(0.0002)
        return result

    def close(self) -> None:
        self._nccl.destroy()


def _with_timeout(make: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    """The result of a call that cannot be interrupted. Raises TimeoutError after timeout_s, and leaves its thread running."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = make()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"{what} did not finish within {timeout_s:.0f} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


COMMUNICATORS: dict[Backend, Callable[..., Communicator]] = {
    "gloo": GlooCommunicator,
    "nccl": NcclCommunicator,
    "ipc": IpcCommunicator,
}
