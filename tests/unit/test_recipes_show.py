"""`python -m r1ray.recipes`: the table, one recipe in full, the differences of two, and the message for an unknown name."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from r1ray.recipes import files, read
from r1ray.recipes.__main__ import main
from r1ray.recipes.show import table

ROOT = Path(__file__).resolve().parents[2]
PAPERS = [recipe for recipe in map(read, files().values()) if recipe.paper.source]
MINE = """# @package _global_
paper:
  title: "Mine: DAPO with a wider clip."
  source: my notes
  base: builtin
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
    """The lines, with repeated spaces collapsed."""
    assert main(arguments) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_table_has_exactly_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys)
    names = {recipe.name for recipe in PAPERS}
    assert lines[0].split() == ["recipe", "algorithm", "base", "published", "result", "data", "reward", "hardware"]
    assert {line.split()[0] for line in lines if line} >= names
    assert not any(line.startswith("builtin_base") for line in lines)
    (dapo,) = [line for line in lines if line.startswith("dapo_32b")]
    assert dapo.startswith("dapo_32b dapo Qwen2.5-32B AIME24 avg@32 50.0 DAPO-Math-17k 1 or -1 for the")
    assert dapo.endswith(" not published")


def test_one_recipe_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "dapo_32b")
    assert "source arXiv 2503.14476 [pdf]; the project's verl script [repo]" in lines
    assert "completions per step 8,192 the paper" in lines
    assert "algo.clip_high 0.28 0.2" in lines
    assert "rollout.max_response_length 20480 384" in lines
    assert "run it at the default scale: python -m r1ray.main recipe=dapo_32b" in lines


def test_recipe_is_shown_at_the_requested_scale(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "dapo_32b", "--scale", "tiny")
    assert "algo.clip_high 0.28 0.2" in lines
    assert not any(line.startswith(("rollout.max_response_length", "model.path")) for line in lines)


def test_differences_start_with_the_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "--diff", "dapo_32b", "r1_zero")
    assert "number dapo_32b r1_zero" in lines and "response tokens 20,480 32,768 @rl, 65,536 @long" in lines
    keys = [line.split()[0] for line in lines[lines.index("key dapo_32b r1_zero") + 1 :] if "." in line.split(" ")[0]]
    assert keys[0] == "algo.name" and "trainer.lr" in keys
    assert keys.index("algo.clip_high") < keys.index("rollout.max_response_length") < keys.index("trainer.lr")
    assert not {"name", "run_dir", "algo.group_size"} & set(keys)


def test_user_recipe_is_shown(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(line.startswith("mine dapo builtin") for line in printed(capsys, "--config-dir", str(own)))
    lines = printed(capsys, "mine", "--config-dir", str(own))
    assert "source my notes" in lines and "algo.clip_high 0.4 0.2" in lines
    assert f"run it at the default scale: python -m r1ray.main --config-dir={own} recipe=mine" in lines
    lines = printed(capsys, "--diff", "dapo_32b", "mine", "--config-dir", str(own))
    assert "clip high 0.28 0.4" in lines


def test_equal_recipes_have_no_differences(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--diff", "r1_zero", "r1_zero") == ["The two recipes are the same.", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dapo32b"], "there is no recipe dapo32b; did you mean dapo_32b?"),
        (["--diff", "dapo_32b", "r1_zer"], "there is no recipe r1_zer; did you mean r1_zero?"),
        (["r1_zero", "--scale", "huge"], "there is no scale/huge.yaml"),
    ],
)
def test_unknown_name_is_reported_with_the_nearest(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r1ray.recipes", "r1_zero"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "10,400" in done.stdout


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (160, ["base", "published result", "data", "reward", "hardware"]),
        (120, ["base", "published result", "data"]),
        (80, ["base", "published result"]),
        (40, []),
    ],
)
def test_recipe_is_one_line_of_the_table_at_any_width(width: int, columns: list[str]) -> None:
    console = Console(width=width, file=StringIO())
    with console.capture() as captured:
        console.print(table(PAPERS, width))
    head, *lines = captured.get().splitlines()
    assert re.split(r"\s{2,}", head.strip()) == ["recipe", "algorithm", *columns]
    assert [line.split()[0] for line in lines] == [recipe.name for recipe in PAPERS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [\n", "; write it as YAML"),
        (
            MINE.replace("base:", "bases:"),
            "broken.yaml: paper.bases: Extra inputs are not permitted; did you mean base?",
        ),
        (MINE.replace("base:", "base\xe9:").encode("latin-1"), "; write it as YAML in UTF-8"),
    ],
)
def test_unreadable_file_does_not_remove_others_from_the_table(
    text: str | bytes, message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "recipe/broken.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["--config-dir", str(own)]) == 2
    captured = capsys.readouterr()
    names = {line.split()[0] for line in captured.out.splitlines() if line.strip()}
    assert {"mine", "dapo_32b"} <= names and "broken" not in names
    assert message in captured.err and "broken.yaml: " in captured.err and len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("defaults", ["defaults: 5", "defaults:\n  - override /algo: [dapo]", "defaults:\n  - 5: x"])
def test_unusual_defaults_do_not_break_the_table(defaults: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe/odd.yaml").write_text(f"# @package _global_\npaper: {{source: my notes}}\n{defaults}\n")
    assert any(line.startswith("odd ") for line in printed(capsys, "--config-dir", str(own)))


NUMBERS = MINE.replace("defaults:", "  numbers:\n    clip high: [0.4, ours]\n    clip low: [0.2, pdf]\ndefaults:", 1)


def test_number_that_differs_is_shown_next_to_the_configured_one(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe/mine.yaml").write_text(NUMBERS)
    lines = printed(capsys, "mine", "--config-dir", str(own))
    assert "number value from at scale=cluster" in lines and "clip low 0.2 the paper" in lines
    (own / "recipe/mine.yaml").write_text(
        NUMBERS.replace("[0.4, ours]", "[0.5, ours]").replace("[0.2, pdf]", "[[0.1, 0.2], pdf]")
    )
    lines = printed(capsys, "mine", "--config-dir", str(own))
    assert any(line.startswith("clip high 0.5") and line.endswith(" 0.4") for line in lines)
    assert "clip low 0.1, 0.2 the paper 0.2" in lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("clip hgih: [0.4, ours]", "'clip hgih' is not a quantity; did you mean clip high? there are: "),
        ("nonsense: [7, ours]", "'nonsense' is not a quantity; there are: KL coefficient, "),
        ("clip high: [0.4, whoknows]", "whoknows is not an origin; write NAME: [VALUE, ORIGIN] "),
        ("clip high: {long: [0.4, ours]}", "clip high of stage long: the stages with reinforcement learning are rl"),
    ],
)
def test_unknown_number_is_refused(line: str, message: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe/mine.yaml").write_text(NUMBERS.replace("clip high: [0.4, ours]", line))
    assert main(["mine", "--config-dir", str(own)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and f"{own}/recipe/mine.yaml: " in captured.err and not captured.out


def test_a_recipe_without_a_paper_is_shown(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe/mine.yaml").write_text("# @package _global_\nname: mine\n")
    assert printed(capsys, "mine", "--config-dir", str(own))[:2] == ["paper", "options"]


def test_learning_rate_of_an_untrained_model_is_not_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "--diff", "builtin_base", "dapo_32b")
    assert "learning rate null 1e-06" in lines
    assert not [line for line in lines if line.startswith(("critic learning", "PRM learning"))]
    lines = printed(capsys, "--diff", "prime_7b", "vapo_32b")
    assert "critic learning rate null 2e-06" in lines and "PRM learning rate 1e-06 null" in lines


def test_missing_config_dir_is_reported(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mine", "--config-dir", str(own / "nope")]) == 2
    assert f"{own / 'nope'} is not a folder" in capsys.readouterr().err
    assert main(["mine", "--config-dir", str(own.parent)]) == 2
    assert f"there is no recipe mine in {own.parent}/recipe or in r1ray" in capsys.readouterr().err


def test_help_shows_the_layout_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    (command,) = [line for line in shown.splitlines() if "r1ray.recipes mine" in line]
    flag = command.partition("  #")[0].partition("mine ")[2].strip()
    assert flag == "--config-dir my_recipe/conf" and flag in (ROOT / "conf/README.md").read_text()
