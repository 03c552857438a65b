"""The commands, keys, snippets and links of the README and of the pages that it links are real."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from r1ray import grade
from r1ray.cli import check_command_line, compose
from r1ray.config import SourceConfig
from r1ray.config.run import best_metric
from r1ray.data.graded import read_graded
from r1ray.data.sources import load_source
from r1ray.recipes.__main__ import main as recipes

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("", "conf", "r1ray/data", "r1ray/reward", "r1ray/algo", "launch", "k8s")
PAGES = {folder: (ROOT / folder / "README.md").read_text() for folder in FOLDERS}
TEXT = "\n".join(PAGES.values())
SHELL = "".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL))
LINES = [line.partition("  #")[0].strip() for line in SHELL.splitlines()]
COMMANDS = [line for line in LINES if "r1ray.main" in line]
COMMANDS += ["r1ray.main " + line.partition(" -- ")[2] for line in LINES if "launch/submit.py" in line]
RECIPES = [line for line in LINES if "r1ray.recipes" in line]
GRADES = [line for line in LINES if "r1ray.grade" in line]
OTHERS = {
    "bash launch/": "continuous integration and tests/e2e/test_demonstration.py",
    "python -m r1ray.compare": "tests/unit/test_compare.py",
    "cp -r tests/fixtures/my_recipe": "tests/e2e/test_own_recipe.py",
    "ray job submit": "tests/e2e/test_submit.py",
    "RAY_JOB_STOP_WAIT_TIME_S=100 ray start": "tests/e2e/test_submit.py",
    "export RAY_AUTH_MODE": "tests/e2e/test_submit.py",
    "(umask 077 && ray get-auth-token": "tests/e2e/test_submit.py",
    "docker build": "not run here: needs Docker",
    "kubectl": "not run here: needs Kubernetes; tests/unit/test_k8s.py checks the files by KubeRay's schemas",
}
"""Commands that other tests run, by how they begin."""
COMMANDS += [f"r1ray.main {overrides}" for overrides in re.findall(r"`bash launch/quickstart.sh ([^`]+)`", TEXT)]
EXAMPLE = ROOT / "tests/fixtures/my_recipe"
TABLE = re.search(r"## Coming from.*?\n\n(\|.*?)\n\n", TEXT, re.DOTALL)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with the files that the pages say to create."""
    for name, text in re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", TEXT, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copytree(EXAMPLE, tmp_path / EXAMPLE.name, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_command_passes_the_check(command: str, own_folder: Path) -> None:
    arguments = shlex.split(command.partition("r1ray.main")[2])
    runs = check_command_line(arguments)
    assert len(runs) == (0 if "--cfg" in arguments else 3 if "--multirun" in arguments else 1)


@pytest.mark.parametrize("command", RECIPES)
def test_recipes_are_shown(command: str, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipes(shlex.split(command.partition("r1ray.recipes")[2])) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", GRADES)
def test_completions_would_be_scored(command: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(command.partition("r1ray.grade")[2])
    Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments[0]).touch()
    monkeypatch.setattr(grade, "_grade", lambda *args, **kwargs: 0)
    assert grade.main(arguments) == 0


def test_other_commands_are_run_elsewhere() -> None:
    others = [line for line in LINES if line and not re.search(r"r1ray\.(main|recipes|grade)|launch/submit\.py", line)]
    assert not [line for line in others if not line.startswith(tuple(OTHERS))]


def test_example_of_a_recipe_equals_the_fixture() -> None:
    (text,) = re.findall(r"```yaml\n# my_recipe/conf/recipe/mine.yaml\n(.*?)```", TEXT, re.DOTALL)
    assert text == (EXAMPLE / "conf/recipe/mine.yaml").read_text()
    (rows,) = re.findall(r"```json\n(.*?)```", PAGES["conf"], re.DOTALL)
    assert (EXAMPLE / "problems.jsonl").read_text().startswith(rows)
    questions = [set((EXAMPLE / f"{name}.jsonl").read_text().splitlines()) for name in ("problems", "held_out")]
    assert not questions[0] & questions[1]


def test_rows_to_score_are_read(own_folder: Path) -> None:
    (rows,) = re.findall(r"```json\n(.*?)```", PAGES["r1ray/reward"], re.DOTALL)
    (own_folder / "rows.jsonl").write_text(rows)
    read = read_graded(own_folder / "rows.jsonl", tokenise=lambda text: np.zeros(0, np.int32))
    assert [row.id for group in read if isinstance(group, list) for row in group] == ["a", "b"]


def test_columns_are_mapped_and_others_are_passed_on(own_folder: Path) -> None:
    (row,) = re.findall(r"path: textbook.jsonl +# (.*)", TEXT)
    (own_folder / "textbook.jsonl").write_text(row)
    (source,) = OmegaConf.to_container(OmegaConf.load(own_folder / "mine/data/textbook.yaml"))["train"].values()
    (item,) = load_source("textbook", SourceConfig(**source)).items
    assert (item.payload["answers"], item.meta["chapter"]) == (["42"], 3)


def test_own_data_is_evaluated_and_selects_the_best_checkpoint(own_folder: Path) -> None:
    (command,) = [command for command in COMMANDS if "--config-dir mine" in command]
    ((checked,),) = [check_command_line(shlex.split(command.partition("r1ray.main")[2]))]
    trained, evaluated = checked.config.data.train, checked.config.eval.sets
    assert [source.path for source in trained.values()] == [source.path for source in evaluated.values()]
    assert [source.split for source in (*trained.values(), *evaluated.values())] == ["train", "test"]
    assert best_metric(checked.config) == f"eval/{next(iter(evaluated))}/accuracy"


def test_mappings_are_merged_and_null_removes_an_entry() -> None:
    source = "{source: gsm8k, path: openai/gsm8k}"
    added = [
        f"data.train={{mine: {source}}}",
        f"eval.sets={{mine: {source}}}".replace("gsm8k}", "gsm8k, split: test}"),
        "reward.components={mine: {name: format, weight: 1.0}}",
    ]
    removed = re.findall(r"`(\S+=null)`", TEXT)
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
    names = re.findall(r"(?<![\w/])((?:launch|k8s|r1ray|tests|conf|\.ci)/[\w./-]+)", TEXT)
    assert names and not [name for name in names if not (ROOT / name.rstrip("/.")).exists()]


def headings(page: str) -> list[str]:
    return re.findall(r"^## (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_readme_is_short_and_other_pages_begin_with_their_contents() -> None:
    assert len(PAGES[""].splitlines()) < 200
    for folder in FOLDERS[1:]:
        listed = re.findall(r"^- \[(.+)\]\((#.+)\)$", PAGES[folder], re.MULTILINE)
        assert listed == [(heading, f"#{anchor(heading)}") for heading in headings(PAGES[folder])], folder


def test_links_lead_to_files_and_headings() -> None:
    links = [(folder, link) for folder in FOLDERS for link in re.findall(r"\]\(([^)]+)\)", PAGES[folder])]
    assert len(links) > 30
    for folder, link in links:
        path, _, heading = link.partition("#")
        target = (ROOT / folder / path) if path else ROOT / folder / "README.md"
        assert target.exists(), (folder, link)
        assert not heading or heading in map(anchor, headings(target.read_text())), (folder, link)
