"""The README's commands, keys and snippets are real."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1ray.cli import check_command_line, compose
from r1ray.recipes.__main__ import main as recipes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SHELL = "".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
COMMANDS = [line.partition("  #")[0].strip() for line in SHELL.splitlines() if "r1ray.main" in line]
RECIPES = [line.partition("  #")[0].strip() for line in SHELL.splitlines() if "r1ray.recipes" in line]
COMMANDS += [f"r1ray.main {overrides}" for overrides in re.findall(r"`bash launch/quickstart.sh ([^`]+)`", README)]
EXAMPLE = ROOT / "tests/fixtures/my_recipe"
TABLE = re.search(r"## Coming from.*?\n\n(\|.*?)\n\n", README, re.DOTALL)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with the files that the README says to create."""
    for name, text in re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", README, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copytree(EXAMPLE, tmp_path / EXAMPLE.name, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_command_passes_the_check(command: str, own_folder: Path) -> None:
    arguments = shlex.split(command.partition("r1ray.main")[2])
    runs = check_command_line(arguments)
    assert len(runs) == (0 if "--cfg" in arguments else 3 if "--multirun" in arguments else 1)


@pytest.mark.parametrize("command", RECIPES)
def test_recipes_are_shown(command: str, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipes(shlex.split(command.partition("r1ray.recipes")[2])) == 0
    assert capsys.readouterr().out


def test_example_of_a_recipe_equals_the_fixture() -> None:
    (text,) = re.findall(r"```yaml\n# my_recipe/conf/recipe/mine.yaml\n(.*?)```", README, re.DOTALL)
    assert text == (EXAMPLE / "conf/recipe/mine.yaml").read_text()
    (rows,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert (EXAMPLE / "problems.jsonl").read_text().startswith(rows)
    questions = [set((EXAMPLE / f"{name}.jsonl").read_text().splitlines()) for name in ("problems", "held_out")]
    assert not questions[0] & questions[1]


def test_own_data_is_evaluated_and_selects_the_best_checkpoint(own_folder: Path) -> None:
    (command,) = [command for command in COMMANDS if "--config-dir mine" in command]
    ((checked,),) = [check_command_line(shlex.split(command.partition("r1ray.main")[2]))]
    trained, evaluated = checked.config.data.train, checked.config.eval.sets
    assert [source.path for source in trained.values()] == [source.path for source in evaluated.values()]
    assert [source.split for source in (*trained.values(), *evaluated.values())] == ["train", "test"]
    assert checked.config.checkpoint.best_metric == f"eval/{next(iter(evaluated))}/accuracy"


def test_mappings_are_merged_and_null_removes_an_entry() -> None:
    source = "{source: gsm8k, path: openai/gsm8k}"
    added = [
        f"data.train={{mine: {source}}}",
        f"eval.sets={{mine: {source}}}",
        "reward.components={mine: {name: format, weight: 1.0}}",
    ]
    removed = re.findall(r"`(\S+=null)`", README)
    assert len(removed) == 3

    def entries(*overrides: str) -> list[list[str]]:
        (checked,) = check_command_line([*overrides, "checkpoint.best_metric=null"])
        cfg = checked.config
        return [list(cfg.data.train), list(cfg.eval.sets), list(cfg.reward.components)]

    assert entries(*added) == [["countdown", "mine"], ["countdown", "mine"], ["accuracy", "format", "mine"]]
    assert entries(*added, *removed) == [["mine"], ["mine"], ["accuracy", "mine"]]


def test_every_key_of_the_table_exists() -> None:
    assert TABLE
    rows = [row.strip("|").split("|") for row in TABLE[1].splitlines()[2:]]
    assert len(rows) > 30 and all(len(row) == 3 for row in rows)
    cfg = compose()
    for row in rows:
        for key in re.findall(r"`([^`]+)`", row[2].partition("(")[0]):
            path = key.partition("=")[0]
            assert OmegaConf.select(cfg, path, default=KeyError) is not KeyError, key


def test_named_files_exist() -> None:
    names = re.findall(r"(?<![\w/])((?:launch|k8s|r1ray|tests|conf|\.ci)/[\w./-]+)", README)
    assert names and not [name for name in names if not (ROOT / name.rstrip("/.")).exists()]
