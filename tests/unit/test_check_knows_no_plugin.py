"""The check treats all plug-ins alike: no plug-in's name occurs in its code."""

import ast
from pathlib import Path

import pytest

from r1ray.algo import ALGORITHMS
from r1ray.data.curriculum import CURRICULA
from r1ray.data.sources import SOURCES
from r1ray.reward import REWARDS
from r1ray.reward.accuracy import VERIFIERS
from r1ray.stage_kinds import KINDS

CHECK = Path(__file__).resolve().parents[2] / "r1ray" / "check"
NAMES = {*ALGORITHMS, *CURRICULA, *SOURCES, *REWARDS, *VERIFIERS, *KINDS}
EXTRA_COLUMNS = {"eval", "sft", "judge", "none", "rows"}
"""Names of plug-ins that are also sections of the configuration, a template and a scale (none), and a count (rows)."""


def constants(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("file", sorted(CHECK.glob("*.py")), ids=lambda file: file.name)
def test_no_plugins_name_occurs(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert sorted(constants(tree) & (NAMES - EXTRA_COLUMNS)) == []


def test_arguments_are_not_found_by_reflection() -> None:
    for file in sorted(CHECK.glob("*.py")):
        assert "inspect" not in file.read_text(), file.name
