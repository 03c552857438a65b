import pytest
import torch

from r1ray.sync.buckets import ALIGNMENT, Checksum, plan
from r1ray.sync.sender import filled, pieces

SHAPES = [("a", (3,)), ("b", (2, 2)), ("empty", (0, 4)), ("big", (50, 7)), ("scalar", ())]


def weights(dtype: torch.dtype = torch.float32) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES]


def wire_bytes(bucket_bytes: int, sent: list[tuple[str, torch.Tensor]]) -> list[torch.Tensor]:
    layout = plan(SHAPES, dtype=torch.float32, bucket_bytes=bucket_bytes)
    buffers = [torch.empty(layout.bucket_bytes, dtype=torch.uint8) for _ in range(2)]
    return [bucket.clone() for bucket in filled(pieces(layout, iter(sent), torch.device("cpu")), buffers)]


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


def test_what_is_sent_in_buckets_of_any_size_is_what_the_views_show() -> None:
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


def test_the_sender_casts_to_the_serving_dtype() -> None:
    layout = plan([("a", (3,))], dtype=torch.bfloat16, bucket_bytes=64)
    piece = next(pieces(layout, iter([("a", torch.tensor([1.0, 2.0, 1 / 3]))]), torch.device("cpu")))
    assert torch.equal(piece.view(torch.bfloat16), torch.tensor([1.0, 2.0, 1 / 3], dtype=torch.bfloat16))


def test_checksum_is_of_the_weights_not_of_the_buckets_before() -> None:
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
