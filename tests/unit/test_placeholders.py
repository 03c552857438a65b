"""Golds that are no answers are dropped; answers that say that there is none are kept."""

import json
from pathlib import Path

import pytest

from r1ray.config import SourceConfig
from r1ray.data.placeholders import is_placeholder
from r1ray.data.sources import load_source

PLACEHOLDERS = (
    *("proof", "Proof.", "**Proof**", "proof only", "A proof is required", r"$\text{proof}$", "Q.E.D.", "to be proved"),
    *("None", "null", "nan", "N/A", "n.a.", "(N/A)", "#N/A", "<NA>", r"\boxed{\text{N/A}}", "TBD", "Unknown", "TODO"),
    *(
        "notfound",
        "not found",
        "NOT_FOUND",
        "Not provided",
        "not-available",
        "Answer not found",
        "The answer is not provided.",
    ),
    *(
        "no answer",
        "None provided",
        "Not applicable",
        "see solution",
        "See the explanation below.",
        "Refer to the proof",
    ),
    *("见解析", "证明见解析", "详见解析。", "略", "证明略", "无答案", "Beweis", "voir la solution"),
    *("", "  ", "-", "--", "—", "?", "...", "[]", "()", "$$", "$-$", "_", "\u3000"),
)
ANSWERS = (
    *(
        r"\text{no}",
        "no",
        "Yes",
        "None of the above",
        r"\text{none}",
        "None of these",
        "no one",
        r"\emptyset",
        "∅",
        r"\{\}",
    ),
    *(
        "DNE",
        "does not exist",
        "undefined",
        "no solution",
        "No real roots",
        "无解",
        "cannot be determined",
        "not possible",
    ),
    *("0", "-1", "-x", "<", ">", "=", "+", "∞", "N", "n", "i", "NaCl", "not prime", "not continuous", "not equal"),
    *("proof by contradiction", "proven by Euler in 1735", "the graph of y=x", "the answer is 5", "1/2", "(0, 1)"),
)


def test_placeholders_and_answers_are_told_apart() -> None:
    assert [gold for gold in PLACEHOLDERS if not is_placeholder(gold)] == []
    assert [gold for gold in ANSWERS if is_placeholder(gold)] == []


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("math500", lambda gold: {"problem": f"p {gold}", "answer": gold}),
        ("rows", lambda gold: {"prompt": f"p {gold}", "answer": gold}),
        ("dapo", lambda gold: {"prompt": f"p {gold}", "reward_model": {"ground_truth": gold}}),
        ("gsm8k", lambda gold: {"question": f"p {gold}", "answer": f"so #### {gold}"}),
        ("math", lambda gold: {"problem": f"p {gold}", "solution": rf"thus \boxed{{{gold}}}"}),
        ("orz", lambda gold: [{"value": f"p {gold}"}, {"ground_truth": {"value": gold}}]),
    ],
)
def test_rows_without_an_answer_are_counted_and_the_first_is_shown(tmp_path: Path, source, row) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row(gold)) for gold in ("proof", "7", "N/A", r"\text{no}", "None")))
    loaded = load_source("mine", SourceConfig(source=source, path=str(file)))
    assert [item.payload["answers"] for item in loaded.items] == [["7"], [r"\text{no}"]]
    assert loaded.counts["unreadable"] == 3
    assert loaded.reason.startswith("the gold 'proof' is no answer") and "; the row: " in loaded.reason


def test_other_answers_of_a_list_are_kept_and_choices_are_letters(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "p", "answer": ["None", "3", "-"]}))
    (item,) = load_source("mine", SourceConfig(source="rows", path=str(file))).items
    assert item.payload["answers"] == ["3"]
    file.write_text(json.dumps({"question": "q", "options": ["1", "None of the above"], "answer": "B"}))
    (item,) = load_source("mine", SourceConfig(source="multiple_choice", path=str(file))).items
    assert item.payload["answers"] == ["B"]
