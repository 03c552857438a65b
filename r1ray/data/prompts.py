"""Items -> Problems: renders prompts, drops or cuts those that are too long, removes evaluation problems from training, and counts
the rows of each kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from r1ray.config import Config, SourceConfig
from r1ray.data.mined import check_accuracy_component
from r1ray.data.schemas import Item
from r1ray.data.sources import in_run_dir, load_source
from r1ray.data.templates import control_tokens_in, render
from r1ray.types import Ints, Message, Problem

NOTICEABLE = 0.1
"""Share of a training set's rows: when this many are dropped, the run reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """The problems of one source.

    `counts`: rows, filtered, unreadable, duplicates, overlong (dropped), cut, held_out (dropped), control_tokens (kept), kept.
    """

    problems: tuple[Problem, ...]
    keys: frozenset[str]
    """Keys of all its problems (`Item.keys`); no other set may contain a problem with one of them."""
    counts: Mapping[str, int]
    reason: str
    """Why the first unreadable row cannot be used, and that row; empty where there is none."""
    control_token: str = ""
    """The first control token that a message contains as text, and the problem's id; empty where there is none."""


def evaluation_sets(cfg: Config, tokenizer: Any) -> dict[str, ProblemSet]:
    """Every set of `cfg.eval.sets`."""
    return {name: problem_set(name, source, cfg, tokenizer) for name, source in cfg.eval.sets.items()}


def training_sets(cfg: Config, tokenizer: Any, *, evaluation: Iterable[ProblemSet]) -> dict[str, ProblemSet]:
    """Every set of `cfg.data.train` without the problems of `evaluation`; a problem of several sets stays only in the first."""
    held_out = frozenset[str]().union(*(given.keys for given in evaluation))
    seen: set[str] = set()
    sets: dict[str, ProblemSet] = {}
    for name, source in cfg.data.train.items():
        sets[name] = problem_set(name, source, cfg, tokenizer, held_out=held_out, seen=frozenset(seen))
        seen |= sets[name].keys
    return sets


def held_out_keys(cfg: Config) -> frozenset[str]:
    """The keys of every problem of `cfg.eval.sets`, without rendering prompts: for stages that train but do not evaluate."""
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
    """Load one source and render its problems; those with a key in `held_out` or `seen` are dropped.

    Raises:
        ValueError: the source cannot be loaded, a prompt is too long while overlong_prompt is `error`, or no problem is left.
    """
    loaded = load_source(name, in_run_dir(source, cfg))
    counts = Counter({**loaded.counts, "overlong": 0, "cut": 0, "held_out": 0, "control_tokens": 0})
    control_token = ""
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
        messages, prompt_ids_T, prefill, _ = fitted(item, cfg, tokenizer, counts)
        if prompt_ids_T is None:
            continue
        if item.accuracy is not None:
            check_accuracy_component(item.accuracy, name=name, reward=cfg.reward)
        if tokens := control_tokens_in(messages, tokenizer):
            counts["control_tokens"] += 1
            control_token = control_token or f"{tokens[0]!r} in {item.id}"
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
                accuracy=item.accuracy or source.accuracy_component,
                extract=item.extract or source.extract,
                language=item.language,
                meta=item.meta,
            )
        )
    if not problems:
        raise ValueError(
            f"source {name!r}: no problem is left of {len(loaded.items)} ({dict(counts)}). Prompts are limited to "
            f"data.max_prompt_length={cfg.data.max_prompt_length} tokens; problems of eval.sets and of earlier sets of data.train "
            "are dropped"
        )
    counts["kept"] = len(problems)
    return ProblemSet(
        problems=tuple(problems), keys=frozenset(keys), counts=counts, reason=loaded.reason, control_token=control_token
    )


def dropped_rows(made: ProblemSet, *, noticeable: float = NOTICEABLE) -> str | None:
    """A sentence when a row is unreadable, or a share `noticeable` of a set's rows is dropped for any reason; else None. Duplicates
    do not count.

    Example: "60 of 61 rows are dropped: 60 cannot be used (there are no numbers; the row: ...)".
    """
    counts = made.counts
    rows, dropped = counts["rows"] - counts["filtered"], [counts[why] for why in ("unreadable", "overlong", "held_out")]
    if not counts["unreadable"] and sum(dropped) < max(1, noticeable * rows):
        return None
    reasons = (
        f"cannot be used ({made.reason})",
        "have a prompt of more than data.max_prompt_length tokens",
        "are problems of eval.sets too",
    )
    listed = "; ".join(f"{count} {reason}" for count, reason in zip(dropped, reasons, strict=True) if count)
    return f"{sum(dropped)} of {rows} rows are dropped: {listed}"


def with_control_tokens(made: ProblemSet, template: str) -> str | None:
    """A sentence when questions contain control tokens of the tokenizer, as text; else None."""
    if not made.counts["control_tokens"]:
        return None
    how = "are encoded as plain text" if template != "none" else "count as such, because model.template=none"
    return f"{made.counts['control_tokens']} prompts contain control tokens ({made.control_token}): they {how}"


class Fitted(NamedTuple):
    """An item with data.overlong_prompt applied."""

    messages: tuple[Message, ...]
    prompt_ids_T: Ints | None
    """None: it is dropped."""
    prefill: str
    num_tokens: int
    """Of the prompt before anything was cut."""


def fitted(item: Item, cfg: Config, tokenizer: Any, counts: Counter[str], *, raising: bool = True) -> Fitted:
    """Render a prompt, and drop or cut what is too long, counted in `counts`.

    Args:
        raising: with overlong_prompt=error, raise ValueError for it; otherwise it is dropped.
    """
    limit, rule = cfg.data.max_prompt_length, cfg.data.overlong_prompt
    prompt_ids_T, prefill = render(item.messages, cfg.model.template, tokenizer)
    num_tokens = len(prompt_ids_T)
    if num_tokens <= limit:
        return Fitted(item.messages, prompt_ids_T, prefill, num_tokens)
    if rule == "error" and raising:
        raise ValueError(
            f"the prompt of {item.id} has {num_tokens} tokens, data.max_prompt_length is {limit}: raise it, or set "
            "data.overlong_prompt to drop or cut"
        )
    messages = item.messages
    if rule == "cut":
        plain = cfg.model.template != "none"  # as `render` encodes control tokens of the question
        while len(prompt_ids_T) > limit and (
            shorter := _cut(messages, len(prompt_ids_T) - limit, tokenizer, plain=plain)
        ):
            messages = shorter
            prompt_ids_T, prefill = render(messages, cfg.model.template, tokenizer)
    fits = len(prompt_ids_T) <= limit
    counts["cut" if fits else "overlong"] += 1
    return Fitted(messages, prompt_ids_T if fits else None, prefill, num_tokens)


def _cut(messages: Sequence[Message], num_tokens: int, tokenizer: Any, *, plain: bool) -> tuple[Message, ...] | None:
    """The messages, the last one without its first `num_tokens` tokens; None when nothing of it would be left.

    The start of the question is cut and its end stays, because most datasets put the instruction there; the template is never cut.
    """
    *before, last = messages
    ids = tokenizer.encode(last.content, add_special_tokens=False, split_special_tokens=plain)
    left = tokenizer.decode(ids[num_tokens:]).lstrip("\ufffd")
    return (*before, replace(last, content=left)) if left.strip() and left != last.content else None
