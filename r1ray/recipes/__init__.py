"""Recipes: published training runs, reproduced with `recipe=NAME` at the size that `scale` selects.

A recipe is conf/recipe/NAME.yaml: overrides, and a mapping `paper` with the sources and numbers of the publication
(`r1ray.recipes.paper`). A recipe without `paper` reproduces no publication (builtin_base) and is not in the table. A test compares
each of the paper's numbers with the composed configuration (`r1ray.recipes.quantities`).

    python -m r1ray.recipes                       # all papers, one line each
    python -m r1ray.recipes dapo_32b              # one: sources, numbers, overrides
    python -m r1ray.recipes --diff dapo_32b gpg_7b
"""

from pathlib import Path

from r1ray.config.files import conf_dir
from r1ray.recipes.paper import Paper, PaperError, Recipe, read

__all__ = ["Paper", "PaperError", "Recipe", "files", "read"]


def files(own: Path | None = None) -> dict[str, Path]:
    """{recipe: its file} of r1ray and of the folder `own` (--config-dir), whose names must differ from r1ray's."""
    folders = [conf_dir(), *([own] if own else [])]
    return {file.stem: file for folder in folders for file in sorted((folder / "recipe").glob("*.yaml"))}
