"""Log-probs of packed rows compared with full softmax in float64, one unpacked sequence at a time, with another attention."""

import numpy as np
import pytest
import torch
from algo_samples import sample
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

import r1ray.model.load  # noqa: F401  registers the attention
from r1ray.data.pack import pack, unpack
from r1ray.model import attention, forward
from r1ray.model.forward import Policy, row_tensors

CPU = torch.device("cpu")
CONFIGS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}
VOCAB = 61
LENGTHS = [2, 17, 9, 30, 5, 2]


def make_lm(family="qwen2", *, implementation=attention.NAME, dtype=torch.float32, tied=True):
    config = CONFIGS[family](
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=implementation)


def make_samples(lengths=LENGTHS, *, temperature=1.0):
    return [sample(n, prompt=max(1, n // 3), index=i, temperature=temperature, seed=3) for i, n in enumerate(lengths)]


def expected(lm, one):
    """(logprobs_T, entropy_T) from the full float64 softmax of one sequence; 0 on the prompt. `lm` is float64 with eager
    attention."""
    ids = torch.tensor(one.token_ids_T, dtype=torch.long)
    logits = lm(input_ids=ids[None]).logits[0, :-1].double() / one.temperature
    log = logits.log_softmax(-1)
    mask = torch.tensor(one.mask_T[1:]).double()
    zero = torch.zeros(1, dtype=torch.float64)
    logprobs = log.gather(-1, ids[1:, None])[:, 0] * mask
    entropy = -(log.exp() * log).sum(-1) * mask
    return torch.cat([zero, logprobs]), torch.cat([zero, entropy])


def one_row(samples):
    total = sum(len(s.token_ids_T) for s in samples)
    batch = pack(samples, weights=[{}] * len(samples), num_ranks=1, max_tokens=total)
    return batch, batch.rows[0][0]


def packed_logprobs(policy, samples, **kwargs):
    batch, row = one_row(samples)
    with torch.no_grad():
        logprobs_L, _ = policy(row_tensors(row, device=CPU), **kwargs)
    return unpack([[logprobs_L.numpy()]], batch)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("tied", [True, False])
def test_logprobs_entropy_and_gradients_equal_full_softmax(family, temperature, tied):
    samples = make_samples(temperature=temperature)
    reference = make_lm(family, implementation="eager", tied=tied).double()
    rows = [expected(reference, one) for one in samples]
    sum((i + 1) * logprobs.sum() for i, (logprobs, _) in enumerate(rows)).backward()

    policy = Policy(make_lm(family, tied=tied))
    batch, row = one_row(samples)
    logprobs_L, entropy_L = policy(row_tensors(row, device=CPU))
    (logprobs_L * torch.tensor(row.sample_L + 1)).sum().backward()
    for values_L, k in ((logprobs_L, 0), (entropy_L, 1)):
        for got, want in zip(unpack([[values_L.detach().numpy()]], batch), rows, strict=True):
            np.testing.assert_allclose(got, want[k].detach().numpy(), atol=2e-5)
    wanted = dict(reference.named_parameters())
    for name, p in policy.lm.named_parameters():
        scale = wanted[name].grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(p.grad.double() / scale, wanted[name].grad / scale, atol=1e-5, rtol=0, msg=name)


def test_logprob_of_a_token_comes_from_the_hidden_state_before_it():
    """Log-probs up to token t depend on token t only as a label: changing token t does not change the log-probs before t."""
    policy = Policy(make_lm())
    (one,) = make_samples([12])
    ids = one.token_ids_T.copy()
    ids[7] = (ids[7] + 1) % 50
    before, after = (packed_logprobs(policy, [s])[0] for s in (one, sample(12, prompt=4, token_ids_T=ids)))
    np.testing.assert_array_equal(before[:7], after[:7])
    assert (before[7:] != after[7:]).all()


def test_sequence_does_not_attend_to_its_neighbours_in_the_row():
    policy = Policy(make_lm())
    samples = make_samples()
    together = packed_logprobs(policy, samples)
    for one, got in zip(samples, together, strict=True):
        np.testing.assert_allclose(got, packed_logprobs(policy, [one])[0], atol=2e-6)


@pytest.mark.parametrize("family", CONFIGS)
def test_cache_object_does_not_join_the_sequences(family):
    """With transformers' own attention and use_cache (its default) packed sequences attend across boundaries without an error."""
    lm = make_lm(family)
    lm.config.use_cache = True
    _, row = one_row(make_samples())
    tensors = row_tensors(row, device=CPU)
    inputs = {"input_ids": tensors.token_ids_C[None], "position_ids": tensors.positions_C[None]}
    with torch.no_grad():
        right, cached = (
            lm.model(**inputs, segments=tensors.segments, use_cache=use).last_hidden_state for use in (False, True)
        )
    torch.testing.assert_close(cached, right)


def test_attention_without_sequence_boundaries_is_refused():
    with pytest.raises(AssertionError, match="segments"):
        make_lm()(input_ids=torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.parametrize("size", [1, 7, VOCAB // 2, VOCAB - 1])
def test_vocabulary_blocks_bound_the_logits_and_change_no_result(monkeypatch, size):
    shapes = []
    logits = forward._logits

    def recorded(*args):
        out = logits(*args)
        shapes.append(out.shape[1])
        return out

    monkeypatch.setattr(forward, "_logits", recorded)
    grads, values = [], []
    for kept, block in ((2**24, VOCAB), (0, size)):
        monkeypatch.setitem(forward._KEPT_LOGITS, "cpu", kept)
        monkeypatch.setitem(forward._BLOCK_LOGITS, "cpu", 1)
        monkeypatch.setattr(forward, "_MIN_BLOCK", block)
        policy = Policy(make_lm(tied=False))
        shapes.clear()
        logprobs_L, entropy_L = policy(row_tensors(one_row(make_samples())[1], device=CPU), entropy_grad=True)
        (logprobs_L.square().sum() + entropy_L.square().sum()).backward()
        values.append(torch.stack([logprobs_L, entropy_L]).detach())
        grads.append([p.grad / p.grad.abs().max() for p in policy.parameters()])
    assert max(shapes) == size and sum(shapes) == 2 * VOCAB, "once forward, once backward"
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kept", [2**24, 0])
def test_entropy_has_a_gradient_when_requested(monkeypatch, kept):
    monkeypatch.setitem(forward._KEPT_LOGITS, "cpu", kept)
    samples = make_samples(temperature=0.6)
    reference = make_lm(implementation="eager").double()
    sum(
        (i + 1) * (0.5 * logprobs + entropy).sum()
        for i, (logprobs, entropy) in enumerate(expected(reference, s) for s in samples)
    ).backward()

    policy, row = Policy(make_lm()), one_row(samples)[1]
    logprobs_L, entropy_L = policy(row_tensors(row, device=CPU), entropy_grad=True)
    ((0.5 * logprobs_L + entropy_L) * torch.tensor(row.sample_L + 1)).sum().backward()
    wanted = dict(reference.named_parameters())
    for name, p in policy.lm.named_parameters():
        scale = wanted[name].grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(p.grad.double() / scale, wanted[name].grad / scale, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("kept", [2**24, 0])
def test_entropy_has_no_gradient_by_default(monkeypatch, kept):
    monkeypatch.setitem(forward._KEPT_LOGITS, "cpu", kept)
    logprobs_L, entropy_L = Policy(make_lm())(row_tensors(one_row(make_samples())[1], device=CPU))
    assert logprobs_L.requires_grad and entropy_L.any() and not entropy_L.requires_grad


def test_tokens_outside_the_mask_are_zero():
    policy = Policy(make_lm())
    for one, got in zip(samples := make_samples(), packed_logprobs(policy, samples), strict=True):
        assert not got[one.mask_T == 0].any()
        assert (got[one.mask_T == 1] < 0).all()


def test_empty_row_still_gives_every_parameter_a_gradient():
    """ZeRO communicates in every backward pass: a rank with an empty row must not skip a weight."""
    batch = pack(make_samples([5]), weights=[{}], num_ranks=2, max_tokens=64)
    (empty,) = [rank[0] for rank in batch.rows if rank[0].sample_L[0] < 0]
    policy = Policy(make_lm(tied=False))
    logprobs_L, _ = policy(row_tensors(empty, device=CPU))
    logprobs_L.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in policy.parameters())


@pytest.mark.parametrize("eager_up_to", [0, 512])
def test_bfloat16_is_close_to_float32_in_both_attention_kernels(monkeypatch, eager_up_to):
    monkeypatch.setattr(attention, "_EAGER_MAX_LENGTH", eager_up_to)
    samples = make_samples()
    exact = packed_logprobs(Policy(make_lm()), samples)
    weights16 = packed_logprobs(Policy(make_lm(dtype=torch.bfloat16)), samples)
    policy = Policy(make_lm(), autocast=True)
    autocast = packed_logprobs(policy, samples)
    for got in (weights16, autocast):
        gap = max(np.abs(a - b).max() for a, b in zip(exact, got, strict=True))
        assert 0 < gap < 0.3
    for a, b in zip(exact, packed_logprobs(policy, samples, autocast=False), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lengths", [[4], [4, 4], [5, 4, 1], [1, 4, 5], [100, 3, 90, 2, 2], list(range(1, 40))])
def test_padded_groups_hold_every_token_with_little_padding(lengths):
    plan = attention.segments_of(lengths, device=CPU)
    slots = plan.slot_L.tolist() if plan.slot_L is not None else list(range(sum(lengths)))
    assert len(set(slots)) == sum(lengths) == plan.length
    assert plan.padded_length <= attention._MAX_PADDING * sum(lengths)
    starts = np.cumsum([0, *lengths])
    firsts = {0}
    for num, longest in plan.groups:
        firsts |= {max(firsts) + longest * (i + 1) for i in range(num)}
    for start, length in zip(starts, lengths, strict=False):
        assert slots[start] in firsts, "a sequence does not start at a row of its group"
        assert slots[start : start + length] == list(range(slots[start], slots[start] + length))


@pytest.mark.parametrize(("name", "value"), [("sliding_window", 8), ("softcap", 30.0), ("s_aux", torch.zeros(4))])
def test_attention_that_packing_does_not_support_is_refused(name, value):
    q = torch.zeros(1, 2, 10, 4)
    plan = attention.segments_of([10], device=CPU)
    with pytest.raises(ValueError, match=r"window of 8|softcap|s_aux"):
        attention.packed_attention(torch.nn.Identity(), q, q, q, None, scaling=1.0, segments=plan, **{name: value})
