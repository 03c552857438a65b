"""Samples -> packed rows for D ranks, and per-token results back to samples.

A row holds whole sequences end to end, without padding. Positions restart with each sequence, and attention never crosses from one
into the next. Gradients do not depend on packing: the loss weights are computed before.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1ray.types import Batch, Floats, Ints, Row, Sample

_OPTIONAL = ("old_logprobs", "ref_logprobs", "old_values", "advantages", "returns", "outcomes")
"""Per-token arrays that a stage may not need; a batch has each of them for all samples or for none."""


def pack(
    samples: Sequence[Sample],
    *,
    weights: Sequence[Mapping[str, Floats]],
    num_ranks: int,
    max_tokens: int,
    pairs: Sequence[int] | None = None,
) -> Batch:
    """The rows of one optimizer step: as few per rank as `max_tokens` allows, filled evenly.

    `weights[i]` is {loss term: weight_T} of sample i (empty where only log-probs are needed). `pairs[i]` is the pair to which
    sample i belongs, -1 for none; a pair stays in one row. A sequence (or pair) longer than max_tokens gets its own row. Ranks
    without sequences get empty rows. The same input gives the same rows.
    """
    if not samples:
        raise ValueError("there is nothing to pack")
    pairs = pairs if pairs is not None else [-1] * len(samples)
    assert len(weights) == len(samples) == len(pairs)
    units = _units(samples, pairs)
    lengths = [sum(len(samples[i].token_ids_T) for i in unit) for unit in units]
    bins = _bins(lengths, num_ranks=num_ranks, max_tokens=max_tokens)
    terms = tuple(weights[0])
    present = tuple(name for name in _OPTIONAL if getattr(samples[0], f"{name}_T") is not None)
    rows: list[list[Row]] = [[] for _ in range(num_ranks)]
    for k, members in enumerate(bins):
        members_of_row = [i for unit in members for i in units[unit]]
        # Back and forth over the ranks, longest rows first: ranks get equal sums, and their k-th rows have similar lengths.
        turn, place = divmod(k, num_ranks)
        rank = place if turn % 2 == 0 else num_ranks - 1 - place
        rows[rank].append(
            _row(samples, members_of_row, weights, pairs, terms, present) if members_of_row else _empty(terms, present)
        )
    num_tokens = sum(len(sample.token_ids_T) for sample in samples)
    return Batch(rows=tuple(tuple(rank) for rank in rows), num_samples=len(samples), num_tokens=num_tokens)


def unpack(values: Sequence[Sequence[Floats]], batch: Batch) -> list[Floats]:
    """value_T of every packed sample, in order; `values[d][k]` has one value per token of `batch.rows[d][k]`."""
    out: list[Floats | None] = [None] * batch.num_samples
    for rank_values, rank_rows in zip(values, batch.rows, strict=True):
        for value_L, row in zip(rank_values, rank_rows, strict=True):
            assert len(value_L) == len(row.token_ids_L)
            starts = segment_starts(row.segment_L)
            for start, value_T in zip(starts, np.split(value_L, starts[1:]), strict=True):
                if row.sample_L[start] >= 0:
                    out[row.sample_L[start]] = np.asarray(value_T, np.float32)
    assert all(value_T is not None for value_T in out), "a sample is missing from the rows"
    return [value_T for value_T in out if value_T is not None]


def segment_starts(segment_L: Ints) -> Ints:
    """Index of the first token of each sequence of a row: [0, 0, 0, 1, 1] -> [0, 3]."""
    return np.flatnonzero(np.diff(segment_L, prepend=-1)).astype(np.int32)


def _units(samples: Sequence[Sample], pairs: Sequence[int]) -> list[list[int]]:
    """Indices of samples that must stay together: pairs, and every other sample alone."""
    units: list[list[int]] = []
    of_pair: dict[int, list[int]] = {}
    for i, pair in enumerate(pairs):
        assert samples[i].mask_T[0] == 0, "a sequence's first token has no log-prob and cannot be trained on"
        if pair in of_pair:
            of_pair[pair].append(i)
        else:
            units.append([i])
            if pair >= 0:
                of_pair[pair] = units[-1]
    return units


def _bins(lengths: Sequence[int], *, num_ranks: int, max_tokens: int) -> list[list[int]]:
    """Distributes units over a multiple of num_ranks bins; returns the longest bins first.

    Worst fit, longest unit first: the least filled bin takes the next unit, so bins are filled evenly. When a unit does not fit,
    start again with one more bin per rank.
    """
    order = sorted(range(len(lengths)), key=lambda unit: (-lengths[unit], unit))
    per_rank = max(1, -(-sum(min(length, max_tokens) for length in lengths) // (max_tokens * num_ranks)))
    while True:
        bins: list[list[int]] = [[] for _ in range(per_rank * num_ranks)]
        heap = [(0, b) for b in range(len(bins))]
        for unit in order:
            filled, b = heap[0]
            if filled and filled + lengths[unit] > max_tokens:
                break
            heapq.heapreplace(heap, (filled + lengths[unit], b))
            bins[b].append(unit)
        else:
            return [bins[b] for _, b in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]
        per_rank += 1


def _row(
    samples: Sequence[Sample],
    members: Sequence[int],
    weights: Sequence[Mapping[str, Floats]],
    pairs: Sequence[int],
    terms: tuple[str, ...],
    present: tuple[str, ...],
) -> Row:
    chosen = [samples[i] for i in members]
    lengths = np.array([len(sample.token_ids_T) for sample in chosen])

    def joined(name: str) -> Any:
        arrays = [getattr(sample, f"{name}_T") for sample in chosen]
        assert all(array is not None for array in arrays), f"only some samples of the batch have {name}"
        return np.concatenate(arrays)

    def spread(values: Sequence[float], dtype: Any) -> Any:
        return np.repeat(np.asarray(values, dtype), lengths)

    return Row(
        token_ids_L=joined("token_ids"),
        positions_L=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        segment_L=spread(range(len(chosen)), np.int32),
        pair_L=spread([pairs[i] for i in members], np.int32),
        sample_L=spread(members, np.int32),
        mask_L=joined("mask"),
        temperature_L=spread([sample.temperature for sample in chosen], np.float32),
        rollout_logprobs_L=joined("rollout_logprobs"),
        weights_L={term: np.concatenate([weights[i][term] for i in members]) for term in terms},
        **{f"{name}_L": joined(name) for name in present},
    )


def _empty(terms: tuple[str, ...], present: tuple[str, ...]) -> Row:
    """Two tokens with weight 0: a rank without sequences still takes part in every collective of forward and backward."""
    ints, zeros = np.zeros(2, np.int32), np.zeros(2, np.float32)
    return Row(
        token_ids_L=ints,
        positions_L=np.array([0, 1], np.int32),
        segment_L=ints,
        pair_L=ints - 1,
        sample_L=ints - 1,
        mask_L=zeros,
        temperature_L=zeros + 1,
        rollout_logprobs_L=zeros,
        weights_L=dict.fromkeys(terms, zeros),
        **{f"{name}_L": zeros for name in present},
    )
