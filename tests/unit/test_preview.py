"""The first prompt of each dataset, which `check=true` prints."""

import json
import shlex
from pathlib import Path

import pytest

from r1ray.cli import check_command_line
from r1ray.config.files import conf_dir
from r1ray.preview import prompt_preview


def shown(*overrides: str) -> list[str]:
    (run,) = check_command_line(["name=preview", *overrides])
    return prompt_preview(run).splitlines()[2:]


def test_the_first_prompt_of_each_set_is_shown_as_the_model_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": None, "answer": 1}, {"prompt": f"{'12 + ' * 400}\x1b[2K1?", "answer": 1}]
    rows.append({"prompt": "1 + 1?", "answer": 2})
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = "data.train={countdown: null, long: {source: rows, path: long.jsonl}, far: {source: gsm8k, path: org/far}}"
    long, start, question, cut, end, assistant, far, countdown, *prompt = shown(own)
    assert long.startswith("    data.train.long: 8") and long.endswith("too long: data.overlong_prompt=drop")
    assert start.startswith("      | A conversation between User and Assistant.")
    assert question.startswith("      | User: 12 + 12") and cut.endswith(" characters ...]")
    assert end.endswith("[U+001B][2K1?"), "control characters are shown and have no effect"
    assert (assistant, far) == ("      | Assistant:", "    data.train.far: not checked: org/far is on the hub")
    assert countdown.startswith("    eval.sets.countdown: 1") and countdown.endswith(" of at most 64 tokens")
    assert prompt[-1] == "      | Assistant:"


def sft_example() -> list[str]:
    """The overrides of the command in conf/stages/sft.yaml."""
    lines = [line.removeprefix("#") for line in (conf_dir() / "stages/sft.yaml").read_text().splitlines()[1:3]]
    return shlex.split(" ".join(lines).partition("name=sft ")[2])


def test_an_sft_example_has_its_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its end: without EOS in the examples the model would not stop. A model without a tokenizer here is said."""
    monkeypatch.chdir(tmp_path)
    head, *text = shown(*sft_example())
    assert head.startswith("    data.train.traces: ") and head.endswith(" of at most 1024 tokens")
    assert any("<think>" in line for line in text) and text[-1].endswith("<|im_end|>")
    (note, _) = shown("model.path=org/far", "eval.sets.countdown.limit=3")
    assert note == "    data.train.countdown: not checked: the tokenizer of org/far is not on this disk"
