"""How weights become bytes on the wire. Pure: both sides compute the same plan from the same list of names and shapes.

All tensors lie one after the other in one flat run of bytes, in the order of the list, each at a multiple of 64 bytes. The run is
cut into buckets of a limited size: those of a large tensor hold nothing else, so that they are sent from where it lies, and small
tensors share theirs, which the sender fills. The receiver writes every bucket straight into its place of one host buffer, of which
the tensors are then views.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 64
LARGE_BYTES = 1 << 20
"""A tensor of this size or more has buckets of its own."""
WORD_BYTES = 8
"""Of the checksum."""

_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Bytes [start, start + num_bytes) of the flat run are this tensor."""

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
                # What does not fill the last 64 bytes goes with the small tensors behind it: buckets are whole words.
                end = entry.start + entry.num_bytes // ALIGNMENT * ALIGNMENT
                yield from self._cut(entry.start, end)
        yield from self._cut(end, self.num_bytes)

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for begin in range(start, end, self.bucket_bytes):
            yield begin, min(begin + self.bucket_bytes, end)

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The tensors inside a uint8 buffer of num_bytes, without copies."""
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
    """A running 64-bit sum over buckets in which every position counts; the same on CPU and CUDA.

    Each 8-byte word is multiplied by an odd number of its position, modulo 2^64: no changed word, and no exchange of two
    different words or buckets, leaves the sum as it was except by chance. It finds accidents, not attackers.
    """

    def __init__(self) -> None:
        self._sum = 0
        self._odd = torch.empty(0, dtype=torch.int64)

    def add(self, bucket: Tensor) -> None:
        """`bucket`: uint8, whole words that begin at a multiple of a word in their storage."""
        words = bucket.view(torch.int64)
        if len(self._odd) < len(words) or self._odd.device != words.device:
            self._odd = (torch.arange(len(words), dtype=torch.int64, device=words.device) * 2 + 1) * _signed(_MIX)
        odd = self._odd[: len(words)]
        # On CPU the dot product needs no array for the products; CUDA has none of integers. Both wrap around alike.
        mixed = int((torch.dot(words, odd) if words.device.type == "cpu" else (words * odd).sum()).item())
        self._sum = ((self._sum + 1) * _MIX + mixed) & _MASK

    @property
    def value(self) -> int:
        """As a signed 64-bit number, so that it fits an int64 tensor."""
        return _signed(self._sum)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
