"""`python -m r1ray.recipes`: the table, one recipe in full, two beside each other, and what a wrong name gets."""

import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.recipes import files, papers
from r1ray.recipes.__main__ import main
from r1ray.recipes.header import HeaderError

ROOT = Path(__file__).resolve().parents[2]
MINE = """# @package _global_
# Mine: DAPO with a wider clip.
# source: my notes
# base: builtin
defaults:
  - override /algo: dapo

name: mine
algo: {clip_high: 0.4}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text(MINE)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines, blanks made one."""
    assert main(arguments) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_table_has_every_paper_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys)
    names = {recipe.name for recipe in papers(files().values())}
    assert lines[0].split() == ["recipe", "algorithm", "base", "data", "reward", "published", "result", "hardware"]
    assert {line.split()[0] for line in lines if line} >= names
    assert not any(line.startswith("builtin_base") for line in lines)
    (dapo,) = [line for line in lines if line.startswith("dapo_32b")]
    assert dapo.startswith("dapo_32b dapo Qwen/Qwen2.5-32B") and "AIME24 avg@32 50.0" in dapo


def test_one_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "dapo_32b")
    assert "source arXiv 2503.14476 [pdf]; the project's verl script [repo]" in lines
    assert "replies a pass 8,192 the paper" in lines
    assert "algo.clip_high 0.28 0.2" in lines
    assert "rollout.max_response_length 20480 384" in lines
    assert "here python -m r1ray.main recipe=dapo_32b" in lines


def test_at_the_size_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "dapo_32b", "--scale", "tiny")
    assert "algo.clip_high 0.28 0.2" in lines
    assert not any(line.startswith(("rollout.max_response_length", "model.path")) for line in lines)


def test_two_beside_each_other_algorithm_first(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "--diff", "dapo_32b", "r1_zero")
    assert "number dapo_32b r1_zero" in lines and "response tokens 20,480 32,768 @rl, 65,536 @long" in lines
    keys = [line.split()[0] for line in lines[lines.index("key dapo_32b r1_zero") + 1 :] if "." in line.split(" ")[0]]
    assert keys[0] == "algo.name" and "trainer.lr" in keys
    assert keys.index("algo.clip_high") < keys.index("trainer.lr") < keys.index("rollout.max_response_length")
    assert not {"name", "run_dir", "algo.group_size"} & set(keys)


def test_ones_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(line.startswith("mine dapo builtin") for line in printed(capsys, "--config-dir", str(own)))
    lines = printed(capsys, "mine", "--config-dir", str(own))
    assert "source my notes" in lines and "algo.clip_high 0.4 0.2" in lines
    assert f"here python -m r1ray.main --config-dir={own} recipe=mine" in lines
    lines = printed(capsys, "--diff", "dapo_32b", "mine", "--config-dir", str(own))
    assert "clip high 0.28 0.4" in lines


def test_the_same_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--diff", "r1_zero", "r1_zero") == ["They do the same.", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dapo32b"], "there is no recipe dapo32b; did you mean dapo_32b?"),
        (["--diff", "dapo_32b", "r1_zer"], "there is no recipe r1_zer; did you mean r1_zero?"),
        (["r1_zero", "--scale", "huge"], "there is no scale/huge.yaml"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_a_header_that_cannot_be_read_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe/mine.yaml").write_text(MINE.replace("base:", "bases:"))
    assert main(["--config-dir", str(own)]) == 2
    assert "mine.yaml:4: bases: is no field" in capsys.readouterr().err
    with pytest.raises(HeaderError):
        papers(files(own).values())


def test_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r1ray.recipes", "r1_zero"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "10,400" in done.stdout
