"""Packing loses no token, splits no sequence and keeps samples apart."""

import numpy as np
import pytest
from algo_samples import sample

from r1ray.data.pack import pack, segment_starts, unpack

LENGTHS = [3, 40, 2, 17, 17, 5, 29, 8, 11, 2, 33]


def samples(lengths=LENGTHS, **fields):
    return [
        sample(
            n,
            prompt=min(2, n - 1),
            index=i,
            ref_logprobs_T=np.full(n, -i, np.float32),
            advantages_T=np.full(n, i / 10, np.float32),
            temperature=1.0 + i / 10,
            **fields,
        )
        for i, n in enumerate(lengths)
    ]


def packed(made, *, num_ranks=2, max_tokens=48, **kwargs):
    weights = [{"policy": s.mask_T * (i + 1), "kl": s.mask_T * 0.5} for i, s in enumerate(made)]
    return pack(made, weights=weights, num_ranks=num_ranks, max_tokens=max_tokens, **kwargs)


def rows_of(batch):
    return [row for rank in batch.rows for row in rank]


@pytest.mark.parametrize(("num_ranks", "max_tokens"), [(1, 10_000), (1, 48), (2, 48), (3, 60), (5, 20), (20, 48)])
def test_every_token_is_packed_once_with_all_its_arrays(num_ranks, max_tokens):
    made = samples()
    batch = packed(made, num_ranks=num_ranks, max_tokens=max_tokens)
    assert len(batch.rows) == num_ranks
    assert batch.num_tokens == sum(LENGTHS)
    assert batch.num_samples == len(LENGTHS)
    seen = []
    for row in rows_of(batch):
        for start, end in zip(starts := segment_starts(row.segment_L), [*starts[1:], len(row.segment_L)], strict=True):
            part = slice(start, end)
            i = int(row.sample_L[start])
            if i < 0:
                continue
            seen.append(i)
            one = made[i]
            np.testing.assert_array_equal(row.token_ids_L[part], one.token_ids_T)
            np.testing.assert_array_equal(row.mask_L[part], one.mask_T)
            np.testing.assert_array_equal(row.rollout_logprobs_L[part], one.rollout_logprobs_T)
            np.testing.assert_array_equal(row.ref_logprobs_L[part], one.ref_logprobs_T)
            np.testing.assert_array_equal(row.advantages_L[part], one.advantages_T)
            np.testing.assert_array_equal(row.positions_L[part], np.arange(end - start))
            np.testing.assert_array_equal(row.weights_L["policy"][part], one.mask_T * (i + 1))
            assert set(row.temperature_L[part]) == {np.float32(one.temperature)}
            assert row.old_logprobs_L is None
    assert sorted(seen) == list(range(len(made)))


def test_rows_respect_the_limit_and_a_longer_sequence_gets_its_own_row():
    batch = packed(samples([100, 5, 5, 5]), num_ranks=1, max_tokens=20)
    assert sorted(len(row.token_ids_L) for row in rows_of(batch)) == [15, 100]


def test_ranks_get_equal_row_counts_and_similar_loads():
    rng = np.random.default_rng(0)
    made = samples(np.clip(rng.lognormal(4, 0.5, 200).astype(int), 2, 400).tolist())
    batch = packed(made, num_ranks=4, max_tokens=2048)
    loads = [sum(len(row.token_ids_L) for row in rank) for rank in batch.rows]
    assert max(loads) / min(loads) < 1.02
    assert {len(rank) for rank in batch.rows} == {-(-sum(loads) // (4 * 2048))}


def test_fewer_sequences_than_ranks_give_empty_rows_of_weight_0():
    batch = packed(samples([4]), num_ranks=3)
    assert [len(rank) for rank in batch.rows] == [1, 1, 1]
    empty = [row for row in rows_of(batch) if row.sample_L[0] < 0]
    assert len(empty) == 2
    for row in empty:
        assert len(row.token_ids_L) == 2
        assert not row.mask_L.any()
        assert all(not weight.any() for weight in row.weights_L.values())
        assert row.ref_logprobs_L is not None


def test_pair_stays_in_one_row():
    pairs = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, -1]
    batch = packed(samples(), num_ranks=2, max_tokens=48, pairs=pairs)
    for pair in range(5):
        assert sum(bool((row.pair_L == pair).any()) for row in rows_of(batch)) == 1
        (row,) = [row for row in rows_of(batch) if (row.pair_L == pair).any()]
        members = {int(i) for i in row.sample_L[row.pair_L == pair]}
        assert members == {i for i, p in enumerate(pairs) if p == pair}


def test_packing_is_deterministic():
    a, b = (packed(samples()) for _ in range(2))
    for one, two in zip(rows_of(a), rows_of(b), strict=True):
        np.testing.assert_array_equal(one.token_ids_L, two.token_ids_L)


def test_unpack_returns_values_to_their_samples():
    made = samples()
    batch = packed(made, num_ranks=3)
    values = [[row.token_ids_L.astype(np.float32) / 7 for row in rank] for rank in batch.rows]
    for value_T, one in zip(unpack(values, batch), made, strict=True):
        np.testing.assert_array_equal(value_T, one.token_ids_T.astype(np.float32) / 7)


def test_array_that_only_some_samples_have_is_refused():
    made = samples([4, 5])
    made[1] = sample(5, index=1)
    with pytest.raises(AssertionError, match="some samples"):
        packed(made, num_ranks=1)


def test_first_token_cannot_be_trained_on():
    with pytest.raises(AssertionError, match="first token"):
        packed([sample(3, prompt=0, ref_logprobs_T=np.zeros(3, np.float32))])
