"""A row that cannot be used costs itself only, and is counted; a mistyped column of the configuration is an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1ray.config import SourceConfig
from r1ray.data.graded import UnreadableRow, read_graded
from r1ray.data.sources import Loaded, load_source

GOOD: Any = {"prompt": "a", "answer": "1"}
CODE: Any = {"prompt": "a", "tests": [{"input": "1", "output": "2"}]}


def loaded(tmp_path: Path, *rows: object, source: str = "rows", head: int | None = None, **fields: Any) -> Loaded:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return load_source("mine", SourceConfig(source=source, path=str(file), **fields), head=head)


@pytest.mark.parametrize(
    ("bad", "verifier"),
    [
        ({"prompt": "b \ud800"}, "math"),
        ({"prompt": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "\udfff"}]}, "math"),
        ({"answer": "\udc00 1"}, "exact"),
        ({"note": {"nested": ["\ud83d"]}}, "math"),
        ({"tests": [{"input": "1", "output": "\ud800"}]}, "code"),
        ({"tests": r'[{"input": "\ud800", "output": "1"}]'}, "code"),
        ({"tests": {"fn_name": "f", "inputs": [r'["\ud800"]'], "outputs": ["1"]}}, "code"),
    ],
)
def test_a_lone_surrogate_costs_its_row_only(tmp_path: Path, bad: dict[str, Any], verifier: str) -> None:
    good = {**GOOD, **CODE}
    pair = {**good, "prompt": "\ud83d\ude00"}
    found = loaded(tmp_path, good, {**good, "prompt": "b", **bad}, pair, args={"verifier": verifier})
    assert [item.messages[0].content for item in found.items] == ["a", "😀"] and found.counts["unreadable"] == 1
    assert "half of a surrogate pair" in found.reason and found.reason.encode()


def test_a_lone_surrogate_in_known_datasets_and_in_graded_rows(tmp_path: Path) -> None:
    apps = {"question": "q", "input_output": r'{"inputs": ["\ud800"], "outputs": ["1"]}', "starter_code": ""}
    found = loaded(tmp_path, {**apps, "input_output": '{"inputs": ["1"], "outputs": ["1"]}'}, apps, source="apps")
    assert (len(found.items), found.counts["unreadable"]) == (1, 1)
    row = {"id": "a", "kind": "stdin_stdout", "code": "1", "tests": [{"input": "\ud800", "output": "1"}]}
    (tmp_path / "graded.jsonl").write_text(json.dumps(row))
    (unreadable,) = read_graded(tmp_path / "graded.jsonl", tokenise=lambda text: None)  # type: ignore[arg-type, return-value]
    assert isinstance(unreadable, UnreadableRow) and "half of a surrogate pair" in unreadable.reason


@pytest.mark.parametrize(
    ("source", "columns", "row", "words"),
    [
        ("rows", {"answer": "anwser"}, GOOD, "'anwser' that columns.answer names. Did you mean answer? The columns are: prompt"),
        ("rows", {"answer": "solution"}, {**GOOD, "answers": ["1"]}, "The columns are: prompt, answer, answers. Correct"),
        ("rows", {"language": "lang"}, {**GOOD, "language": "zh"}, "Did you mean language?"),
        ("math", {"level": "levle"}, {"problem": "p", "solution": r"\boxed{1}", "level": "1"}, "Did you mean level?"),
        ("rows", {"prompt": "promt"}, GOOD, "no column 'promt' for 'prompt'. Did you mean prompt? The columns are: prompt, answer"),
        ("rows", {"question": "prompt", "gold": "answer"}, {"question": "q", "gold": "1"},
         "our name first: columns={prompt: question, answer: gold}"),
        ("rows", {"answer": "extra.gold"}, {**GOOD, "extra": {"golds": 1}}, "no row has the column 'extra.gold'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", [None, 1])
def test_a_mistyped_column_is_an_error(tmp_path: Path, source: str, columns, row, words: str, head) -> None:
    with pytest.raises(ValueError, match="source 'mine'") as error:
        loaded(tmp_path, row, row, source=source, columns=columns, head=head)
    assert words in str(error.value)


def test_an_optional_column_may_be_in_some_rows_only(tmp_path: Path) -> None:
    rows = [{**GOOD, "prompt": str(n)} for n in range(5)]
    rows[4]["lang"] = "zh"
    assert len(loaded(tmp_path, *rows, columns={"language": "lang"}).items) == 5
    shortened: list[dict[str, Any]] = [{"head": 2}, {"limit": 2}]
    for few in shortened:
        found = loaded(tmp_path, *rows, columns={"language": "lang"}, **few)
        assert (len(found.items), found.counts["rows"]) == (2, 2), "the rest is only looked at"
    own = {"prompt": "p", "answer": "wrong", "gold": "1"}
    found = loaded(tmp_path, own, {"prompt": "q", "answer": "no gold"}, columns={"answer": "gold"})
    assert [item.payload["answers"] for item in found.items] == [["1"]] and "there is no answer" in found.reason
