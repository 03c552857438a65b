"""Sources of the user's own that raise: the check names cause, line and row; some bad rows are counted, and the others are used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.check import ConfigError, load
from r1ray.cli import compose
from r1ray.config import SourceConfig
from r1ray.data.base import Item, Source, SourceArgs
from r1ray.data.sources import load_source
from r1ray.plugin_errors import users_traceback
from r1ray.types import Message


def item(text: str) -> Item:
    return Item(messages=(Message(role="user", content=text),), payload={"answers": ["1"]})


def typo(row: Any, args: SourceArgs) -> Item:
    return itm(row["question"])  # type: ignore[name-defined]  # noqa: F821


def some(row: Any, args: SourceArgs) -> Item:
    return item(str(1 / row["question"]))


def numbers(args: SourceArgs) -> Iterator[dict[str, Any]]:
    yield from ({"question": number} for number in range(5))


def stops(args: SourceArgs) -> Iterator[dict[str, Any]]:
    yield {"question": 1}
    yield {"question": int("one")}


def at_once(args: SourceArgs) -> Iterator[dict[str, Any]]:
    raise RuntimeError("no server")


def of_items(args: SourceArgs) -> Any:
    return 5


COLUMNS = {"question": "question"}
TYPO = Source(read=typo, columns=COLUMNS, generate=numbers)
SOME = Source(read=some, columns=COLUMNS, generate=numbers)
STOPS = Source(read=some, columns=COLUMNS, generate=stops)
AT_ONCE = Source(read=some, columns=COLUMNS, generate=at_once)
NO_ROWS = Source(read=some, columns=COLUMNS, generate=of_items)
FILE = Source(read=typo, columns=COLUMNS)
ALL_WRONG = {
    "TYPO": r"not one of 5 rows can be used: NameError: name 'itm' is not defined \(.*test_source_errors.py:\d+ in typo\); the row",
    "STOPS": r"failed after 1 rows: ValueError: invalid literal .* \(.*test_source_errors.py:\d+ in stops\)",
    "AT_ONCE": r"failed after 0 rows: RuntimeError: no server \(.*test_source_errors.py:\d+ in at_once\)",
    "NO_ROWS": r"failed after 0 rows: TypeError: 'int' object is not iterable",
}


def config(name: str, **fields: Any) -> SourceConfig:
    return SourceConfig(source=f"{__name__}:{name}", **fields)


@pytest.mark.parametrize("name", ALL_WRONG)
def test_a_source_that_raises_for_every_row_is_a_mistake_of_the_check(name: str) -> None:
    with pytest.raises(ValueError, match=ALL_WRONG[name]) as error:
        load_source("mine", config(name))
    assert users_traceback(error.value) is not None or name in ("TYPO", "NO_ROWS")
    with pytest.raises(ConfigError, match=ALL_WRONG[name]):
        load(compose([f"data.train.mine={{source: '{__name__}:{name}'}}"]))


def test_rows_of_a_file_likewise(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "a"}\n{"question": "b"}\n')
    with pytest.raises(ValueError, match="not one of 2 rows can be used: NameError"):
        load_source("mine", config("FILE", path=str(rows)))


def test_rows_on_which_it_raises_are_counted_and_the_others_used() -> None:
    loaded = load_source("mine", config("SOME"))
    assert len(loaded.items) == 4 and loaded.counts["unreadable"] == 1
    assert loaded.reason.startswith("ZeroDivisionError") and "in some); the row:" in loaded.reason
    checked = load(compose([f"data.train.mine={{source: '{__name__}:SOME'}}"]))
    assert any("1 of the 5 rows of data.train.mine cannot be used: ZeroDivisionError" in note for note in checked.notes)
