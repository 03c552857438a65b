"""Import rules: pure code stays pure, and importing r1ray loads nothing heavy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from r1ray.actors.start import WORKERS

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "r1ray").rglob("*.py"))

# package: the places (path prefixes below r1ray/) that may import it; no other place may.
ONLY = {
    "vllm": ("engine/vllm", "sync/"),
    "deepspeed": ("model/deepspeed.py",),
    "ray": ("actors/",),
    "wandb": ("run/loggers.py",),
}
WITHIN = {
    "sandbox": {"sandbox"},
    "data": {"config", "data", "mistakes", "plugin", "plugin_errors", "reward", "sandbox", "types"},
}
"""{folder: the packages of r1ray that its modules may import}."""
PURE = ("types.py", "config", "check", "algo", "data", "reward")
NEVER_IN_PURE = {"ray", "vllm", "deepspeed", "wandb"}
TORCHLESS = ("types.py", "config", "check", "data", "reward", "recipes", "cli.py", "plugin.py", "mistakes.py")
"""`algo` may import torch, the others may not."""


def imports(path: Path, *, at_import: bool = False, for_types: bool = True) -> Iterator[str]:
    """Modules that a module imports; `at_import`: only those loaded on import; `for_types`: also those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if (at_import and (lazy or typing_only)) or (typing_only and not for_types):
            skipped |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path, *, at_import: bool = False) -> set[str]:
    """Top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imports(path, at_import=at_import)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "r1ray").as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_imports_only_allowed_packages(path: Path) -> None:
    name, found = name_of(path), packages(path)
    for package, places in ONLY.items():
        assert package not in found or name.startswith(places), f"{name} imports {package}, which belongs to {places}"
    if allowed := WITHIN.get(name.partition("/")[0]):
        assert {module.split(".")[1] for module in imports(path) if module.startswith("r1ray.")} <= set(allowed)
    if name.startswith(PURE):
        assert not found & NEVER_IN_PURE
    if name.startswith(TORCHLESS):
        assert not found & {"torch"}
        assert not packages(path, at_import=True) & {"transformers", "datasets"}
    if name.startswith("algo/"):
        assert "torch" not in packages(path, at_import=True), "the check reads the signatures of algorithms"


def test_modules_without_ray_are_not_in_actors() -> None:
    """Each one imports Ray, works with an `ActorGroup`, or is the class of a role, which `spawn` makes an actor."""
    roles = {path.partition(":")[0] for path in WORKERS.values()}
    for path in MODULES:
        module = "r1ray." + name_of(path).removesuffix(".py").replace("/", ".")
        if module.startswith("r1ray.actors.") and path.name != "__init__.py" and module not in roles:
            assert "ray" in packages(path) or "r1ray.actors.group.ActorGroup" in set(imports(path)), module


def test_no_import_cycles_between_packages() -> None:
    """A package is a folder or a file directly below r1ray/."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        package = name_of(path).removesuffix(".py").partition("/")[0]
        imported = {name.split(".")[1] for name in imports(path, for_types=False) if name.startswith("r1ray.")}
        graph.setdefault(package, set()).update(imported - {package})
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the packages


def loaded_by(statement: str) -> set[str]:
    """Heavy packages in a fresh interpreter after `statement`."""
    heavy = "{'torch', 'transformers', 'ray', 'vllm', 'deepspeed', 'datasets', 'wandb', 'tensorboard'}"
    code = f"import sys; {statement}; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import r1ray", "import r1ray.config, r1ray.types", "import r1ray.cli, r1ray.recipes.__main__, r1ray.run.report"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_driver_starts_actors_before_its_heavy_imports() -> None:
    """The first step waits for everything that the driver imports before the engines start."""
    workers = [path.partition(":")[0] for path in WORKERS.values()]
    assert loaded_by(f"import r1ray.stages.pipeline, r1ray.stages.rl, {', '.join(workers)}") == {"ray", "torch"}
