"""Datasets by name, and how one is loaded: rows -> our columns -> Items, duplicates and unreadable rows counted.

To add a schema: a reader in `schemas` (or a Source in your own package, named `package.module:SOURCE`), and a line in SOURCES.
"""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from r1ray.config import Config, SourceConfig
from r1ray.data import mined, programming, rows, schemas, swe
from r1ray.data.columns import as_columns, is_kept, read_kept, shown, step_into
from r1ray.data.files import is_local, read_rows
from r1ray.data.generators import countdown, knights, oneliners, traces
from r1ray.data.schemas import Item, Row, Unreadable
from r1ray.plugin import resolve
from r1ray.reward.code.cases import OF_PROGRAMS
from r1ray.sandbox.base import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dataset's schema."""

    read: Callable[..., Item]
    """One row under our names -> Item; its keyword arguments are taken from `SourceConfig.args`."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """{our name: the dataset's column}; a dot steps into a nested one. `SourceConfig.columns` overrides."""
    optional: frozenset[str] = frozenset()
    """Our names that may be missing."""
    keep_others: bool = False
    """Hand the other columns on, under their own names."""
    others: tuple[str, ...] = ()
    """Which of these something may read."""
    generate: Callable[..., Iterator[dict[str, Any]]] | None = None
    """Makes the rows when no path is given; called with `SourceConfig.args`."""
    gather: Callable[..., Iterator[dict[str, Any]]] | None = None
    """Makes the rows of what a run has left at the path; called with that (`located`) and `SourceConfig.args`."""
    programs: Callable[[Mapping[str, Any]], Language | None] = lambda args: (
        args.get("programs", "python") if args.get("verifier") in OF_PROGRAMS else None
    )
    """The language of the programs in completions, with these `SourceConfig.args`; None where there are none to be run."""


def _countdown_rows(
    *, split: countdown.Split, num_problems: int, seed: int = 0, num_numbers: int | Sequence[int] = 3
) -> Iterator[dict[str, Any]]:
    return countdown.generate(split=split, num_problems=num_problems, seed=seed, num_numbers=num_numbers)


def _trace_rows(*, num_problems: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    return traces.generate(num_problems=num_problems, seed=seed)


def _programs(read: Callable[..., Item], **columns: str) -> Source:
    return Source(read=read, columns=columns, optional=frozenset({"starter"}), programs=lambda _: "python")


OF_ANY_SOURCE = ("instruction", "keep")
"""Arguments that every source takes."""

_VERL = {"prompt": "prompt", "answer": "reward_model.ground_truth"}
_PROBLEM = {"problem": "problem", "answer": "answer"}

SOURCES: Mapping[str, Source] = {
    "apps": _programs(programming.apps, question="question", tests="input_output", starter="starter_code"),
    "taco": _programs(programming.apps, question="question", tests="input_output", starter="starter_code"),
    "livecodebench": _programs(
        programming.livecodebench,
        question="question_content",
        id="question_id",
        starter="starter_code",
        public="public_test_cases",
        private="private_test_cases",
        metadata="metadata",
    ),
    "prime_code": _programs(programming.prime_code, prompt="prompt", info="verification_info"),
    "deepcoder": _programs(programming.deepcoder, question="problem", tests="tests", starter="starter_code"),
    "skywork_code": _programs(programming.verl_code, prompt="prompt", answer="reward_model.ground_truth"),
    "eurus": _programs(programming.eurus, prompt="prompt", answer="reward_model.ground_truth", ability="ability"),
    "codeforces": Source(
        read=programming.codeforces,
        columns={
            "id": "id",
            "prompt": "prompt",
            "language": "language",
            "tests": "official_tests",
            "checker": "generated_checker",
            "cpu": "time_limit",
            "memory_mb": "memory_limit",
            "input_mode": "input_mode",
        },
        optional=frozenset({"checker", "cpu", "memory_mb", "input_mode"}),
        programs=lambda args: args.get("programs", "python"),
    ),
    "swe": Source(
        read=swe.swe, columns={name: name for name in ("id", "issue", "files", "patch")}, optional=frozenset({"id"})
    ),
    "swe_bench_oracle": Source(
        read=swe.swe_bench_oracle,
        columns={"id": "instance_id", "issue": "problem_statement", "text": "text", "patch": "patch"},
    ),
    "countdown": Source(
        read=schemas.countdown, columns={"numbers": "numbers", "target": "target"}, generate=_countdown_rows
    ),
    "countdown_hub": Source(read=schemas.countdown, columns={"numbers": "nums", "target": "target"}),
    "knights_and_knaves": Source(
        read=schemas.knights_and_knaves,
        columns={name: name for name in ("id", "question", "answer", "names", "language")},
        generate=knights.generate,
    ),
    "knights_and_knaves_hub": Source(
        read=schemas.knights_and_knaves,
        columns={"question": "quiz", "answer": "solution_text_format", "names": "names"},
    ),
    "gsm8k": Source(read=schemas.gsm8k, columns={"question": "question", "answer": "answer"}),
    "math": Source(
        read=schemas.math_solution,
        columns={"problem": "problem", "solution": "solution", "level": "level"},
        optional=frozenset({"level"}),
    ),
    "math500": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "aime": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "deepscaler": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "open_r1_math": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "big_math": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "dapo": Source(read=schemas.verl, columns=_VERL),
    "skywork": Source(read=schemas.verl, columns=_VERL),
    "verl": Source(read=schemas.verl, columns=_VERL),
    "one_liners": Source(
        read=schemas.one_liner,
        columns={name: name for name in ("id", "question", "verifier", "payload", "language")},
        generate=oneliners.generate,
        programs=lambda args: "python" if oneliners.VERIFIERS.get(str(args.get("kind"))) == "code" else None,
    ),
    "multiple_choice": Source(
        read=schemas.multiple_choice,
        columns={name: name for name in ("id", "question", "options", "answer")},
        optional=frozenset({"id"}),
    ),
    "super_gpqa": Source(
        read=schemas.multiple_choice,
        columns={"id": "uuid", "question": "question", "options": "options", "answer": "answer_letter"},
    ),
    "orz": Source(read=schemas.orz, columns={"question": "0.value", "answer": "1.ground_truth.value"}),
    "rows": Source(
        read=rows.rows,
        columns={"prompt": "prompt", "answer": "answer", "language": "language"},
        optional=frozenset({"answer", "language"}),
        keep_others=True,
        others=rows.OTHERS,
    ),
    "mined": Source(
        read=mined.mined, columns={name: name for name in ("problem", "source", "asked")}, gather=mined.mined_rows
    ),
    "traces": Source(
        read=schemas.traces, columns={"question": "question", "response": "response"}, generate=_trace_rows
    ),
    "sft": Source(
        read=schemas.sft,
        columns={"messages": "messages", "response": "response"},
        optional=frozenset({"response"}),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """`counts`: rows read, filtered (by args.keep), unreadable, duplicates; what is left are the items."""

    items: tuple[Item, ...]
    counts: Mapping[str, int]
    why: str
    """Why the first unreadable row is that, and the row; empty where there is none."""


def load_source(name: str, cfg: SourceConfig, *, head: int | None = None) -> Loaded:
    """Every usable item of one source, each with an id; `name` is the source's key in the mixture, for ids and messages.

    With `head` only so many rows are read, the first. Two rows that
    are equal in prompt and answer are one problem (DAPO-Math-17k repeats its prompts a hundred times); the first is kept. Across
    sets the `keys` of an item say so.
    `args.instruction`, for any source, is put below the question ("Put the final answer in \\boxed{}."); `args.keep`, for any
    source, says which rows are used by their columns (`r1ray.data.columns`).

    Raises:
        ValueError: unknown source, arguments or columns; no such path; a column that is missing (shows a row); no usable row.
    """
    source: Source = resolve(cfg.source, SOURCES, what="source")
    make, arguments, columns = _makes(source, cfg), _arguments(name, source, cfg), _columns(name, source, cfg)
    instruction = cfg.args.get("instruction", "")
    given = _rows(name, cfg, make, arguments, takes_path=source.gather is not None)
    arguments = {} if make else arguments
    counts: Counter[str] = Counter(rows=0, filtered=0, unreadable=0, duplicates=0)
    items: list[Item] = []
    seen: set[str] = set()
    why = ""
    for theirs in islice(_kept_rows(given, cfg, counts, name=name), head):
        try:
            item = source.read(_ours(theirs, columns, source, name=name), **arguments)
        except Unreadable as error:
            counts["unreadable"] += 1
            why = why or f"{error}; the row: {shown(theirs)}"
            continue
        keys = _keys(item)  # before the instruction, which may differ between training and evaluation
        item = _instructed(item, instruction) if instruction else item
        identity = item.id or f"{name}/{_digest(item)}"
        if identity in seen and item.response is None:  # examples to learn from may repeat, problems may not
            counts["duplicates"] += 1
            continue
        seen.add(identity)
        items.append(replace(item, id=identity, keys=keys))
        if len(items) == cfg.limit:
            break
    if not items:
        reason = f"not one of {counts['rows']} rows can be used: {why}" if counts["rows"] else "it has no rows"
        if counts["rows"] and not why:
            reason = f"not one of {counts['rows']} rows is as args.keep={cfg.args.get('keep')} asks"
        raise ValueError(f"source {name!r} ({cfg.path or cfg.source}) is empty: {reason}")
    return Loaded(items=tuple(items), counts=counts, why=why)


def check_columns_and_args(name: str, cfg: SourceConfig) -> None:
    """What can be said of a source that is not on this disk. Raises ValueError for arguments and columns that it does not take."""
    source: Source = resolve(cfg.source, SOURCES, what="source")
    _arguments(name, source, cfg)
    _columns(name, source, cfg)
    read_kept(cfg.args.get("keep"))


def runs_programs(sources: Iterable[SourceConfig]) -> frozenset[Language]:
    """In which languages a sandbox has to run programs to judge completions to them; empty when it needs none."""
    found: set[Language] = set()
    for cfg in sources:
        source: Source = resolve(cfg.source, SOURCES, what="source")
        language = source.programs(cfg.args)
        if language:
            found.add(language)
    return frozenset(found)


def located(cfg: SourceConfig, run: Config) -> SourceConfig:
    """With the path to where a run has left what the source reads; of other sources as it is."""
    if cfg.path is None or not is_left_by_a_run(cfg):
        return cfg
    return cfg.model_copy(update={"path": str(Path(run.run_dir).expanduser() / Path(cfg.path).expanduser())})


def is_left_by_a_run(cfg: SourceConfig) -> bool:
    """Whether it reads what an earlier stage writes, so that it may not be there before that has run."""
    return cfg.source in SOURCES and SOURCES[cfg.source].gather is not None


def needs_network(cfg: SourceConfig) -> bool:
    """Whether loading asks the hub."""
    return cfg.path is not None and not is_left_by_a_run(cfg) and not is_local(cfg.path)


def _rows(
    name: str,
    cfg: SourceConfig,
    make: Callable[..., Iterator[Any]] | None,
    arguments: Mapping[str, Any],
    *,
    takes_path: bool,
) -> Iterator[Any]:
    if cfg.path is None and (make is None or takes_path):
        raise ValueError(f"source {name!r} ({cfg.source}) needs a path: a hub name, or a local file or folder")
    if make is not None:
        return make(**({"path": cfg.path} if takes_path else {}), **arguments)
    assert cfg.path is not None
    return read_rows(cfg.path, subset=cfg.subset, split=cfg.split)


def _kept_rows(
    given: Iterable[Any], cfg: SourceConfig, counts: Counter[str], *, name: str
) -> Iterator[Mapping[str, Any]]:
    """Those that are as `args.keep` asks, by their own names."""
    kept = read_kept(cfg.args.get("keep"))
    for row in given:
        counts["rows"] += 1
        theirs = as_columns(row, name=name)
        if is_kept(theirs, kept, name=name):
            yield theirs
        else:
            counts["filtered"] += 1


def _makes(source: Source, cfg: SourceConfig) -> Callable[..., Iterator[Any]] | None:
    """What makes its rows; None where they are read."""
    return source.gather or (source.generate if cfg.path is None else None)


def _arguments(name: str, source: Source, cfg: SourceConfig) -> dict[str, Any]:
    """Its own among `cfg.args`."""
    own = {key: value for key, value in cfg.args.items() if key not in OF_ANY_SOURCE}
    skip = "path" if source.gather else "row"
    return _bound(name, _makes(source, cfg) or source.read, own, skip=skip)


def _bound(name: str, function: Callable[..., Any], args: Mapping[str, Any], *, skip: str = "") -> dict[str, Any]:
    """`args`, if `function` takes them."""
    parameters = {key: parameter for key, parameter in inspect.signature(function).parameters.items() if key != skip}
    wrong = set(args) - set(parameters)
    missing = {key for key, p in parameters.items() if p.default is p.empty} - set(args)
    if wrong or missing:
        problem = f"unknown: {', '.join(sorted(wrong))}" if wrong else f"missing: {', '.join(sorted(missing))}"
        raise ValueError(f"source {name!r}: args {problem}; it takes: {', '.join(parameters) or 'none'}")
    return dict(args)


def _columns(name: str, source: Source, cfg: SourceConfig) -> dict[str, str]:
    unknown = sorted(set(cfg.columns) - set(source.columns))
    if unknown and not source.keep_others:
        raise ValueError(
            f"source {name!r}: columns maps {', '.join(unknown)}, but {cfg.source} reads: {', '.join(source.columns)}"
        )
    return {**source.columns, **cfg.columns}


def _ours(theirs: Mapping[str, Any], columns: Mapping[str, str], source: Source, *, name: str) -> Row:
    """The row under our names."""
    ours: dict[str, Any] = {}
    if source.keep_others:
        ours = {key: value for key, value in theirs.items() if key not in columns.values()}
    for ours_name, column in columns.items():
        found, value = step_into(theirs, column)
        if found:
            ours[ours_name] = value
        elif ours_name not in source.optional:
            known = (*source.columns, *source.others)
            own = "" if ours_name in known else f", which is none of the names that it reads ({', '.join(known)})"
            raise ValueError(
                f"source {name!r}: there is no column {column!r} for {ours_name!r}{own}. A row: {shown(theirs)}. "
                f"Name the right one: columns={{{ours_name}: <column>}}"
            )
    return ours


def _instructed(item: Item, instruction: str) -> Item:
    *before, last = item.messages
    return replace(item, messages=(*before, replace(last, content=f"{last.content}\n\n{instruction}")))


def _keys(item: Item) -> frozenset[str]:
    """The source's own name for the problem, and the question whatever its case and spacing.

    A system prompt says how to answer, not what is asked, so it does not count. In a chat to learn from every turn of the user's
    is a question that the completions may have answered.
    """
    asked = [message for message in item.messages if message.role != "system"] or item.messages
    questions = [" ".join(message.content for message in asked)]
    if item.response is not None:
        questions += [message.content for message in asked if message.role == "user"]
    named = [] if item.id is None else [f"id {item.id}"]
    return frozenset([*named, *(f"question {' '.join(question.lower().split())}" for question in questions)])


def _digest(item: Item) -> str:
    """The same for the same conversation and answers, wherever the row stands."""
    content = json.dumps(
        [[(m.role, m.content) for m in item.messages], item.payload], ensure_ascii=False, sort_keys=True, default=str
    )
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
