"""The sending side, in every trainer rank: rank 0 sends, the others only iterate over the weights.

With ZeRO-3 a full tensor exists only while all ranks gather it together, so every rank must exhaust the iterator of weights, in the
same order, even when the transfer fails: rank 0 then continues to the end and raises afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from r1ray.sync.buckets import WORD_BYTES, Checksum, Plan, plan
from r1ray.sync.communicator import Communicator, connect, open_store
from r1ray.sync.layout import SENDER_RANK, Rendezvous

Metadata = Sequence[tuple[str, str, Sequence[int]]]
"""(name, dtype name, full shape) of every tensor, in the order in which they are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    version: int
    checksum: int
    num_bytes: int


class WeightSender:
    """One per trainer rank. `listen`, then `connect` while the engines connect; then for each push `send` while they receive.

    After an error the communicator is closed, which also ends the waits of the engines; `listen` starts the next one.
    """

    def __init__(self, *, rank: int) -> None:
        self.rank = rank
        self._store: TCPStore | None = None
        self._communicator: Communicator | None = None

    def listen(self, host: str, *, timeout_s: float) -> int:
        """Open the store of a new communicator (rank 0 only) at this address of the node; returns its port."""
        self.close()
        self._store = open_store(host, timeout_s=timeout_s)
        return self._store.port

    def connect(self, rendezvous: Rendezvous) -> None:
        """Rank 0 waits for all engine workers; the other ranks do nothing."""
        if self.rank == SENDER_RANK:
            self._communicator = connect(rendezvous, rank=SENDER_RANK, store=self._store)

    def send(
        self,
        metadata: Metadata,
        weights: Iterable[tuple[str, Tensor]],
        *,
        version: int,
        dtype_name: str,
        bucket_bytes: int,
    ) -> Sent | None:
        """Broadcast all weights as `dtype_name`, then (version, checksum). None on all ranks but 0.

        Returns when every engine worker has confirmed that it has received all of it.

        Raises RuntimeError when an engine is gone or times out, or when `weights` does not yield what `metadata` says.
        """
        if self.rank != SENDER_RANK:
            for _ in weights:
                pass
            return None
        remaining = iter(weights)
        try:
            if self._communicator is None:
                raise RuntimeError("there is no connection to the engines: call connect first")
            layout = plan(
                [(name, shape) for name, _, shape in metadata],
                dtype=getattr(torch, dtype_name),
                bucket_bytes=bucket_bytes,
            )
            checksum = _stream(self._communicator, layout, remaining, version=version)
        except BaseException:
            self.close()
            for _ in remaining:
                pass
            raise
        return Sent(version=version, checksum=checksum, num_bytes=layout.num_bytes)

    def close(self) -> None:
        if self._communicator is not None:
            self._communicator.close()
        self._communicator = self._store = None


def _stream(communicator: Communicator, layout: Plan, weights: Iterator[tuple[str, Tensor]], *, version: int) -> int:
    """Returns the checksum. One bucket is filled while the other is sent by a thread."""
    checksum = Checksum()
    # The communicator ends its own waits; this is for one that fails to.
    timeout_s = communicator.timeout_s + 2.0
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights")
    sending: Future[None] | None = None
    try:
        for bucket in fill_buckets(layout, pieces(layout, weights, communicator.device), device=communicator.device):
            checksum.add(
                bucket
            )  # waits until the bucket is filled (`.item()` synchronises the stream), as broadcast requires
            if sending is not None:
                sending.result(timeout_s)
            sending = thread.submit(communicator.broadcast, bucket)
        if sending is not None:
            sending.result(timeout_s)
        trailer = torch.tensor([version, checksum.value], dtype=torch.int64, device=communicator.device)
        thread.submit(communicator.broadcast, trailer.view(torch.uint8)).result(timeout_s)
        if not thread.submit(communicator.agree, True).result(timeout_s):
            raise RuntimeError("an engine did not receive what was sent; its own error says what arrived")
    finally:
        thread.shutdown(wait=False)
    return checksum.value


def pieces(layout: Plan, weights: Iterator[tuple[str, Tensor]], device: torch.device) -> Iterator[Tensor]:
    """The flat buffer as tensors of uint8, padding included."""
    ends = [entry.start for entry in layout.entries[1:]] + [layout.num_bytes]
    for entry, end in zip(layout.entries, ends, strict=True):
        name, tensor = next(weights, ("nothing", torch.empty(0)))
        if (name, tuple(tensor.shape)) != (entry.name, entry.shape):
            raise RuntimeError(
                f"{entry.name} {list(entry.shape)} was announced, but the trainer yielded {name} {list(tensor.shape)}"
            )
        yield tensor.detach().to(device, layout.dtype).contiguous().view(-1).view(torch.uint8)
        yield torch.zeros(end - entry.start - entry.num_bytes, dtype=torch.uint8, device=device)


def fill_buckets(layout: Plan, pieces: Iterator[Tensor], *, device: torch.device) -> Iterator[Tensor]:
    """The buckets. A bucket inside one piece is a view of it; others are copied into two buffers in turn: a bucket is
    overwritten when the second one after it is filled.
    """
    buffers = [torch.empty(0, dtype=torch.uint8, device=device) for _ in range(2)]
    piece = buffers[0]
    for start, end in layout.buckets():
        size = end - start
        piece = piece if len(piece) else next(filter(len, pieces))
        if len(piece) >= size and piece.storage_offset() % WORD_BYTES == 0:
            bucket, piece = piece[:size], piece[size:]
        else:
            buffers.reverse()
            if len(buffers[0]) < size:
                buffers[0] = torch.empty(size, dtype=torch.uint8, device=device)
            bucket, used = buffers[0][:size], 0
            while used < size:
                piece = piece if len(piece) else next(filter(len, pieces))
                part, piece = piece[: size - used], piece[size - used :]
                bucket[used : used + len(part)].copy_(part)
                used += len(part)
        yield bucket
    assert not len(piece) and not any(map(len, pieces)), "the buckets do not cover the flat buffer"
