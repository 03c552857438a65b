"""The sending side, inside every trainer rank: rank 0 sends, the others walk along.

With ZeRO-3 a full tensor exists only while all ranks gather it together, so every rank must walk the whole iterator, in the same
order, whatever happens to the transfer: rank 0 keeps walking after a failure and raises at the end.
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
    """One per trainer rank. `listen`, then `connect` while the engines connect, then `send` while they receive, again and again.

    After an error the communicator is closed, which also ends the engines' waits; `listen` starts the next incarnation.
    """

    def __init__(self, *, rank: int) -> None:
        self.rank = rank
        self._store: TCPStore | None = None
        self._communicator: Communicator | None = None

    def listen(self, *, timeout_s: float) -> int:
        """Open the rendezvous point of a new incarnation (rank 0 only); returns its port."""
        self.close()
        self._store = open_store(timeout_s=timeout_s)
        return self._store.port

    def connect(self, rendezvous: Rendezvous) -> None:
        """Rank 0 waits here for all engine workers."""
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
        """Broadcast all weights as `dtype_name`, then (version, checksum). None on ranks that only walk along.

        Returns when every engine worker has confirmed that it holds the whole.

        Raises RuntimeError when an engine is gone or late, or when `weights` does not yield what `metadata` says.
        """
        if self.rank != SENDER_RANK:
            for _ in weights:
                pass
            return None
        rest = iter(weights)
        try:
            if self._communicator is None:
                raise RuntimeError("no connection to the engines: connect has to come first")
            layout = plan(
                [(name, shape) for name, _, shape in metadata],
                dtype=getattr(torch, dtype_name),
                bucket_bytes=bucket_bytes,
            )
            checksum = _stream(self._communicator, layout, rest, version=version)
        except BaseException:
            self.close()
            for _ in rest:
                pass
            raise
        return Sent(version=version, checksum=checksum, num_bytes=layout.num_bytes)

    def close(self) -> None:
        if self._communicator is not None:
            self._communicator.close()
        self._communicator = self._store = None


def _stream(communicator: Communicator, layout: Plan, weights: Iterator[tuple[str, Tensor]], *, version: int) -> int:
    """Returns the checksum. One bucket is filled while the other is under way; the broadcast runs on a thread of its own."""
    checksum = Checksum()
    # The communicator ends its own waits; this is for one that cannot.
    patience_s = communicator.timeout_s + 2.0
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights")
    flying: Future[None] | None = None
    try:
        for bucket in filled(layout, pieces(layout, weights, communicator.device), device=communicator.device):
            checksum.add(bucket)  # reads the bucket's last byte: on CUDA nothing is left to do on its stream after this
            if flying is not None:
                flying.result(patience_s)
            flying = thread.submit(communicator.broadcast, bucket)
        if flying is not None:
            flying.result(patience_s)
        trailer = torch.tensor([version, checksum.value], dtype=torch.int64, device=communicator.device)
        thread.submit(communicator.broadcast, trailer.view(torch.uint8)).result(patience_s)
        if not thread.submit(communicator.agree, True).result(patience_s):
            raise RuntimeError("an engine did not receive what was sent; it says what arrived")
    finally:
        thread.shutdown(wait=False)
    return checksum.value


def pieces(layout: Plan, weights: Iterator[tuple[str, Tensor]], device: torch.device) -> Iterator[Tensor]:
    """The flat run of bytes as tensors of uint8, gaps included."""
    ends = [entry.start for entry in layout.entries[1:]] + [layout.num_bytes]
    for entry, end in zip(layout.entries, ends, strict=True):
        name, tensor = next(weights, ("nothing", torch.empty(0)))
        if (name, tuple(tensor.shape)) != (entry.name, entry.shape):
            raise RuntimeError(
                f"{entry.name} {list(entry.shape)} was announced, but the trainer yielded {name} {list(tensor.shape)}"
            )
        yield tensor.detach().to(device, layout.dtype).contiguous().view(-1).view(torch.uint8)
        yield torch.zeros(end - entry.start - entry.num_bytes, dtype=torch.uint8, device=device)


def filled(layout: Plan, pieces: Iterator[Tensor], *, device: torch.device) -> Iterator[Tensor]:
    """The buckets: parts of a piece where one holds all of a bucket, else copies, in two buffers by turns: the one before the last
    yielded is overwritten next.
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
    assert not len(piece) and not any(map(len, pieces)), "the buckets are not all of the flat run"
