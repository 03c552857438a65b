"""`python -m r1ray.recipes`: the papers that r1ray retells, one of them in full, or what differs between two.

    python -m r1ray.recipes                                    # a line each
    python -m r1ray.recipes dapo_32b                           # sources, numbers, and every key that it sets
    python -m r1ray.recipes --diff dapo_32b r1_zero
    python -m r1ray.recipes mine --config-dir my_recipe/conf   # of your own, as for r1ray.main

Keys are shown at full size (scale=cluster); `--scale tiny` shows what a laptop runs. Beside a number of the header stands what the
run does, where that is another. Exit code 2: a mistake in the command line, or in a file, which the table does without.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from r1ray.check import CheckedRun, ConfigError, load
from r1ray.check.schema import without_removed
from r1ray.cli import compose
from r1ray.mistakes import did_you_mean
from r1ray.recipes import files, papers, parse
from r1ray.recipes.header import HeaderError, Recipe
from r1ray.recipes.show import difference, in_full, table

NOT_STARTED = "run_dir=runs/not_started"
"""Whether a run of this name is there already does not matter here."""
WIDTH = 160
"""Of what is not a terminal."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="r1ray.recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="show this one in full")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="show what differs between two")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own, with recipe/NAME.yaml")
    parser.add_argument("--scale", default="cluster", help="at which size keys are shown (default: cluster)")
    args = parser.parse_args(arguments)
    mistakes: list[HeaderError] = []
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        if args.config_dir and not args.config_dir.is_dir():
            raise HeaderError(f"--config-dir: {args.config_dir} is not a folder")
        there = files(args.config_dir)
        flags = [f"--config-dir={args.config_dir}"] if args.config_dir else []
        wanted: list[str] = args.diff or ([args.name] if args.name else [])
        for name in wanted:
            if name not in there:
                where = f" in {args.config_dir / 'recipe'} nor among r1ray's" if args.config_dir else ""
                raise HeaderError(f"there is no recipe {name}{where}; {did_you_mean(name, there)}")
        runs = [_composed([f"recipe={name}", f"scale={args.scale}", NOT_STARTED, *flags]) for name in wanted]
        if args.diff:
            parts = difference(*runs, names=wanted)
        elif args.name:
            parts = in_full(parse(there[args.name]), runs[0], _default(args.scale, flags), args.scale)
            parts += [f"here  python -m r1ray.main {' '.join([*flags, f'recipe={args.name}'])}"]
            parts += [
                f"full  python -m r1ray.main {' '.join([*flags, f'recipe={args.name}'])} scale=cluster check=true"
            ]
        else:
            readable, mistakes = _readable(there.values())
            parts = [table(readable, console.width), "python -m r1ray.recipes NAME shows one in full"]
    except (ConfigError, HeaderError) as error:
        print(f"r1ray: {error}", file=sys.stderr)
        return 2
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
        console.print()
    for mistake in mistakes:
        print(f"r1ray: {mistake}", file=sys.stderr)
    return 2 if mistakes else 0


def _readable(found: Iterable[Path]) -> tuple[list[Recipe], list[HeaderError]]:
    """The papers among these files, and what is wrong with those that cannot be read."""
    recipes: list[Recipe] = []
    mistakes: list[HeaderError] = []
    for file in found:
        try:
            recipes += papers([file])
        except HeaderError as error:
            mistakes.append(error)
    return recipes, mistakes


def _composed(overrides: Sequence[str]) -> CheckedRun:
    return load(compose(overrides))


def _default(scale: str, flags: Sequence[str]) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(compose([f"scale={scale}", *flags]), resolve=True)
    return without_removed(values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
