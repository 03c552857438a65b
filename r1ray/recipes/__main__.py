"""`python -m r1ray.recipes`: the papers that r1ray reproduces, one of them in full, or the differences of two.

    python -m r1ray.recipes                                    # one line each
    python -m r1ray.recipes dapo_32b                           # sources, numbers, and every key that it sets
    python -m r1ray.recipes --diff dapo_32b r1_zero
    python -m r1ray.recipes mine --config-dir my_recipe/conf   # your own, as for r1ray.main

Keys are shown at full size (scale=cluster); `--scale tiny` shows what a laptop runs. Where the run's number differs from the
paper's, both are shown. Exit code 2: a mistake on the command line or in a file; the table leaves such a file out.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1ray.check import load
from r1ray.check.load import plain_config
from r1ray.cli import compose
from r1ray.mistakes import did_you_mean
from r1ray.recipes import PaperError, Recipe, files, read
from r1ray.recipes.show import difference, in_full, table

NOT_STARTED = "run_dir=runs/not_started"
"""A run directory that does not exist, because the check rejects one that already holds a run."""
WIDTH = 160
"""Characters per line when the output is not a terminal."""


def main(arguments: Sequence[str]) -> int:
    parser = ArgumentParser("r1ray.recipes", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="show this one in full")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="show what differs between two")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own, with recipe/NAME.yaml")
    parser.add_argument("--scale", default="cluster", help="the size at which keys are shown (default: cluster)")
    args = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    parts: Iterable[str | Table] = ()
    mistakes: list[ValueError] = []
    try:
        if args.config_dir and not args.config_dir.is_dir():
            raise PaperError(f"--config-dir: {args.config_dir} is not a folder")
        found = files(args.config_dir)
        if args.name or args.diff:
            parts = _of_runs(args, found)
        else:
            parts = [
                table(_readable(found.values(), mistakes), console.width),
                "python -m r1ray.recipes NAME shows one in full",
            ]
    except ValueError as error:  # of the configuration or of a paper
        mistakes = [error]
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
        console.print()
    for mistake in mistakes:
        print(f"r1ray: {mistake}", file=sys.stderr)
    return 2 if mistakes else 0


def _of_runs(args: Namespace, found: Mapping[str, Path]) -> list[str | Table]:
    """What is printed about one recipe or about two."""
    names: list[str] = args.diff or [args.name]
    for name in names:
        if name not in found:
            where = f" in {args.config_dir / 'recipe'} or in r1ray" if args.config_dir else ""
            raise PaperError(f"there is no recipe {name}{where}; {did_you_mean(name, found)}")
    flags = [f"--config-dir={args.config_dir}"] if args.config_dir else []
    runs = [load(compose([f"recipe={name}", f"scale={args.scale}", NOT_STARTED, *flags])) for name in names]
    if args.diff:
        return difference(*runs, names=names)
    default = plain_config(compose([f"scale={args.scale}", *flags]))
    command = " ".join(["python -m r1ray.main", *flags, f"recipe={args.name}"])
    try:
        parts = list(in_full(read(found[args.name]), runs[0], default, args.scale))
    except ValueError as error:
        raise PaperError(f"{found[args.name]}: {error}") from error
    return [
        *parts,
        f"run it at the default scale:  {command}",
        f"check it at full size:        {command} scale=cluster check=true",
    ]


def _readable(found: Iterable[Path], mistakes: list[ValueError]) -> Iterator[Recipe]:
    """The recipes; the errors of files that cannot be read go to `mistakes`."""
    for file in found:
        try:
            yield read(file)
        except PaperError as error:
            mistakes.append(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
