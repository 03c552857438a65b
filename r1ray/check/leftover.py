"""What is left of the datasets: problems of evaluation sets are not trained on, and prompts that are too long are dropped.

A run ends when nothing is left of a set, and with `data.overlong_prompt=error` at the first prompt that is too long. Both are found
here for files on this disk, the lengths with the tokenizer of a local model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.base import Item
from r1ray.data.prompts import fitted
from r1ray.data.sft import sample_of
from r1ray.data.sources import Loaded
from r1ray.mistakes import Finding, Mistake
from r1ray.model.light_tokenizer import light_tokenizer

RENDERED = 128
"""The longest and the shortest problems, by characters, so many each, are rendered; of smaller sets all are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A dataset that was read."""

    loaded: Loaded
    whole: bool
    """Whether to its last row."""


def overlap(view: StageView, sets: Mapping[str, Read]) -> Iterator[Finding]:
    """Training sets of which evaluation sets, or earlier training sets, leave nothing."""
    if not view.kind.trains:
        return
    owners: dict[str, str] = {}
    for key, read in sets.items():
        if key.startswith("eval.sets."):
            owners |= dict.fromkeys((name for item in read.loaded.items for name in item.keys), key)
    left = 0
    for name, source in view.data.train.items():
        key = f"data.train.{name}"
        if same := _same_rows(source, view.eval.sets):
            rule = f"reads the same rows as {same}"
            if view.kind.reinforcement:
                yield _nothing_left(key, source, rule, same)
                left += 1
            else:
                yield f"{key} {rule}, which are not trained on"
            continue
        if key not in sets:
            left += 1
            continue
        read = sets[key]
        found = [next((owners[k] for k in sorted(item.keys) if k in owners), None) for item in read.loaded.items]
        taken, total = Counter(owner for owner in found if owner), len(found)
        left += taken.total() < total or not read.whole
        if taken.total() == total and read.whole and view.kind.reinforcement:
            others = " and ".join(taken)
            yield _nothing_left(key, source, f"has {total} problems, and {others} has all of them", others)
        elif number := sum(count for owner, count in taken.items() if owner.startswith("eval.")):
            first = "" if read.whole else "first "
            yield f"{number} of the {first}{total} problems of {key} are in eval.sets too: they are not trained on"
        if view.kind.reinforcement:  # supervised training takes every example of a problem
            owners = dict.fromkeys((name for item in read.loaded.items for name in item.keys), key) | owners
    if view.data.train and not left:
        keys = ", ".join(f"data.train.{name}" for name in view.data.train)
        rule = f"every question of {keys} is in eval.sets too, and those are not trained on: nothing is left"
        yield Mistake(
            key="data.train", value=list(view.data.train), rule=rule, remedy="other rows for training or for eval.sets"
        )


def _same_rows(source: SourceConfig, others: Mapping[str, SourceConfig]) -> str | None:
    """The evaluation set that surely has every row of a training set, whether or not its rows can be read here."""

    def place(given: SourceConfig) -> tuple[Any, ...]:
        made = None if given.path else given.args  # a generator's rows follow from its arguments
        return given.source, given.path, given.subset, given.split, given.columns, made

    whole = (name for name, other in others.items() if other.limit is None and not other.args.get("keep"))
    return next((f"eval.sets.{name}" for name in whole if place(others[name]) == place(source)), None)


def _nothing_left(key: str, source: SourceConfig, rule: str, others: str) -> Mistake:
    rule = f"{rule}: problems of eval.sets are not trained on, and those of an earlier training set not twice, so nothing is left"
    remedy = f"other rows in one of them (path, split, limit, args.keep), or {others.partition(' and ')[0]}=null"
    return Mistake(key=key, value=source.path or source.source, rule=rule, remedy=remedy)


def lengths(view: StageView, sets: Mapping[str, Read]) -> Iterator[Finding]:
    """Prompts that are too long, where they end the run; a note where some are dropped."""
    tokenizer: Any = light_tokenizer(view.model.path)
    if tokenizer is None or not sets:
        return
    generates = view.kind.generates
    for key, read in sets.items():
        if not generates and key.startswith("eval.sets."):
            continue
        items = sorted(read.loaded.items, key=lambda item: sum(len(message.content) for message in item.messages))
        some = items if len(items) <= 2 * RENDERED else [*items[:RENDERED], *items[-RENDERED:]]
        try:
            if generates:
                yield from _prompts(view, key, some, tokenizer, whole=read.whole and some is items)
            else:
                yield from _examples(view, key, some, tokenizer)
        except Exception:  # a template may need what only the whole tokenizer has
            return


def _prompts(view: StageView, key: str, items: list[Item], tokenizer: Any, *, whole: bool) -> Iterator[Finding]:
    cfg: Any = view
    limit, rule = view.data.max_prompt_length, view.data.overlong_prompt
    fits = [fitted(item, cfg, tokenizer, Counter(), raising=False) for item in items]
    lengths = [each.num_tokens for each in fits]
    overlong = sum(length > limit for length in lengths)
    if overlong and rule == "error":
        name = items[lengths.index(max(lengths))].id
        why = f"ends the run at a prompt of over data.max_prompt_length={limit} tokens; {name} of {key} has {max(lengths)}"
        remedy = f"data.overlong_prompt=drop, or data.max_prompt_length={max(lengths)}"
        yield view.mistake("data.overlong_prompt", why, remedy)
    elif all(each.prompt_ids_T is None for each in fits):
        why = f"is less than the {min(lengths)} tokens of the shortest prompt of {key}: no problem is left"
        yield view.mistake("data.max_prompt_length", why, f"data.max_prompt_length={max(lengths)}")
    elif overlong and whole:
        what = "dropped" if rule == "drop" else "cut"
        yield (
            f"{overlong} of the {len(items)} problems of {key} are {what}: their prompts have more than "
            f"data.max_prompt_length={limit} tokens (the longest has {max(lengths)})"
        )


def _examples(view: StageView, key: str, items: list[Item], tokenizer: Any) -> Iterator[Finding]:
    cfg: Any = view
    lengths = [
        len(sample_of(item, cfg, tokenizer, name=key).token_ids_T) for item in items if item.response is not None
    ]
    if lengths and min(lengths) > view.sft.max_length:
        why = f"is less than the {min(lengths)} tokens of the shortest example of {key}: nothing of it is left"
        yield view.mistake("sft.max_length", why, f"sft.max_length={max(lengths)}")
