"""Training examples for supervised fine-tuning: prompt, completion and EOS, with the loss on the completion and its EOS alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r1ray.config import Config
from r1ray.data.prompts import held_out_keys
from r1ray.data.schemas import Item
from r1ray.data.sources import load_source
from r1ray.data.templates import render
from r1ray.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSet:
    """All examples of a stage. `counts`: rows, unreadable, duplicates, overlong (dropped), held_out (dropped), kept."""

    samples: tuple[Sample, ...]
    counts: Counter[str]


def sft_set(cfg: Config, tokenizer: Any) -> SftSet:
    """Every source of cfg.data.train, one after another, without the examples whose question is in cfg.eval.sets.

    Examples may repeat a question: several solutions of one problem are all useful.

    Raises:
        ValueError: a source cannot be loaded, has rows without a response, or nothing fits sft.max_length.
    """
    held_out = held_out_keys(cfg)
    counts: Counter[str] = Counter(overlong=0, held_out=0)
    samples: list[Sample] = []
    for name, source in cfg.data.train.items():
        loaded = load_source(name, source)
        counts.update(loaded.counts)
        for item in loaded.items:
            if held_out.intersection(item.keys):
                counts["held_out"] += 1
                continue
            sample = sample_of(item, cfg, tokenizer, name=name)
            if len(sample.token_ids_T) <= cfg.sft.max_length:
                samples.append(sample)
            else:
                counts["overlong"] += 1
    if not samples:
        raise ValueError(
            f"no training example is left ({dict(counts)}); sft.max_length={cfg.sft.max_length} may be too short for all of them, "
            "and questions of eval.sets are dropped"
        )
    counts["kept"] = len(samples)
    return SftSet(samples=tuple(samples), counts=counts)


def batch_of(samples: Sequence[Sample], *, batch_size: int, seed: int, step: int) -> list[Sample]:
    """The examples of update `step` (from 0). Each epoch is shuffled again from the seed; its incomplete last batch is dropped."""
    per_epoch = max(1, len(samples) // batch_size)
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(samples))
    return [samples[i] for i in order[index * batch_size : (index + 1) * batch_size]]


def num_updates(num_samples: int, *, batch_size: int, epochs: float) -> int:
    return max(1, round(max(1, num_samples // batch_size) * epochs))


def sample_of(item: Item, cfg: Config, tokenizer: Any, *, name: str) -> Sample:
    if item.response is None:
        raise ValueError(f"source {name!r}: {item.id} has no response to imitate; an sft stage needs one in every row")
    prompt_ids_T, prefill = render(item.messages, cfg.model.template, tokenizer)
    completion = item.response.removeprefix(prefill)
    response_ids = [*tokenizer.encode(completion, add_special_tokens=False), tokenizer.eos_token_id]
    mask_T = np.zeros(len(prompt_ids_T) + len(response_ids), np.float32)
    mask_T[len(prompt_ids_T) :] = 1
    return Sample(
        token_ids_T=np.concatenate([prompt_ids_T, np.array(response_ids, np.int32)]),
        mask_T=mask_T,
        rollout_logprobs_T=np.zeros_like(mask_T),
        temperature=1.0,
        group_id=item.id or name,
        index=0,
    )
