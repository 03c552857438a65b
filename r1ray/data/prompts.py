"""Items -> Problems: rendered once, too-long prompts dealt with, evaluation problems kept out of training. All counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1ray.config import Config, SourceConfig
from r1ray.data.mined import check_judged
from r1ray.data.schemas import Item
from r1ray.data.sources import load_source, located
from r1ray.data.templates import render
from r1ray.types import Ints, Message, Problem

NOTICEABLE = 0.1
"""Of a set's rows: when as many are left out, a run says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """The problems of one source.

    `counts`: rows, filtered, unreadable, duplicates, overlong (dropped), cut, held_out (dropped), kept.
    """

    problems: tuple[Problem, ...]
    keys: frozenset[str]
    """Of all its problems: what must not stand in another set (`Item.keys`)."""
    counts: Mapping[str, int]
    why: str
    """Why the first unreadable row is that, and the row; empty where there is none."""


def evaluation_sets(cfg: Config, tokenizer: Any) -> dict[str, ProblemSet]:
    """Every set of `cfg.eval.sets`."""
    return {name: problem_set(name, source, cfg, tokenizer) for name, source in cfg.eval.sets.items()}


def training_sets(cfg: Config, tokenizer: Any, *, evaluation: Iterable[ProblemSet]) -> dict[str, ProblemSet]:
    """Every set of `cfg.data.train` without the problems of `evaluation`, and each problem in the first set that has it only."""
    held_out = frozenset[str]().union(*(given.keys for given in evaluation))
    seen: set[str] = set()
    sets: dict[str, ProblemSet] = {}
    for name, source in cfg.data.train.items():
        sets[name] = problem_set(name, source, cfg, tokenizer, held_out=held_out, seen=frozenset(seen))
        seen |= sets[name].keys
    return sets


def held_out_keys(cfg: Config) -> frozenset[str]:
    """The keys of every problem of `cfg.eval.sets`, without rendering them: for a stage that trains but does not evaluate."""
    return frozenset(
        key for name, source in cfg.eval.sets.items() for item in load_source(name, source).items for key in item.keys
    )


def problem_set(
    name: str,
    source: SourceConfig,
    cfg: Config,
    tokenizer: Any,
    *,
    held_out: frozenset[str] = frozenset(),
    seen: frozenset[str] = frozenset(),
) -> ProblemSet:
    """Load one source and render its problems; those with a key in `held_out` or `seen` are left out.

    Raises:
        ValueError: the source cannot be loaded, a prompt is too long and overlong_prompt is `error`, or no problem is left.
    """
    loaded = load_source(name, located(source, cfg))
    counts = Counter({**loaded.counts, "overlong": 0, "cut": 0, "held_out": 0})
    problems: list[Problem] = []
    keys: set[str] = set()
    for item in loaded.items:
        assert item.id is not None
        if held_out.intersection(item.keys):
            counts["held_out"] += 1
            continue
        if seen.intersection(item.keys):
            counts["duplicates"] += 1
            continue
        messages, prompt_ids_T, prefill = _fitted(item, cfg, tokenizer, counts)
        if prompt_ids_T is None:
            continue
        if item.accuracy is not None:
            check_judged(item.accuracy, name=name, reward=cfg.reward)
        keys |= item.keys
        problems.append(
            Problem(
                id=item.id,
                source=name,
                messages=messages,
                prompt_ids_T=prompt_ids_T,
                verifier=item.verifier,
                payload=item.payload,
                prefill=prefill,
                accuracy=item.accuracy or source.accuracy,
                extract=item.extract or source.extract,
                language=item.language,
                meta=item.meta,
            )
        )
    if not problems:
        raise ValueError(
            f"source {name!r}: no problem is left of {len(loaded.items)} ({dict(counts)}). Prompts are limited to "
            f"data.max_prompt_length={cfg.data.max_prompt_length} tokens; problems of eval.sets and of earlier sets of data.train "
            "are left out"
        )
    counts["kept"] = len(problems)
    return ProblemSet(problems=tuple(problems), keys=frozenset(keys), counts=counts, why=loaded.why)


def left_out(made: ProblemSet) -> str | None:
    """In words, when a tenth or more of a set's rows are unreadable, overlong or held out; else None. Repetitions do not count.

    Example: "60 of 61 rows are left out: 60 cannot be used (there are no numbers; the row: ...)".
    """
    counts = made.counts
    rows, parts = counts["rows"] - counts["filtered"], [counts[part] for part in ("unreadable", "overlong", "held_out")]
    if sum(parts) < max(1, NOTICEABLE * rows):
        return None
    words = (
        f"cannot be used ({made.why})",
        "have a prompt of more than data.max_prompt_length tokens",
        "are problems of eval.sets too",
    )
    told = "; ".join(f"{count} {what}" for count, what in zip(parts, words, strict=True) if count)
    return f"{sum(parts)} of {rows} rows are left out: {told}"


def _fitted(
    item: Item, cfg: Config, tokenizer: Any, counts: Counter[str]
) -> tuple[tuple[Message, ...], Ints | None, str]:
    """(messages, prompt ids or None when it is dropped, prefill) by the rule for too-long prompts."""
    limit, rule = cfg.data.max_prompt_length, cfg.data.overlong_prompt
    prompt_ids_T, prefill = render(item.messages, cfg.model.template, tokenizer)
    if len(prompt_ids_T) <= limit:
        return item.messages, prompt_ids_T, prefill
    if rule == "error":
        raise ValueError(
            f"the prompt of {item.id} has {len(prompt_ids_T)} tokens, data.max_prompt_length is {limit}: raise it, or set "
            "data.overlong_prompt to drop or cut"
        )
    messages = item.messages
    if rule == "cut":
        while len(prompt_ids_T) > limit and (shorter := _cut(messages, len(prompt_ids_T) - limit, tokenizer)):
            messages = shorter
            prompt_ids_T, prefill = render(messages, cfg.model.template, tokenizer)
    fits = len(prompt_ids_T) <= limit
    counts["cut" if fits else "overlong"] += 1
    return messages, prompt_ids_T if fits else None, prefill


def _cut(messages: Sequence[Message], num_tokens: int, tokenizer: Any) -> tuple[Message, ...] | None:
    """The last message without its first `num_tokens` tokens; None when nothing would be left.

    The start of the question goes and its end stays, where most datasets ask what is to be done; the template is never cut.
    """
    *before, last = messages
    left = tokenizer.decode(tokenizer.encode(last.content, add_special_tokens=False)[num_tokens:]).lstrip("\ufffd")
    return (*before, replace(last, content=left)) if left.strip() and left != last.content else None
