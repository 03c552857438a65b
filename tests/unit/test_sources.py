"""Datasets: the real schemas on a few rows each, in all file formats, and errors for invalid files."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from reward_samples import completion, context, problem

from r1ray.config import SourceConfig
from r1ray.config.files import conf_dir
from r1ray.data.files import is_local
from r1ray.data.sources import SOURCES, Loaded, load_source, needs_network
from r1ray.reward.accuracy import VERIFIERS, accuracy
from r1ray.reward.code import problem_tests
from r1ray.sandbox.base import Program, RunResult

DATA = Path(__file__).parents[1] / "fixtures" / "datasets"


def load(source: str, path: Path | str | None = None, *, head: int | None = None, **fields) -> Loaded:
    path = DATA / f"{source}.jsonl" if path is None else path
    return load_source("mix", SourceConfig(source=source, path=str(path), **fields), head=head)


def read(source: str, path: Path | str | None = None, **fields) -> list[tuple]:
    return [(item.messages[-1].content, item.payload) for item in load(source, path, **fields).items]


def counts(loaded: Loaded) -> tuple[int, int, int]:
    return loaded.counts["rows"], loaded.counts["unreadable"], loaded.counts["duplicates"]


def test_gsm8k_reads_the_result_after_the_hashes():
    loaded = load("gsm8k")
    assert [item.payload["answers"] for item in loaded.items] == [["36"], ["1250"]]
    assert loaded.items[0].messages[0].content.startswith("A box holds 12 pens.")
    assert counts(loaded) == (3, 1, 0)


def test_math_reads_the_last_box_of_the_solution():
    loaded = load("math")
    assert [item.payload["answers"] for item in loaded.items] == [[r"\frac{1}{2}"], ["8"]]
    assert [item.meta for item in loaded.items] == [{"level": "Level 1"}] * 2
    assert counts(loaded) == (3, 1, 0)


def test_math500_and_deepscaler_read_the_answer_column():
    assert [payload["answers"] for _, payload in read("math500")] == [["5"], [r"\{-2,2\}"]]
    loaded = load("deepscaler")
    assert [item.payload["answers"] for item in loaded.items] == [[r"\frac{1}{4}"]]
    assert counts(loaded) == (2, 1, 0)


def test_dapo_keeps_the_prompt_and_removes_duplicates():
    loaded = load("dapo")
    assert [item.payload["answers"] for item in loaded.items] == [["34"], ["-7"]]
    assert loaded.items[0].messages[0].content.startswith("Solve the following math problem step by step.")
    assert counts(loaded) == (3, 0, 1)


def test_skywork_reads_the_json_list_and_drops_programs():
    loaded = load("skywork")
    assert [item.payload["answers"] for item in loaded.items] == [[r"\frac{1}{2}", "0.5"]]
    assert counts(loaded) == (2, 1, 0)


def test_verl_reads_numbers_and_intervals_and_keeps_the_system_prompt():
    first, second = load("verl").items
    assert [message.role for message in first.messages] == ["system", "user"]
    assert first.payload["answers"] == ["25"]
    assert second.payload["answers"] == ["[0, 1]"]


def test_orz_reads_pairs():
    assert read("orz", DATA / "orz.json") == [
        ("What is $1+2+3$?", {"answers": ["6"]}),
        ("What is the square root of 49?", {"answers": ["7"]}),
    ]


def test_countdown_from_the_hub_ignores_the_order_of_numbers():
    loaded = load("countdown_hub")
    assert [item.id for item in loaded.items] == ["countdown/19-35-44=98", "countdown/63-95-96=64"]
    assert loaded.items[0].verifier == "countdown"
    assert loaded.items[0].payload == {"numbers": [44, 19, 35], "target": 98}
    assert loaded.items[0].meta == {"difficulty": 3}
    assert counts(loaded) == (4, 1, 1)


def test_knights_and_knaves_from_the_hub_have_full_solutions():
    loaded = load("knights_and_knaves_hub")
    assert [item.payload["answers"] for item in loaded.items] == [["(1) Zoey is a knave\n(2) Oliver is a knight"]]
    assert (loaded.items[0].verifier, loaded.items[0].messages[0].content[:4]) == ("logic", "Each")
    assert loaded.items[0].meta == {"difficulty": 2}
    assert counts(loaded) == (2, 1, 0)


def test_rows_reads_any_table():
    first, second = load("rows").items
    assert first.payload == {"answers": ["4", "four"]}
    assert first.meta == {"topic": "sums"}
    assert (second.language, second.payload["answers"]) == ("zh", ["5"])


def test_rows_passes_all_columns_to_other_verifiers():
    (item, _) = load("rows", args={"verifier": "package.module:VERIFIER"}).items
    assert item.verifier == "package.module:VERIFIER"
    assert item.payload["topic"] == "sums"


SUMS = {"numbers": [2, 3], "target": 5}
FILES = {"files": {"a.py": "x = 1\n"}, "patched": {"a.py": "x = 2\n"}}
BLOCK = "<answer>### a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE</answer>"
TESTS = {"tests": [{"input": "1\n", "output": "2\n"}]}
BOTH = "(1) Ann is a knight (2) Bob is a knave"
# verifier: columns besides the prompt, a correct completion, an incorrect one
JUDGED: dict[str, list[tuple[dict, str, str]]] = {
    "math": [({"answer": 4}, r"\boxed{4}", r"\boxed{5}")],
    "exact": [
        ({"answer": "New York"}, "<answer>New  York</answer>", "<answer>York</answer>"),
        ({"answer": ["NYC", 7]}, "<answer>7</answer>", "<answer>8</answer>"),
        ({"answer": 4, "answers": ["none of ours"]}, "<answer>4</answer>", "<answer>5</answer>"),
    ],
    "text_match": [
        ({"answer": ["The Louvre", "Louvre museum"]}, "<answer>louvre.</answer>", "<answer>museum</answer>")
    ],
    "choice": [
        ({"answer": "(b)"}, r"\boxed{B}", r"\boxed{C}"),
        ({"answer": ["A", "D"]}, "<answer>D) four</answer>", "<answer>B</answer>"),
    ],
    "logic": [({"answer": BOTH}, f"<answer>{BOTH}</answer>", "<answer>(1) Ann is a knave (2) Bob is a knave</answer>")],
    "countdown": [({"answer": "", **SUMS}, "<answer>2 + 3</answer>", "<answer>2 * 3</answer>")],
    "patch": [
        ({"answer": None, **FILES}, BLOCK, BLOCK.replace("x = 2", "x = 3")),
        (
            {"answer": None, **{name: {**texts, "other.py": None} for name, texts in FILES.items()}},
            *(BLOCK, BLOCK.replace("x = 2", "x = 3")),
        ),
    ],
    "code": [({"answer": "", **TESTS}, "```python\nprint(2)\n```", "```python\nprint(3)\n```")],
    "program": [({"answer": "", **TESTS}, "print(2)", "print(3)")],
}


class Printing:
    """A fake of the sandbox: for a program `print(N)` it returns N."""

    def run(self, program: Program) -> RunResult:
        return RunResult(status="ok", stdout=re.sub(rb"\D", b"", program.code))


def test_every_verifier_has_example_rows():
    assert set(JUDGED) == set(VERIFIERS)


@pytest.mark.parametrize("verifier", JUDGED)
def test_rows_work_with_every_verifier(verifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(problem_tests, "sandbox", Printing)
    for row, right, wrong in JUDGED[verifier]:
        (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": "?", "topic": "sums", **row}))
        (item,) = load("rows", tmp_path / "t.jsonl", args={"verifier": verifier}).items
        asked = problem(verifier=item.verifier, payload=item.payload)
        scores = accuracy(asked, [completion(right), completion(wrong)], context())
        assert [score.correct for score in scores] == [True, False], row
        assert verifier == "math" or item.payload["topic"] == "sums"


@pytest.mark.parametrize(
    ("verifier", "row", "why"),
    [
        ("exact", {"answer": None}, "there is no answer: columns.answer=COLUMN"),
        ("exact", {"answer": [" ", True]}, "expected a text, a number"),
        ("choice", {"answer": "Paris"}, "expected the letter of an option as answer, found 'Paris'"),
        ("choice", {"answer": 2}, "expected the letter of an option"),
        ("logic", {"answer": "Ann lies"}, "expected who is what"),
        ("countdown", {"answer": "2 + 3"}, "numbers and target must be whole numbers .*numbers"),
        ("countdown", {"answer": "", "numbers": [2, 3], "target": None}, "numbers and target must be whole"),
        ("patch", {"answer": "", "files": FILES["files"]}, r"expected patched as \{path: text\}, found None"),
        ("patch", {"answer": "", **FILES, "files": ["a.py"]}, "expected files as"),
        ("patch", {"answer": "", **FILES, "patched": {"a.py": 3}}, "expected patched as"),
        ("patch", {"answer": "", "files": FILES["files"], "patched": FILES["files"]}, "patched changes nothing"),
        ("code", {"answer": ""}, "tests have none of the known forms"),
    ],
)
def test_rows_that_a_verifier_cannot_use_are_dropped(verifier: str, row: dict, why: str, tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": "?", **row}))
    with pytest.raises(ValueError, match=f"not one of 1 rows can be used: {why}"):
        load("rows", tmp_path / "t.jsonl", args={"verifier": verifier})


def test_reason_of_the_first_dropped_row_is_kept(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text(
        '{"prompt": "a", "answer": 1}\n{"prompt": "b", "answer": null}\n{"prompt": "c", "answer": []}'
    )
    assert load("rows", tmp_path / "t.jsonl").reason == (
        'there is no answer: columns.answer=COLUMN says which column holds it; the row: {"prompt": "b", "answer": null}'
    )
    assert load("rows").reason == ""


def test_sft_reads_both_kinds_of_messages():
    loaded = load("sft")
    assert [(item.messages[-1].content, item.response) for item in loaded.items] == [
        ("2 + 2?", "<think>easy</think> <answer>4</answer>"),
        ("3 + 3?", "<think>easy</think> <answer>6</answer>"),
    ]
    assert counts(loaded) == (3, 1, 0)


def test_sft_reads_prompt_and_response_columns(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "2 + 2?", "completion": "4"}\n' * 2)
    for ours in ("messages", "prompt"):
        loaded = load("sft", file, columns={ours: "prompt", "response": "completion"})
        assert [(item.messages[-1].content, item.response) for item in loaded.items] == [("2 + 2?", "4")] * 2
    file.write_text('{"prompt": "2 + 2?", "response": "4"}\n{"question": "2 + 2?", "response": "4"}\n')
    loaded = load("sft", file)
    assert ([item.response for item in loaded.items], loaded.counts["unreadable"]) == (["4"], 1)
    assert "neither a column 'messages' nor 'prompt'" in loaded.reason


def test_traces_read_question_and_response():
    (item,) = load_source("mix", SourceConfig(source="traces", args={"num_problems": 1})).items
    assert item.response is not None
    assert item.response.startswith("<think>") and item.response.endswith("</answer>")


def test_countdown_generates_its_rows():
    args = {"split": "test", "num_problems": 20}
    loaded = load_source("mix", SourceConfig(source="countdown", args=args))
    assert len({item.id for item in loaded.items}) == 20
    assert all(item.id.startswith("countdown/") for item in loaded.items)
    assert load_source("other", SourceConfig(source="countdown", args=args)).items == loaded.items
    assert load_source("mix", SourceConfig(source="countdown", args=args | {"seed": 1})).items != loaded.items


def test_every_schema_has_a_fixture():
    covered = {path.stem for path in DATA.iterdir()} | {
        "countdown",
        "aime",
        "knights_and_knaves",
        "one_liners",
        "traces",
    }
    assert covered == set(SOURCES) - {"mined"}, "that one has tests/unit/test_mined.py"


def test_parquet_json_and_folders_equal_jsonl(tmp_path: Path):
    rows = [json.loads(line) for line in (DATA / "dapo.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    (tmp_path / "one.json").write_text(json.dumps(rows))
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "data" / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[1:]), folder / "data" / "train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "data" / "test-00000-of-00001.parquet")
    expected = load("dapo").items
    for path in (tmp_path / "one.parquet", tmp_path / "one.json", folder):
        assert load("dapo", path).items == expected
    assert len(load("dapo", folder, split="test").items) == 1


def test_split_can_be_in_several_numbered_files(tmp_path: Path):
    lines = (DATA / "livecodebench.jsonl").read_text().splitlines(keepends=True)
    for name, line in zip(("test.jsonl", "test2.jsonl"), lines, strict=True):
        (tmp_path / name).write_text(line)
    (tmp_path / "tests.jsonl").write_text("not a row")
    assert len(load("livecodebench", tmp_path, split="test").items) == 2


def test_rows_are_filtered_by_date(tmp_path: Path):
    def kept(**bounds: str) -> int:
        return len(load("livecodebench", args={"keep": {"contest_date": bounds}}).items)

    assert kept(min="2024-08-01", max="2025-02-01") == kept(min="2025-01-01") == 2
    for bounds in ({"min": "2025-01-02"}, {"max": "2024-12-31"}):
        with pytest.raises(ValueError, match="leaves none of 2 rows"):
            kept(**bounds)
    with pytest.raises(ValueError, match="has to be"):
        load("livecodebench", args={"keep": {"contest_date": {"min": "2024", "max": 2025}}})


def test_columns_can_be_named_differently(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"q": "1 + 1?", "gold": {"final.value": "2"}}) + "\n")
    with pytest.raises(ValueError, match="no column 'question'") as error:
        load("gsm8k", file)
    assert '"q": "1 + 1?"' in str(error.value)
    assert "columns={question: <column>}" in str(error.value)
    file.write_text(json.dumps({"q": "1 + 1?", "gold.value": "#### 2"}) + "\n")
    assert read("gsm8k", file, columns={"question": "q", "answer": "gold.value"}) == [("1 + 1?", {"answers": ["2"]})]
    file.write_text(json.dumps({"q": "1 + 1?", "gold": {"value": "#### 2"}}) + "\n")
    assert read("gsm8k", file, columns={"question": "q", "answer": "gold.value"}) == [("1 + 1?", {"answers": ["2"]})]


def test_columns_can_be_renamed():
    own = {"subject": "topic", "answer": "answer", "answers": "answer", "tests": "topic"}
    (item, _) = load("rows", columns=own, args={"verifier": "package.module:VERIFIER"}).items
    assert item.meta == {"subject": "sums", "answers": ["4", "four"], "tests": "sums"}
    with pytest.raises(ValueError, match=r"the source does not read 'subject' \(it reads prompt, answer"):
        load("rows", columns={"subject": "theme"})
    with pytest.raises(ValueError, match=r"'cases' for 'tests'\. The columns are: prompt"):
        load("rows", columns={"tests": "cases"})


def test_ids_depend_on_the_content_and_not_on_the_file(tmp_path: Path):
    lines = (DATA / "math500.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
    here, there = load("math500").items, load("math500", tmp_path / "turned.jsonl").items
    assert [item.id for item in here] == [item.id for item in reversed(there)]
    assert len({item.id for item in here}) == 2
    assert all(item.id.startswith("mix/") for item in here)


def test_keys_depend_only_on_the_question(tmp_path: Path):
    file = tmp_path / "same.jsonl"
    file.write_text('{"prompt": " How\\nMANY? ", "answer": "7"}\n{"prompt": "How much?", "answer": "7"}\n')
    given, other = load("rows", file, args={"instruction": "Box it."}).items
    file.write_text('{"problem": "How many?", "answer": "7.0"}\n')
    (bare,) = load_source("another", SourceConfig(source="math500", path=str(file))).items
    assert given.keys == bare.keys and given.id != bare.id
    assert not given.keys & other.keys


def test_keys_of_countdown_ignore_the_order_of_numbers(tmp_path: Path):
    file = tmp_path / "same.jsonl"
    file.write_text('{"nums": [2, 3, 5], "target": 11}\n{"nums": [2, 3, 5], "target": 30}\n')
    given, other = load("countdown_hub", file).items
    file.write_text('{"numbers": [5, 2, 3], "target": 11}\n')
    (turned,) = load("countdown_hub", file, columns={"numbers": "numbers"}).items
    assert given.keys & turned.keys
    assert not other.keys & (given.keys | turned.keys)


def test_limit_and_head_select_rows():
    assert len(load("dapo", limit=1).items) == 1
    loaded = load("dapo", head=2)
    assert (loaded.counts["rows"], len(loaded.items)) == (2, 1)


def test_instruction_is_added_below_the_question():
    item = load("math500", args={"instruction": "Box it."}).items[0]
    assert item.messages[-1].content.endswith("to $(3,4)$.\n\nBox it.")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "gsm9k", "path": "x.jsonl"}, "did you mean gsm8k"),
        ({"source": "gsm8k", "path": "/no/such/file.jsonl"}, "does not exist"),
        ({"source": "gsm8k"}, "needs a path"),
        ({"source": "countdown", "path": "x.jsonl", "args": {"split": "train", "num_problems": 1}}, "takes no path"),
        ({"source": "countdown", "args": {"split": "train"}}, "num_problems\n.*required"),
        (
            {"source": "countdown", "args": {"split": "train", "num_problems": 1, "numbers": 3}},
            "numbers\n.*not permitted",
        ),
        ({"source": "countdown", "args": {"split": "tset", "num_problems": 1}}, "'traces', 'train' or 'test'"),
        ({"source": "gsm8k", "path": str(DATA / "gsm8k.jsonl"), "args": {"level": 3}}, "level\n.*not permitted"),
        ({"source": "r1ray.data.sources:load_source", "path": "x.jsonl"}, "not an r1ray.data.base.Source"),
        ({"source": "gsm8k", "path": str(DATA / "gsm8k.jsonl"), "columns": {"qestion": "q"}}, "maps qestion"),
        ({"source": "math", "path": str(DATA / "gsm8k.jsonl")}, "no column 'problem'"),
        (
            {"source": "skywork", "path": str(DATA / "dapo.jsonl"), "columns": {"answer": "extra_info"}},
            "not one of 3 rows",
        ),
        ({"source": "gsm8k", "path": __file__}, "is not a .jsonl, .json, .parquet file"),
    ],
)
def test_mistakes_are_reported_with_the_remedy(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        load_source("mix", SourceConfig(**config))


def test_broken_and_empty_files_are_reported(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        load("gsm8k", file)
    file.write_text('{"question": "a", "answer": "#### 1"}\n{"question": \n')
    with pytest.raises(
        ValueError, match=r"rows.jsonl, line 2: this is not JSON \(Exp.* at character .*\); correct or remove it"
    ):
        load("gsm8k", file)
    file.write_bytes(b'{"question": "a", "answer": "#### 1"}\n\n{"question": "\xff", "answer": "#### 1"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3: this is not JSON \('utf-8' codec"):
        load("gsm8k", file)
    (tmp_path / "rows.json").write_text('[{"question": "a", "answer": "#### 1"},\n {"question": }]')
    with pytest.raises(ValueError, match=r"rows.json, line 2: this is not JSON"):
        load("gsm8k", tmp_path / "rows.json")
    file.write_text('"just text"\n')
    with pytest.raises(ValueError, match="a row must be an object"):
        load("gsm8k", file)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        load("gsm8k", tmp_path / "bad.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no"):
        load("gsm8k", tmp_path / "empty")


def test_dataset_with_only_unreadable_golds_is_an_error_that_shows_a_row(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a", "answer": "no hashes"}\n' * 3)
    with pytest.raises(ValueError, match=r"not one of 3 rows can be used.*no hashes"):
        load("gsm8k", file)


def test_paths_that_need_a_network(tmp_path: Path):
    assert needs_network(SourceConfig(source="gsm8k", path="openai/gsm8k"))
    assert not needs_network(SourceConfig(source="gsm8k", path=str(tmp_path)))
    assert not needs_network(SourceConfig(source="countdown"))
    assert is_local("data/train.parquet")
    assert is_local("./data")
    assert not is_local("BytedTsinghua-SIA/DAPO-Math-17k")


def test_open_r1_math_and_big_math_read_the_answer_column():
    loaded = load("open_r1_math")
    assert [item.payload["answers"] for item in loaded.items] == [[r"\frac{3}{2}"]]
    assert counts(loaded) == (2, 1, 0)
    assert [payload["answers"] for _, payload in read("big_math")] == [["32"], ["4"], ["17"]]


def test_evaluation_groups_read_the_columns_of_their_datasets(monkeypatch: pytest.MonkeyPatch):
    """Each conf/eval group by its hub name, subset and split, through the hub's loader, with rows in the dataset's columns."""
    asked: list[tuple[str, str | None, str]] = []
    fixtures = {"openai/gsm8k": "gsm8k", "HuggingFaceH4/MATH-500": "math500", "math-ai/aime25": "aime"}
    fixtures |= {"math-ai/amc23": "amc", "Idavidrein/gpqa": "gpqa"}

    def load_dataset(path: str, subset: str | None, *, split: str):
        asked.append((path, subset, split))
        return map(json.loads, (DATA / f"{fixtures[path]}.jsonl").read_text().splitlines())

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    loaded = {}
    for group in ("gsm8k", "math500", "aime25", "amc", "gpqa"):
        sets = yaml.safe_load((conf_dir() / "eval" / f"{group}.yaml").read_text())["sets"]
        loaded |= {name: load_source(name, SourceConfig(**source)) for name, source in sets.items()}
    assert asked == [
        *(("openai/gsm8k", "main", "test"), ("HuggingFaceH4/MATH-500", None, "test"), ("math-ai/aime25", None, "test")),
        *(("math-ai/amc23", None, "test"), ("Idavidrein/gpqa", "gpqa_diamond", "train")),
    ]
    answers = {name: [item.payload["answers"] for item in sets.items] for name, sets in loaded.items()}
    assert answers["aime25"] == [["6"], ["70"]]
    assert answers["amc23"] == [["30.0"], ["9.0"]] and counts(loaded["amc23"]) == (3, 1, 0)
    right = problem(verifier="math", payload=loaded["amc23"].items[0].payload)
    assert accuracy(right, [completion(r"\boxed{30}")], context())[0].correct


def test_gpqa_orders_its_options_by_the_id_of_the_row(tmp_path: Path):
    loaded = load("gpqa")
    assert counts(loaded) == (9, 1, 0) and "an incorrect one too" in loaded.reason
    letters = [item.payload["answers"][0] for item in loaded.items]
    assert len(set(letters)) > 2, "the correct option has no fixed place"
    for item, letter in zip(loaded.items, letters, strict=True):
        question, *options = item.messages[0].content.split("\n")
        square = int(question.split()[-1].rstrip("?")) ** 2
        assert [line for line in options if line.endswith(f") {square}")] == [f"{letter}) {square}"]
    rows = (DATA / "gpqa.jsonl").read_text().splitlines()
    (tmp_path / "t.jsonl").write_text("\n".join(reversed(rows)))
    assert {i.id: i for i in load("gpqa", tmp_path / "t.jsonl").items} == {i.id: i for i in loaded.items}


def test_multiple_choice_lists_the_options_and_asks_for_the_letter():
    loaded = load("super_gpqa")
    assert [(item.id, item.verifier, item.payload["answers"]) for item in loaded.items] == [
        ("0a1b", "choice", ["D"]),
        ("2c3d", "choice", ["B"]),
        ("4e5f", "choice", ["A"]),
    ]
    assert counts(loaded) == (4, 1, 0)
    of_science = {"keep": {"discipline": {"any_of": ["Science", "Engineering"]}}, "instruction": "Say the letter."}
    (gas, _) = load("super_gpqa", args=of_science).items
    options = "A) Oxygen\nB) Nitrogen\nC) Chlorine\nD) Argon"
    assert gas.messages[0].content == f"Which of these is a noble gas?\n\n{options}\n\nSay the letter."
    assert read("multiple_choice") == [("Which of these is a colour?\n\nA) seven\nB) blue", {"answers": ["B"]})]


@pytest.mark.parametrize("answer", ["C", "", "AB", 2, -1, True, None, "blue"])
def test_multiple_choice_without_a_correct_option_is_dropped(tmp_path: Path, answer: object):
    (tmp_path / "t.jsonl").write_text(json.dumps({"question": "?", "options": ["seven", "blue"], "answer": answer}))
    with pytest.raises(ValueError, match="expected a letter or an index of 2 options"):
        load("multiple_choice", tmp_path / "t.jsonl")


def test_rows_are_filtered_by_bounds_of_nested_columns():
    loaded = load("big_math", args={"keep": {"llama8b_solve_rate": {"min": 0.2, "max": 0.625}}})
    assert [item.payload["answers"] for item in loaded.items] == [["32"]]
    assert (loaded.counts["rows"], loaded.counts["filtered"]) == (3, 2)
    model = "extra_info.model_difficulty.DeepSeek-R1-Distill-Qwen-7B"
    assert load("skywork", args={"keep": {model: {"min": 1, "max": 15}}}).counts["filtered"] == 0
    with pytest.raises(ValueError, match=r"args.keep=.* leaves none of 2 rows"):
        load("skywork", args={"keep": {model: {"max": 2}}})
    of_two = {model: {"min": 1}, "extra_info.model_difficulty.DeepSeek-R1-Distill-Qwen-1.5B": {"min": 16}}
    assert load("skywork_code", args={"keep": of_two}).counts["filtered"] == 1
    pairs = load("orz", DATA / "orz.json", args={"keep": {"0.from": {"any_of": ["human"]}}})
    assert pairs.counts["filtered"] == 0


def test_head_applies_to_the_filtered_rows():
    loaded = load("big_math", head=1, args={"keep": {"source": {"any_of": ["olympiads"]}}})
    assert [item.payload["answers"] for item in loaded.items] == [["17"]]


def test_rows_are_filtered_by_values():
    loaded = load("math", args={"keep": {"level": {"any_of": ["Level 1"]}}})
    assert {item.meta["level"] for item in loaded.items} == {"Level 1"}
    assert load("eurus", args={"keep": {"ability": {"any_of": ["math"]}}}).counts["filtered"] == 2


@pytest.mark.parametrize(
    "keep",
    [
        *(
            {"level": rule}
            for rule in (3, {}, {"least": 1}, {"min": "1", "max": 2}, {"min": True}, {"min": 2, "max": 1})
        ),
        *({"level": rule} for rule in ({"any_of": []}, {"any_of": ["a"], "min": 1})),
    ],
)
def test_malformed_filter_is_reported_with_the_form(keep):
    with pytest.raises(ValueError, match=r"has to be .*min: NUMBER, max: NUMBER.*any_of"):
        load("math", args={"keep": keep})


def test_filter_on_a_missing_column_is_reported():
    with pytest.raises(ValueError, match=r"no column 'difficulty' to keep rows by. A row: \{\"problem\""):
        load("math", args={"keep": {"difficulty": {"min": 1}}})


def test_issues_have_the_files_before_and_after_the_merged_patch():
    loaded, oracle = load("swe"), load("swe_bench_oracle")
    (item,), (same,) = loaded.items, oracle.items
    before, after = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b\n"
    assert item.verifier == same.verifier == "patch"
    assert item.payload == {
        "files": {"pkg/add.py": before, "pkg/other.py": "x = 1\n"},
        "patched": {"pkg/add.py": after},
    }
    assert same.payload == {"files": {"pkg/add.py": before}, "patched": {"pkg/add.py": after}}
    assert same.messages[0].content == f"add(1, 2) is -1.\n\n\nThe files:\n\n### pkg/add.py\n{before}"
    assert (item.id, same.id) == ("pkg-1", "org__pkg-1")
    assert (counts(loaded), counts(oracle)) == ((3, 2, 0), (2, 1, 0))


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answer": "4"}, ["4"]),
        ({"answers": ["Paris", "paris"]}, ["Paris", "paris"]),
        ({"answer": "", "answers": ["Paris"]}, ["Paris"]),
        ({"answer": 0, "answers": ["Paris"]}, ["0"]),
    ],
)
def test_answer_can_be_in_either_column(tmp_path: Path, row: dict, answers: list[str]):
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": "?", **row}))
    ((_, payload),) = read("rows", tmp_path / "t.jsonl", args={"verifier": "exact"})
    assert payload["answers"] == answers


def test_countdown_rows_need_no_answer(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"prompt": "?", "numbers": [1, 2.0], "target": 3}')
    ((_, payload),) = read("rows", tmp_path / "t.jsonl", args={"verifier": "countdown"})
    assert (payload["numbers"], payload["target"]) == ([1, 2], 3)


@pytest.mark.parametrize(
    "search", ['[1.5, 2], "target": 3', '"12", "target": 3', '[1], "target": Infinity', '[], "target": 3']
)
def test_countdown_rows_without_integers_are_dropped(tmp_path: Path, search: str):
    (tmp_path / "t.jsonl").write_text(f'{{"prompt": "?", "numbers": {search}}}')
    with pytest.raises(ValueError, match="numbers"):
        load("rows", tmp_path / "t.jsonl", args={"verifier": "countdown"})


def test_json_array_is_read_after_a_byte_order_mark_and_other_encodings_are_reported(tmp_path: Path):
    array = '\n[{"prompt": "?", "answer": "4"}]'
    (tmp_path / "t.json").write_text(array, encoding="utf-8-sig")
    assert read("rows", tmp_path / "t.json") == [("?", {"answers": ["4"]})]
    (tmp_path / "t.json").write_text(array, encoding="utf-16")
    with pytest.raises(ValueError, match=r"t\.json, line 1: this is not JSON \('utf-8' codec"):
        load("rows", tmp_path / "t.json")
