"""Datasets by name, and how one is loaded: rows -> our columns -> Items; duplicates and unusable rows are counted.

To add a dataset: a reader in `schemas` (or a `Source` in your own package, named `package.module:SOURCE`), and a line in SOURCES.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from r1ray.config import Config, SourceConfig
from r1ray.data import mined, programming, rows, schemas, swe
from r1ray.data.base import Item, PythonArgs, Row, Source, SourceArgs, Unreadable
from r1ray.data.columns import KeepRule, as_columns, is_kept, shown
from r1ray.data.files import is_local, read_rows
from r1ray.data.generators import countdown, knights, oneliners, traces
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.renaming import Renaming, columns_of
from r1ray.plugin import resolve, resolve_or_none
from r1ray.plugin_errors import message_of, place_of, users_traceback
from r1ray.reward.text import HALF, lone_surrogate
from r1ray.sandbox.base import Language


def _python(read: Callable[[Row, Any], Item], args: type[SourceArgs] = PythonArgs, **columns: str) -> Source:
    return Source(read=read, Args=args, columns=columns, optional=frozenset({"starter"}))


_VERL = {"prompt": "prompt", "answer": "reward_model.ground_truth"}
_PROBLEM = {"problem": "problem", "answer": "answer"}

SOURCES: Mapping[str, Source] = {
    "apps": _python(programming.apps, question="question", tests="input_output", starter="starter_code"),
    "taco": _python(programming.apps, question="question", tests="input_output", starter="starter_code"),
    "livecodebench": _python(
        programming.livecodebench,
        question="question_content",
        id="question_id",
        starter="starter_code",
        public="public_test_cases",
        private="private_test_cases",
        metadata="metadata",
    ),
    "prime_code": _python(programming.prime_code, prompt="prompt", info="verification_info"),
    "deepcoder": _python(
        programming.deepcoder, programming.DeepcoderArgs, question="problem", tests="tests", starter="starter_code"
    ),
    "skywork_code": _python(programming.verl_code, prompt="prompt", answer="reward_model.ground_truth"),
    "leetcode": Source(
        read=programming.leetcode,
        Args=PythonArgs,
        columns={
            "question": "problem_description",
            "id": "task_id",
            "starter": "starter_code",
            "test": "test",
            "name": "entry_point",
        },
        optional=frozenset({"starter", "id"}),
    ),
    "kodcode": Source(
        read=programming.kodcode,
        Args=PythonArgs,
        columns={"question": "question", "id": "question_id", "test": "test"},
        optional=frozenset({"id"}),
    ),
    "eurus": _python(programming.eurus, prompt="prompt", answer="reward_model.ground_truth", ability="ability"),
    "codeforces": Source(
        read=programming.codeforces,
        Args=programming.CodeforcesArgs,
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
    ),
    "swe": Source(
        read=swe.swe, columns={name: name for name in ("id", "issue", "files", "patch")}, optional=frozenset({"id"})
    ),
    "swe_bench_oracle": Source(
        read=swe.swe_bench_oracle,
        columns={"id": "instance_id", "issue": "problem_statement", "text": "text", "patch": "patch"},
    ),
    "countdown": Source(
        read=countdown.read,
        Args=countdown.CountdownArgs,
        columns={"numbers": "numbers", "target": "target"},
        generate=countdown.generate,
    ),
    "countdown_hub": Source(read=countdown.read, columns={"numbers": "nums", "target": "target"}),
    "knights_and_knaves": Source(
        read=knights.read,
        Args=knights.KnightsArgs,
        columns={name: name for name in ("id", "question", "answer", "names", "language")},
        generate=knights.generate,
    ),
    "knights_and_knaves_hub": Source(
        read=knights.read,
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
    "amc": Source(read=schemas.problem_answer, columns={"problem": "question", "answer": "answer"}),
    "deepscaler": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "open_r1_math": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "big_math": Source(read=schemas.problem_answer, columns=_PROBLEM),
    "dapo": Source(read=schemas.verl, columns=_VERL),
    "skywork": Source(read=schemas.verl, columns=_VERL),
    "verl": Source(read=schemas.verl, columns=_VERL),
    "one_liners": Source(
        read=oneliners.read,
        Args=oneliners.OneLinersArgs,
        columns={name: name for name in ("id", "question", "verifier", "payload", "language")},
        generate=oneliners.generate,
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
    "gpqa": Source(
        read=schemas.gpqa,
        columns={
            **{"id": "Record ID", "question": "Question", "correct": "Correct Answer"},
            **{f"incorrect_{number}": f"Incorrect Answer {number}" for number in (1, 2, 3)},
        },
        optional=frozenset({"id"}),
    ),
    "orz": Source(read=schemas.orz, columns={"question": "0.value", "answer": "1.ground_truth.value"}),
    "rows": Source(
        read=rows.rows,
        Args=rows.RowsArgs,
        columns={"prompt": "prompt", "answer": "answer", "language": "language"},
        optional=frozenset({"answer", "language"}),
        pass_extra_columns=True,
        extra_columns=rows.EXTRA_COLUMNS,
    ),
    "mined": Source(
        read=mined.mined,
        Args=mined.MinedArgs,
        columns={name: name for name in ("problem", "source", "asked")},
        read_run=mined.mined_rows,
    ),
    "traces": Source(
        read=traces.read,
        Args=GeneratorArgs,
        columns={"question": "question", "response": "response"},
        generate=traces.generate,
    ),
    "sft": Source(
        read=schemas.sft,
        columns={"messages": "messages", "prompt": "prompt", "response": "response"},
        optional=frozenset({"messages", "prompt", "response"}),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """`counts`: rows read, filtered (by args.keep), unreadable, duplicates. The remaining rows are the items."""

    items: tuple[Item, ...]
    counts: Mapping[str, int]
    reason: str
    """Why the first unreadable row cannot be used, and that row; empty where there is none."""


def load_source(name: str, cfg: SourceConfig, *, head: int | None = None) -> Loaded:
    """Every usable item of one source, each with an id; `name` is the source's key in the mixture, for ids and messages.

    With `head` only the first `head` rows are read.

    Two rows with the same prompt and answer are one problem (DAPO-Math-17k repeats its prompts a hundred times); the first is kept.
    The `keys` of items identify problems across sets.

    Raises:
        ValueError: unknown source, arguments or columns; no such path; a column that is missing, or that the user names and no row
            has; no usable row.
    """
    source = source_of(cfg)
    args, renaming = source.Args.model_validate(cfg.args), Renaming(name, source, cfg)
    counts: Counter[str] = Counter(rows=0, filtered=0, unreadable=0, duplicates=0)
    items: list[Item] = []
    seen: set[str] = set()
    first_error = ""
    kept = _kept_rows(_rows(name, cfg, source, args), args.kept, counts, name=name)
    for theirs in islice(kept, head):
        ours = renaming.rename(theirs)
        try:
            item = source.read(ours, args)
            _check_characters(item)
        except Unreadable as error:
            counts["unreadable"] += 1
            first_error = first_error or f"{error}; the row: {shown(theirs)}"
            continue
        except Exception as error:  # a source of the user's own may raise anything
            counts["unreadable"] += 1
            first_error = first_error or f"{message_of(error)} ({place_of(error)}); the row: {shown(theirs)}"
            continue
        keys = _keys(item)  # before the instruction, which may differ between training and evaluation
        item = _instructed(item, args.instruction) if args.instruction else item
        identity = item.id or f"{name}/{_digest(item)}"
        if identity in seen and item.response is None:  # training examples may repeat, problems may not
            counts["duplicates"] += 1
            continue
        seen.add(identity)
        items.append(replace(item, id=identity, keys=keys))
        if len(items) == cfg.limit:
            break
    read = dict(counts)  # the rows after them are only looked at
    renaming.check_given(kept if source.generate is None else ())
    counts = Counter(read)
    if not items:
        reason = f"not one of {counts['rows']} rows can be used: {first_error}" if counts["rows"] else "it has no rows"
        if counts["rows"] and not first_error:
            reason = f"args.keep={args.keep} leaves none of {counts['rows']} rows"
        raise ValueError(f"source {name!r} ({cfg.path or cfg.source}) is empty: {reason}")
    return Loaded(items=tuple(items), counts=counts, reason=first_error)


def source_of(cfg: SourceConfig) -> Source:
    source = resolve(cfg.source, SOURCES, what="source")
    if not isinstance(source, Source):
        raise ValueError(f"source {cfg.source!r} is {source!r:.60}, not an r1ray.data.base.Source")
    return source


def check_columns(name: str, cfg: SourceConfig) -> None:
    """What can be checked of a source that is not on this disk. Raises ValueError for columns that it does not have."""
    columns_of(name, source_of(cfg), cfg)


def program_languages(sources: Iterable[SourceConfig]) -> frozenset[Language]:
    """Languages that a sandbox must run to score completions to these problems; empty when none is needed."""
    languages: set[Language] = set()
    for cfg in sources:
        if language := source_of(cfg).Args.model_validate(cfg.args).program_language:
            languages.add(language)
    return frozenset(languages)


def in_run_dir(cfg: SourceConfig, run: Config) -> SourceConfig:
    """`cfg`; if the source reads files that a run has written, its path is resolved relative to the run directory."""
    if cfg.path is None or not written_by_a_run(cfg):
        return cfg
    return cfg.model_copy(update={"path": str(Path(run.run_dir).expanduser() / Path(cfg.path).expanduser())})


def written_by_a_run(cfg: SourceConfig) -> bool:
    """Whether an earlier stage writes what the source reads, so that it may not exist before the run."""
    source = resolve_or_none(cfg.source, SOURCES)
    return source is not None and source.read_run is not None


def needs_network(cfg: SourceConfig) -> bool:
    """Whether the source is loaded from the hub."""
    return cfg.path is not None and not written_by_a_run(cfg) and not is_local(cfg.path)


def _rows(name: str, cfg: SourceConfig, source: Source, args: SourceArgs) -> Iterator[Any]:
    if (cfg.path is None) != (source.generate is not None):
        needs = (
            "takes no path: it generates its problems"
            if cfg.path
            else "needs a path: a hub name, or a local file or folder"
        )
        raise ValueError(f"source {name!r} ({cfg.source}) {needs}")
    if source.generate is not None:
        return _made_rows(partial(source.generate, args), name=name)
    assert cfg.path is not None
    if source.read_run is not None:
        return _made_rows(partial(source.read_run, cfg.path, args), name=name)
    return read_rows(cfg.path, subset=cfg.subset, split=cfg.split)


def _made_rows(make: Callable[[], Iterator[Any]], *, name: str) -> Iterator[Any]:
    """The rows that a source makes; its exception says after how many rows and where it was raised."""
    number = 0
    try:
        for row in make():
            yield row
            number += 1
    except Exception as error:  # a source of the user's own may raise anything
        if isinstance(error, ValueError) and users_traceback(error) is None:
            raise
        raise ValueError(
            f"source {name!r} failed after {number} rows: {message_of(error)} ({place_of(error)})"
        ) from error


def _kept_rows(
    given: Iterable[Any], kept: tuple[KeepRule, ...], counts: Counter[str], *, name: str
) -> Iterator[Mapping[str, Any]]:
    """The rows that `args.keep` selects, with the dataset's column names."""
    for row in given:
        counts["rows"] += 1
        theirs = as_columns(row, name=name)
        if is_kept(theirs, kept, name=name):
            yield theirs
        else:
            counts["filtered"] += 1


def _check_characters(item: Item) -> None:
    """Half of a surrogate pair can be neither tokenised, hashed nor written to a file."""
    texts = [*(message.content for message in item.messages), item.response, item.id, item.language]
    if found := lone_surrogate([*texts, item.payload, item.meta]):
        raise Unreadable(f"it contains {found}, {HALF}")


def _instructed(item: Item, instruction: str) -> Item:
    *before, last = item.messages
    return replace(item, messages=(*before, replace(last, content=f"{last.content}\n\n{instruction}")))


def _keys(item: Item) -> frozenset[str]:
    """The source's own id of the problem, and its question without case and spacing.

    System prompts are ignored: they say how to answer, not what is asked. In a training chat every turn of the user counts as a
    question, because the completions may answer it.
    """
    asked = [message for message in item.messages if message.role != "system"] or item.messages
    questions = [" ".join(message.content for message in asked)]
    if item.response is not None:
        questions += [message.content for message in asked if message.role == "user"]
    named = [] if item.id is None else [f"id {item.id}"]
    return frozenset([*named, *(f"question {' '.join(question.lower().split())}" for question in questions)])


def _digest(item: Item) -> str:
    """A hash of the conversation and the answers: it does not depend on the row's position."""
    content = json.dumps(
        [[(m.role, m.content) for m in item.messages], item.payload], ensure_ascii=False, sort_keys=True, default=str
    )
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
