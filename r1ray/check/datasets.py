"""Datasets: can their rows be read, and do they fit the stage?

Local files are read, of large ones only the first rows. Datasets on the hub are not read: only the names of their columns in the
configuration are checked.
"""

from collections.abc import Iterator

from r1ray.check import leftover
from r1ray.check.leftover import Read
from r1ray.check.plugins import source_findings, sources_of
from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.answer_marks import HEAD
from r1ray.data.files import size_of
from r1ray.data.sources import SOURCES, Loaded, check_columns, load_source, needs_network, source_of, written_by_a_run
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake
from r1ray.model.properties import HUB_NAME
from r1ray.plugin import resolve_or_none

WHOLE_ROWS, WHOLE_BYTES = 20_000, 16 << 20
"""Local files up to this size are read completely, which takes a second at most."""


def datasets(view: StageView) -> Iterator[Finding]:
    sets: dict[str, Read] = {}
    for key, source in sources_of(view).items():
        if any(isinstance(finding, Mistake) for finding in source_findings(view, key, source)):
            continue
        if resolve_or_none(source.source, SOURCES) is not None:
            for_sft = view.kind.trains and not view.kind.reinforcement and key.startswith("data.train.")
            yield from _dataset(key, source, sets, for_sft=for_sft)
    yield from leftover.overlap(view, sets)
    yield from leftover.lengths(view, sets)


def _dataset(key: str, source: SourceConfig, sets: dict[str, Read], *, for_sft: bool) -> Iterator[Finding]:
    """Findings about one dataset; if it can be read, it is added to `sets`."""
    if written_by_a_run(source):
        return  # an earlier stage of this run writes its rows; the check of the source's arguments looks at that stage
    if needs_network(source):
        if HUB_NAME.fullmatch(source.path or ""):
            yield from _of_hub(key, source)
        else:
            rule = "is neither a file or folder that exists nor a hub name (org/name)"
            remedy = "check the spelling, or give org/name"
            yield Mistake(key=f"{key}.path", value=source.path, rule=rule, remedy=remedy)
        return
    try:
        head = _head(source)
        loaded = load_source(key.rpartition(".")[2], source, head=head)
    except (TypeError, ValueError) as error:  # a generator of the user's own may raise either
        where, value = (f"{key}.path", source.path) if source.path else (f"{key}.args", source.args)
        remedy = f"correct the file, or {key}.path, .columns or .args ({key}.columns.OURS=THEIRS)"
        if source.path is None:
            remedy = (
                f"correct {key}.args"
                if source_of(source).generate
                else f"{key}.path=FILE, or FOLDER, or ORG/NAME of the hub"
            )
        yield Mistake(key=where, value=value, rule=str(error), remedy=remedy)
        return
    whole = not _is_partial(source, loaded, head=head)
    yield from _of_rows(key, source, loaded, head=head)
    items = loaded.items
    if for_sft == (items[0].response is not None):
        sets[key] = Read(loaded=loaded, whole=whole)
    if for_sft and items[0].response is None:
        rule = "gives problems without responses, and this SFT stage trains on responses"
        remedy = "a source with responses, for instance messages with an answer"
        yield Mistake(key=f"{key}.source", value=source.source, rule=rule, remedy=remedy)
    if not for_sft and items[0].response is not None:
        rule = "gives responses for SFT, not problems to solve"
        remedy = "use it as data.train of an SFT stage"
        yield Mistake(key=f"{key}.source", value=source.source, rule=rule, remedy=remedy)


def _head(source: SourceConfig) -> int:
    """How many rows to read."""
    if source.path is None:
        return HEAD
    return WHOLE_ROWS if size_of(source.path, split=source.split) <= WHOLE_BYTES else HEAD


def _of_rows(key: str, source: SourceConfig, loaded: Loaded, *, head: int) -> Iterator[str]:
    """Notes on the rows of a dataset that can be used."""
    read, unreadable = loaded.counts["rows"] - loaded.counts["filtered"], loaded.counts["unreadable"]
    partly = _is_partial(source, loaded, head=head)
    if unreadable:
        yield f"{unreadable} of the {'first ' if partly else ''}{read} rows of {key} cannot be used: {loaded.reason}"
    if partly and source.path is not None:
        yield f"{NOT_CHECKED}{key}.path={source.path}: only its first {head} rows were read"


def _is_partial(source: SourceConfig, loaded: Loaded, *, head: int) -> bool:
    read = loaded.counts["rows"] - loaded.counts["filtered"]
    return read == head and len(loaded.items) != source.limit


def _of_hub(key: str, source: SourceConfig) -> Iterator[Finding]:
    try:
        check_columns(key.rpartition(".")[2], source)
    except ValueError as error:
        yield Mistake(key=f"{key}.columns", value=source.columns, rule=str(error), remedy=f"correct {key}.columns")
    yield f"{NOT_CHECKED}{key}.path={source.path} is a hub name (or a folder that does not exist)"
