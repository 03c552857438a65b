import numpy as np
import pytest

from r1ray.sync.canary import LENGTH, canary_gap, canary_sequences


def test_canaries_depend_only_on_the_seed_and_fit() -> None:
    one, same, other = (canary_sequences(vocab_size=50, seed=seed, max_length=100) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    assert {len(sequence) for sequence in one} == {LENGTH}
    assert all(sequence.max() < 50 for sequence in one)
    assert {len(sequence) for sequence in canary_sequences(vocab_size=50, seed=1, max_length=5)} == {5}


def test_gaps_exclude_the_first_token_and_include_nan() -> None:
    ours = [np.array([0, -1, -2], np.float32), np.array([0, -3], np.float32)]
    theirs = [np.array([9, -1, -2.5], np.float32), np.array([9, -3.1], np.float32)]
    assert canary_gap(ours, theirs, statistic="largest") == pytest.approx(0.5)
    assert canary_gap(ours, theirs, statistic="mean") == pytest.approx(0.2)
    theirs[1][1] = np.nan
    assert canary_gap(ours, theirs, statistic="largest") == canary_gap(ours, theirs, statistic="mean") == np.inf
