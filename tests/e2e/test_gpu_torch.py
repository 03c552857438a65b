"""The trainer's arithmetic that needs a GPU and only torch: bfloat16, kernels, memory, long rows.

One process without Ray, vLLM or DeepSpeed. Models are random and created here.
"""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from r1ray.data.pack import pack, unpack
from r1ray.model import attention
from r1ray.model.forward import Policy, row_tensors
from r1ray.types import Sample

pytestmark = pytest.mark.gpu

LARGE_VOCAB = 151_936


def make_policy(*, dtype=torch.bfloat16, vocab=1024, hidden=512, layers=4):
    """Weights are drawn in float32 first, so that every dtype starts with the same ones."""
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=2,
        max_position_embeddings=65_536,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention.NAME)
    return Policy(lm.to(dtype).cuda())


def make_samples(lengths, *, vocab=1024):
    rng = np.random.default_rng(0)
    out = []
    for index, length in enumerate(lengths):
        mask_T = np.ones(length, np.float32)
        mask_T[: max(1, length // 4)] = 0
        out.append(
            Sample(
                token_ids_T=rng.integers(0, vocab, length).astype(np.int32),
                mask_T=mask_T,
                rollout_logprobs_T=np.zeros(length, np.float32),
                temperature=0.6,
                group_id="g",
                index=index,
            )
        )
    return out


def row_of(samples):
    total = sum(len(sample.token_ids_T) for sample in samples)
    batch = pack(samples, weights=[{}] * len(samples), num_ranks=1, max_tokens=total)
    return batch, row_tensors(batch.rows[0][0], device=torch.device("cuda"))


def logprobs(policy, samples):
    batch, row = row_of(samples)
    with torch.no_grad():
        return unpack([[policy(row)[0].cpu().numpy()]], batch)


LENGTHS = [3, 700, 64, 65, 1500, 12, 255, 2]


def test_bfloat16_logprobs_and_loss_are_close_to_float32():
    samples = make_samples(LENGTHS)
    exact, close = (make_policy(dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for a, b in zip(logprobs(exact, samples), logprobs(close, samples), strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)
    norms = []
    for policy in (exact, close):
        (-policy(row_of(samples)[1])[0].sum() / sum(LENGTHS)).backward()
        norms.append(torch.nn.utils.get_total_norm([p.grad.float() for p in policy.parameters()]).item())
    assert norms[1] == pytest.approx(norms[0], rel=0.03)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
def test_packed_rows_equal_unpacked_rows(dtype, tolerance):
    policy = make_policy(dtype=dtype)
    samples = make_samples(LENGTHS)
    for sample, together in zip(samples, logprobs(policy, samples), strict=True):
        (alone,) = logprobs(policy, [sample])
        np.testing.assert_allclose(together, alone, atol=tolerance)


def test_gpu_logprobs_equal_cpu_logprobs():
    samples = make_samples([3, 40, 17, 90])
    policy = make_policy(dtype=torch.float32)
    on_gpu = logprobs(policy, samples)
    policy = policy.cpu()
    batch = pack(samples, weights=[{}] * len(samples), num_ranks=1, max_tokens=1000)
    with torch.no_grad():
        values_L = policy(row_tensors(batch.rows[0][0], device=torch.device("cpu")))[0]
    for a, b in zip(on_gpu, unpack([[values_L.numpy()]], batch), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def peak_bytes(function):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def test_memory_at_a_large_vocabulary_is_far_below_full_logits():
    """16k tokens at 152k entries are 9.3 GiB of float32 logits, twice that with their gradient; a row twice as long needs no more
    memory for its logits."""
    policy = make_policy(vocab=LARGE_VOCAB, hidden=256, layers=1)
    peaks = []
    for length in (8192, 16_384):
        row = row_of(make_samples([length], vocab=LARGE_VOCAB))[1]
        peaks.append(peak_bytes(lambda row=row: policy(row)[0].sum().backward()))
        policy.zero_grad()
    full_logits = 16_384 * LARGE_VOCAB * 4
    assert peaks[1] < full_logits / 3
    assert peaks[1] - peaks[0] < full_logits / 20


def test_row_of_32k_tokens_runs_forward_and_backward():
    policy = make_policy(vocab=LARGE_VOCAB, hidden=512, layers=4)
    policy.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.train()
    row = row_of(make_samples([32_768], vocab=LARGE_VOCAB))[1]
    peak = peak_bytes(lambda: policy(row)[0].mean().backward())
    assert peak < 16 * 2**30
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
