"""The layout of weights in a transfer. Pure: both sides compute the same plan from the same list of names and shapes.

All tensors follow one another in one flat buffer, in the order of the list, each aligned to 64 bytes. The buffer is cut into
buckets of a limited size. A bucket of a large tensor holds nothing else, so that it is sent without a copy; small tensors share
buckets, which the sender fills. The receiver writes every bucket into its place of one host buffer, and the tensors are views of
that buffer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 64
LARGE_BYTES = 1 << 20
"""A tensor of this size or more shares no bucket."""
WORD_BYTES = 8
"""The unit of the checksum."""

_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The tensor at bytes [start, start + num_bytes) of the flat buffer."""

    name: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Example: a [3] and a [2, 2] float32 tensor with buckets of 64 bytes::

    entries: a at 0 (12 bytes), b at 64 (16 bytes); num_bytes 128; buckets [0, 64), [64, 128)
    """

    entries: tuple[Entry, ...]
    dtype: torch.dtype
    num_bytes: int
    bucket_bytes: int

    def buckets(self) -> Iterator[tuple[int, int]]:
        """[start, end) of each bucket."""
        end = 0
        for entry in self.entries:
            if entry.num_bytes >= LARGE_BYTES:
                yield from self._cut(end, entry.start)
                # A last part of under 64 bytes goes into the next bucket of small tensors: buckets consist of whole words.
                end = entry.start + entry.num_bytes // ALIGNMENT * ALIGNMENT
                yield from self._cut(entry.start, end)
        yield from self._cut(end, self.num_bytes)

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for begin in range(start, end, self.bucket_bytes):
            yield begin, min(begin + self.bucket_bytes, end)

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every tensor, as views of a uint8 buffer of num_bytes."""
        for entry in self.entries:
            part = flat[entry.start : entry.start + entry.num_bytes]
            yield entry.name, part.view(self.dtype).view(entry.shape)


def plan(shapes: Sequence[tuple[str, Sequence[int]]], *, dtype: torch.dtype, bucket_bytes: int) -> Plan:
    """The plan for tensors of (name, shape), all sent as `dtype`."""
    entries, start = [], 0
    for name, shape in shapes:
        num_bytes = math.prod(shape) * dtype.itemsize
        entries.append(Entry(name=name, shape=tuple(shape), start=start, num_bytes=num_bytes))
        start += _aligned(num_bytes)
    return Plan(entries=tuple(entries), dtype=dtype, num_bytes=start, bucket_bytes=_aligned(max(bucket_bytes, 1)))


class Checksum:
    """A running 64-bit checksum over buckets that depends on every position; the same on CPU and CUDA.

    Each 8-byte word is multiplied by an odd factor that depends on its position, modulo 2^64. So a changed word changes the sum,
    and so does a swap of two different words or buckets (except by chance). It detects accidents, not attacks.
    """

    def __init__(self) -> None:
        self._sum = 0
        self._odd = torch.empty(0, dtype=torch.int64)

    def add(self, bucket: Tensor) -> None:
        """Args: bucket: uint8, whole words, aligned to a word in its storage."""
        words = bucket.view(torch.int64)
        if len(self._odd) < len(words) or self._odd.device != words.device:
            self._odd = (torch.arange(len(words), dtype=torch.int64, device=words.device) * 2 + 1) * _signed(_MIX)
        odd = self._odd[: len(words)]
        # On CPU the dot product needs no buffer for the products; CUDA has no integer dot product. Both wrap around alike.
        mixed = int((torch.dot(words, odd) if words.device.type == "cpu" else (words * odd).sum()).item())
        self._sum = ((self._sum + 1) * _MIX + mixed) & _MASK

    @property
    def value(self) -> int:
        """As a signed number, which fits an int64 tensor."""
        return _signed(self._sum)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
