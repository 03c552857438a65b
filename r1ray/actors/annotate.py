"""Samples get the log-probs that the algorithm needs: pack -> log-probs -> unpack. Trainer and reference work at the same time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from r1ray.algo.base import Need
from r1ray.data.pack import pack, unpack
from r1ray.types import Batch, Floats, Sample


class LogprobGroup(Protocol):
    """`TrainerGroup` or `ReferenceGroup`."""

    def __len__(self) -> int: ...

    def logprobs(self, batch: Batch) -> list[list[Floats]]: ...


def annotate(
    samples: Sequence[Sample],
    needs: frozenset[Need],
    *,
    trainers: LogprobGroup,
    reference: LogprobGroup | None,
    max_tokens: int,
) -> list[Sample]:
    """The samples with exactly what `needs` names filled in."""
    sources: dict[str, LogprobGroup] = {}
    if "old_logprobs" in needs:
        sources["old_logprobs_T"] = trainers
    if "ref_logprobs" in needs:
        assert reference is not None, "reference log-probs are needed and there is no reference group"
        sources["ref_logprobs_T"] = reference
    assert len(sources) == len(needs), f"nobody computes {sorted(needs)}"
    with ThreadPoolExecutor(max_workers=2) as threads:
        computed = {
            name: threads.submit(sample_logprobs, samples, group, max_tokens=max_tokens)
            for name, group in sources.items()
        }
    columns: dict[str, Any] = {name: future.result() for name, future in computed.items()}
    return [
        replace(sample, **{name: column[i] for name, column in columns.items()}) for i, sample in enumerate(samples)
    ]


def sample_logprobs(samples: Sequence[Sample], group: LogprobGroup, *, max_tokens: int) -> list[Floats]:
    """logprobs_T of each sample; all 0 for samples without a token to train on, which nobody has to run."""
    out = [np.zeros_like(sample.mask_T) for sample in samples]
    wanted = [i for i, sample in enumerate(samples) if sample.mask_T.any()]
    if not wanted:
        return out
    chosen = [samples[i] for i in wanted]
    batch = pack(chosen, weights=[{}] * len(chosen), num_ranks=len(group), max_tokens=max_tokens)
    for i, logprobs_T in zip(wanted, unpack(group.logprobs(batch), batch), strict=True):
        out[i] = logprobs_T
    return out
