"""The papers that r1ray retells: `recipe=NAME` is one, with the paper's numbers, at the size that `scale` says.

A recipe is conf/recipe/NAME.yaml, overrides only, under a header that says where they come from (`r1ray.recipes.header`). A file
whose header names no `source` is no paper, only a way to run something (builtin_base), and stays out of the table. The numbers in
a header are in the paper's units, and a test reads each back from the composed configuration (`r1ray.recipes.units`).

    python -m r1ray.recipes                       # all of them, a line each
    python -m r1ray.recipes dapo_32b              # one: sources, numbers, overrides
    python -m r1ray.recipes --diff dapo_32b gpg_7b
"""

from collections.abc import Iterable
from pathlib import Path

from r1ray.config.files import conf_dir
from r1ray.recipes.header import Recipe, parse

__all__ = ["Recipe", "files", "papers", "parse"]


def files(own: Path | None = None) -> dict[str, Path]:
    """{name: its file}, r1ray's and those of a folder of one's own (--config-dir), whose names have to be others."""
    folders = [conf_dir(), *([own] if own else [])]
    return {file.stem: file for folder in folders for file in sorted((folder / "recipe").glob("*.yaml"))}


def papers(found: Iterable[Path]) -> list[Recipe]:
    """Those that have a source.

    Raises:
        HeaderError: one cannot be read.
    """
    return [recipe for recipe in map(parse, found) if "source" in recipe.fields]
