"""Adds to the samples the log-probs, values and process rewards that the algorithm needs. The groups compute in parallel."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from r1ray.algo.base import Need
from r1ray.data.pack import pack, unpack
from r1ray.types import Batch, Floats, Sample


class OutputGroup(Protocol):
    """`TrainerGroup` or `ReferenceGroup`: log-probs of a policy, values of a critic."""

    def __len__(self) -> int:
        """Number of ranks that get rows of their own: the `num_ranks` of `pack`."""
        ...

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens in a row."""
        ...

    def compute_logprobs_or_values(self, batch: Batch) -> list[list[Floats]]: ...


def annotate(samples: Sequence[Sample], needs: frozenset[Need], *, groups: Mapping[Need, OutputGroup]) -> list[Sample]:
    """The samples with exactly the arrays in `needs` filled in.

    A process reward is PRIME's implicit one (arXiv 2502.01456, eq. 3) without its coefficient: the log-ratio of the process reward
    model to the reference.

    Args:
        groups: {need: the group that computes it}; for process_rewards, the process reward model.
    """
    assert needs <= groups.keys(), f"no group computes {sorted(needs - groups.keys())}"
    with ThreadPoolExecutor(max_workers=max(1, len(needs))) as threads:
        futures = {need: threads.submit(sample_outputs, samples, groups[need]) for need in sorted(needs)}
    columns: dict[str, Any] = {need: future.result() for need, future in futures.items()}
    if "process_rewards" in columns:
        pairs = zip(columns["process_rewards"], columns["ref_logprobs"], strict=True)
        columns["process_rewards"] = [prm_T - reference_T for prm_T, reference_T in pairs]
    return [
        replace(sample, **{f"{need}_T": column[i] for need, column in columns.items()})
        for i, sample in enumerate(samples)
    ]


def sample_outputs(samples: Sequence[Sample], group: OutputGroup) -> list[Floats]:
    """output_T of each sample. A sample without a token to train on gets zeros and is not computed."""
    out = [np.zeros_like(sample.mask_T) for sample in samples]
    wanted = [i for i, sample in enumerate(samples) if sample.mask_T.any()]
    if not wanted:
        return out
    chosen = [samples[i] for i in wanted]
    batch = pack(chosen, weights=[{}] * len(chosen), num_ranks=len(group), max_tokens=group.max_tokens)
    for i, output_T in zip(wanted, unpack(group.compute_logprobs_or_values(batch), batch), strict=True):
        out[i] = output_T
    return out
