"""Ranks that share a row. Here ranks are threads that exchange tensors like the ranks of a process group: together they must
compute what one rank computes, wherever their slices cut the row."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from algo_samples import sample
from near import BF16, EXACT, assert_near
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

import r1ray.model.load  # noqa: F401  registers the attention
from r1ray.data.pack import pack
from r1ray.model import attention, sequence_parallel
from r1ray.model.forward import Policy, row_tensors
from r1ray.model.heads import head_splits
from r1ray.model.sequence_parallel import UNSHARDED, SequenceShard, check_sequence_parallel
from r1ray.model.value import ValueModel, value_head
from r1ray.types import Row

CPU = torch.device("cpu")
CONFIGS: Any = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


class Threads:
    """A fake of torch.distributed in which every rank is a thread; the process group of a rank is (this, its rank)."""

    def __init__(self, size: int) -> None:
        self.barrier, self.sent = threading.Barrier(size, timeout=60), [torch.empty(0)] * size

    def _from_all(self, x: Tensor, rank: int) -> list[Tensor]:
        self.barrier.wait()
        self.sent[rank] = x
        self.barrier.wait()
        return list(self.sent)


def all_to_all_single(out: Tensor, x: Tensor, *, group: tuple[Threads, int]) -> None:
    threads, rank = group
    out.copy_(torch.stack([sent[rank] for sent in threads._from_all(x, rank)]))


def all_reduce(x: Tensor, *, group: tuple[Threads, int]) -> None:
    threads, rank = group
    x.copy_(torch.stack(threads._from_all(x.clone(), rank)).sum(0))


def make_lm(family: str = "qwen2", **overrides: Any) -> Any:
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    shape = CONFIGS[family](**{**sizes, **heads, "initializer_range": 0.2, **overrides})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(shape, attn_implementation=attention.NAME)


def one_row(lengths: list[int]) -> Row:
    rng = np.random.default_rng(0)
    made = [
        sample(n, prompt=min(2, n - 1), index=i, token_ids_T=rng.integers(2, 61, n).astype(np.int32), temperature=0.7)
        for i, n in enumerate(lengths)
    ]
    return pack(made, weights=[{}] * len(made), num_ranks=1, max_tokens=1000).rows[0][0]


def computed(model: Any, row: Row, shard: SequenceShard, entropy_grad: bool) -> Any:
    """Outputs and, of a loss that joins tokens far apart, the gradients."""
    outputs = model(row_tensors(row, device=CPU, shard=shard), entropy_grad=entropy_grad)
    loss = sum((output_L * torch.linspace(0.5, 2.0, len(output_L))).sum() for output_L in outputs)
    (loss.square() / 100).backward()
    return [output_L.detach() for output_L in outputs], {name: p.grad for name, p in model.named_parameters()}


def check(
    monkeypatch: pytest.MonkeyPatch,
    model: Any,
    row: Row,
    size: int,
    *,
    entropy_grad: bool = False,
    tolerance: float = EXACT,
) -> None:
    monkeypatch.setattr(
        sequence_parallel, "dist", SimpleNamespace(all_to_all_single=all_to_all_single, all_reduce=all_reduce)
    )
    threads = Threads(size)
    shares = [SequenceShard(rank=rank, size=size, group=(threads, rank)) for rank in range(size)]
    models = [copy.deepcopy(model) for _ in shares]
    with ThreadPoolExecutor(size) as pool:
        ranks = list(
            pool.map(lambda pair: computed(pair[0], row, pair[1], entropy_grad), zip(models, shares, strict=True))
        )
    wanted, wanted_grads = computed(model, row, UNSHARDED, entropy_grad)
    for outputs, _ in ranks:
        for got_L, want_L in zip(outputs, wanted, strict=True):
            torch.testing.assert_close(got_L, want_L, atol=tolerance, rtol=1e-5)
    summed = {name: sum(grads[name].numpy() for _, grads in ranks) for name in wanted_grads}
    assert_near(summed, {name: want.numpy() for name, want in wanted_grads.items()}, tolerance=tolerance)


ROWS = {
    "one sequence": [23],
    "borders inside sequences": [9, 2, 17, 5, 6],
    "a border between sequences": [8, 8],
    "fewer tokens than ranks": [2],
    "one token more than ranks": [3, 2],
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("lengths", ROWS.values(), ids=ROWS)
def test_shared_row_gives_the_same_logprobs_entropies_and_gradients(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], size: int
) -> None:
    check(monkeypatch, Policy(make_lm()), one_row(lengths), size, entropy_grad=True)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_every_family_and_number_of_key_value_heads(
    monkeypatch: pytest.MonkeyPatch, family: str, kv_heads: int
) -> None:
    model = Policy(make_lm(family, num_key_value_heads=kv_heads))
    check(monkeypatch, model, one_row(ROWS["borders inside sequences"]), 2)


def test_recomputed_layers_repeat_their_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm()
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check(monkeypatch, Policy(lm).train(), one_row(ROWS["borders inside sequences"]), 2)


@pytest.mark.parametrize("case", ["borders inside sequences", "a border between sequences"])
def test_shared_rows_in_lower_precision(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    check(monkeypatch, Policy(make_lm(), autocast=True), one_row(ROWS[case]), 2, entropy_grad=True, tolerance=BF16)


def test_shared_rows_of_a_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ValueModel(make_lm().model, value_head(32, init="normal", seed=0))
    check(monkeypatch, model, one_row(ROWS["borders inside sequences"]), 4)


@pytest.mark.parametrize("length", [1, 5, 6, 7])
def test_slices_are_the_row_with_padding_at_the_end(length: int) -> None:
    x_L = np.arange(1, length + 1)
    slices = [SequenceShard(rank=rank, size=3, group=None).slice_of(x_L) for rank in range(3)]
    assert len({len(x_C) for x_C in slices}) == 1
    joined = np.concatenate(slices)
    assert joined[:length].tolist() == x_L.tolist()
    assert len(joined) < length + 3 and not joined[length:].any()


def test_label_of_a_token_is_on_the_rank_that_has_the_token_before() -> None:
    row = one_row(ROWS["borders inside sequences"])
    labels = {}
    for rank in range(4):
        tensors = row_tensors(row, device=CPU, shard=SequenceShard(rank=rank, size=4, group=None))
        for target, source, label in zip(tensors.target_M, tensors.source_M, tensors.label_M, strict=True):
            assert tensors.token_ids_C[source] == row.token_ids_L[target - 1]
            assert tensors.positions_C[source] == row.positions_L[target] - 1
            assert int(target) not in labels
            labels[int(target)] = int(label)
    assert labels == {t: row.token_ids_L[t] for t in np.flatnonzero(row.mask_L)}


@pytest.mark.parametrize(
    ("heads", "kv_heads", "splits"),
    [(28, 4, [1, 2, 4, 28]), (14, 2, [1, 2, 14]), (40, 8, [1, 2, 4, 8, 40]), (12, 12, [1, 2, 3, 4, 6, 12])],
)
def test_possible_numbers_of_ranks(heads: int, kv_heads: int, splits: list[int]) -> None:
    assert head_splits(heads, kv_heads) == splits


REFUSED = {
    "heads": (3, {}, r"sequence_parallel=3 does not divide .* 4 attention heads and 2 key-value heads: choose from 1, 2, 4"),
    "a rotary embedding that follows the length": (
        2, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "the model has dynamic",
    ),
    "a layer that carries a state along": (2, {"layer_types": ["linear_attention", "full_attention"]}, "has linear_attention"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_slices_would_change_is_refused(case: str) -> None:
    size, overrides, message = REFUSED[case]
    shape = SimpleNamespace(**{**make_lm().config.to_dict(), **overrides})
    check_sequence_parallel(make_lm().config, 2)
    check_sequence_parallel(shape, 1)
    with pytest.raises(ValueError, match=message):
        check_sequence_parallel(shape, size)
