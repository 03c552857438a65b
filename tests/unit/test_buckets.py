import pytest
import torch

from r1ray.sync.buckets import ALIGNMENT, Checksum, plan
from r1ray.sync.sender import fill_buckets, pieces

CPU = torch.device("cpu")
SHAPES = [("a", (3,)), ("b", (2, 2)), ("empty", (0, 4)), ("big", (50, 7)), ("scalar", ())]


def weights(dtype: torch.dtype = torch.float32) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES]


def wire_bytes(bucket_bytes: int, sent: list[tuple[str, torch.Tensor]]) -> list[torch.Tensor]:
    layout = plan([(name, tensor.shape) for name, tensor in sent], dtype=torch.float32, bucket_bytes=bucket_bytes)
    return [bucket.clone() for bucket in fill_buckets(layout, pieces(layout, iter(sent), CPU), device=CPU)]


def test_plan_of_two_small_tensors() -> None:
    layout = plan([("a", (3,)), ("b", (2, 2))], dtype=torch.float32, bucket_bytes=64)
    assert [(e.start, e.num_bytes) for e in layout.entries] == [(0, 12), (64, 16)]
    assert layout.num_bytes == 128
    assert list(layout.buckets()) == [(0, 64), (64, 128)]


def test_tensors_are_aligned_and_do_not_overlap() -> None:
    layout = plan(SHAPES, dtype=torch.bfloat16, bucket_bytes=100)
    assert layout.bucket_bytes % ALIGNMENT == 0
    ends = [0]
    for entry in layout.entries:
        assert entry.start % ALIGNMENT == 0 and entry.start >= ends[-1]
        ends.append(entry.start + entry.num_bytes)
    assert ends[-1] <= layout.num_bytes


def test_tensors_arrive_unchanged_with_any_bucket_size() -> None:
    sent = weights()
    for bucket_bytes in (1, 64, 100, 192, 1 << 20):
        layout = plan(SHAPES, dtype=torch.float32, bucket_bytes=bucket_bytes)
        received = torch.full((layout.num_bytes,), 255, dtype=torch.uint8)
        buckets = wire_bytes(bucket_bytes, sent)
        for (start, end), bucket in zip(layout.buckets(), buckets, strict=True):
            received[start:end] = bucket
        for (name, tensor), (sent_name, sent_tensor) in zip(layout.views(received), sent, strict=True):
            assert name == sent_name
            assert torch.equal(tensor, sent_tensor)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.sync.buckets.LARGE_BYTES", 256)


@pytest.mark.usefixtures("small_is_large")
def test_large_tensors_are_sent_without_a_copy() -> None:
    """[50, 7] of float32 are 1400 bytes, which are 21 times 64 and 56 more; the remainder goes into the next bucket."""
    sent = weights()
    layout = plan(SHAPES, dtype=torch.float32, bucket_bytes=640)
    assert list(layout.buckets()) == [(0, 128), (128, 768), (768, 1408), (1408, 1472), (1472, 1600)]
    buckets = list(fill_buckets(layout, pieces(layout, iter(sent), CPU), device=CPU))
    lies_at = dict(sent)["big"].data_ptr()
    assert [bucket.data_ptr() for bucket in buckets[1:4]] == [lies_at, lies_at + 640, lies_at + 1280]


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("bucket_bytes", [64, 640, 1 << 20])
def test_large_tensors_arrive_unchanged_at_any_alignment(bucket_bytes: int) -> None:
    """Also a tensor that begins in the middle of a word of its storage, as views into ZeRO's flat buffer may."""
    sent = weights()
    storage = torch.randn(351)
    sent[3] = ("big", storage[1:].view(50, 7))
    layout = plan(SHAPES, dtype=torch.float32, bucket_bytes=bucket_bytes)
    received = torch.empty(layout.num_bytes, dtype=torch.uint8)
    total = Checksum()
    buckets = fill_buckets(layout, pieces(layout, iter(sent), CPU), device=CPU)
    for (start, end), bucket in zip(layout.buckets(), buckets, strict=True):
        received[start:end] = bucket
        total.add(bucket)
    assert [torch.equal(tensor, dict(sent)[name]) for name, tensor in layout.views(received)] == [True] * 5


def test_sender_casts_to_the_engine_dtype() -> None:
    layout = plan([("a", (3,))], dtype=torch.bfloat16, bucket_bytes=64)
    piece = next(pieces(layout, iter([("a", torch.tensor([1.0, 2.0, 1 / 3]))]), CPU))
    assert torch.equal(piece.view(torch.bfloat16), torch.tensor([1.0, 2.0, 1 / 3], dtype=torch.bfloat16))


def test_checksum_does_not_depend_on_the_buckets() -> None:
    def checksum(buckets: list[torch.Tensor]) -> int:
        total = Checksum()
        for bucket in buckets:
            total.add(bucket)
        return total.value

    sent = weights()
    right = checksum(wire_bytes(192, sent))
    assert checksum(wire_bytes(192, sent)) == right

    flipped = wire_bytes(192, sent)
    flipped[1][5] ^= 1
    assert checksum(flipped) != right

    swapped = wire_bytes(192, sent)
    assert checksum([swapped[1], swapped[0], *swapped[2:]]) != right
    assert checksum(swapped[:-1]) != right

    words = wire_bytes(192, sent)
    first = words[0].view(torch.int64)
    first[[0, 1]] = first[[1, 0]]
    assert checksum(words) != right


def test_checksum_of_known_words() -> None:
    total = Checksum()
    total.add(torch.tensor([1, 2], dtype=torch.int64).view(torch.uint8))
    mix = 0x9E3779B97F4A7C15
    expected = (mix + 1 * 1 * mix + 2 * 3 * mix) % 2**64
    assert total.value % 2**64 == expected


@pytest.mark.gpu
def test_checksum_is_the_same_on_cuda() -> None:
    host, device = Checksum(), Checksum()
    for bucket in wire_bytes(192, weights()):
        host.add(bucket)
        device.add(bucket.cuda())
    assert host.value == device.value
