"""Seeds are stable over processes and versions, and differ whenever an argument differs."""

from itertools import product

from r1ray.seeds import seed_of


def test_pinned_so_that_a_resumed_run_repeats_its_completions():
    assert seed_of(0, "countdown/2-3-5=11", 0, 0, 0) == 8381317320503851706
    assert seed_of(1, "countdown/2-3-5=11", 2, 3, -1) == 3393867777179962560


def test_every_argument_changes_the_seed():
    keys = list(product((0, 1), ("a", "b", "a0"), (0, 1, 10), (0, 1), range(-1, 16)))
    seeds = {seed_of(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_arguments_are_separated():
    assert seed_of(1, "1", 11, 1, 1) != seed_of(11, "1", 1, 1, 1)
