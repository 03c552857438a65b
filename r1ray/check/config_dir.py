"""Check the files of --config-dir before Hydra reads them: for the most common mistakes its messages are misleading or missing."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from r1ray.check.overrides import NO_CHOICE
from r1ray.config.files import conf_dir, groups_in
from r1ray.mistakes import Mistake, did_you_mean, show
from r1ray.run.directory import mapping_in

PACKAGE = "# @package _global_"


def config_dir_mistakes(config_dir: str | None, overrides: Iterable[str]) -> Iterator[Mistake]:
    """Mistakes in the files of `config_dir` that `recipe=` and `scale=` select, and in the files that those derive from.

    Example: `config_dir_mistakes("my_recipe/conf", ["recipe=mine"])` reads my_recipe/conf/recipe/mine.yaml.
    """
    if config_dir is None:
        return
    folder = Path(config_dir)
    if not folder.is_dir():
        yield Mistake(key="--config-dir", value=config_dir, rule="is not a folder", remedy="check the path")
    files = {file.relative_to(folder): file for file in sorted(folder.glob("**/*.yaml"))}
    ours = {name: conf_dir() / name for name in files}
    if taken := [
        str(name) for name, file in ours.items() if file.is_file() and file.read_bytes() != files[name].read_bytes()
    ]:
        rule = f"r1ray has files of these names, which would be read in place of yours: {', '.join(taken)}"
        remedy = "give yours other names, as in my_NAME.yaml"
        yield Mistake(key="--config-dir", value=config_dir, rule=rule, remedy=remedy)
    for group, _, names in (override.partition("=") for override in overrides):
        for name in names.split(",") if group in NO_CHOICE else ():
            yield from _of_file(folder / group / f"{name}.yaml", ())


def _of_file(file: Path, above: tuple[Path, ...]) -> Iterator[Mistake]:
    """`above`: the files that are derived from it."""
    if not file.is_file():
        return
    if file in above:
        rule = "is derived from itself" + "".join(f", by {other.stem}" for other in above[above.index(file) + 1 :])
        yield Mistake(key=str(file), value=f"- {file.stem}", rule=rule, remedy="remove it from defaults")
        return
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        yield Mistake(key=str(file), value="unreadable", rule=f"is not UTF-8 ({error})", remedy="save it as UTF-8")
        return
    yield from _without_package(file, lines)
    entries: Any = (mapping_in(file) or {}).get("defaults")
    for entry in cast("list[Any]", entries) if isinstance(entries, list) else ():
        yield from _wrong_entry(file, entry)
        if isinstance(entry, str) and "/" not in entry:
            yield from _of_file(file.parent / f"{entry}.yaml", (*above, file))


def _without_package(file: Path, lines: Sequence[str]) -> Iterator[Mistake]:
    """Hydra reads the package from the leading lines of the form `# @...`; without it a file's keys become keys of its group."""
    remedy = f"make this the first line: {PACKAGE}"
    head = next((n for n, line in enumerate(lines) if not re.match(r"\s*#\s*@", line)), len(lines))
    if all(line.lstrip().startswith("#") for line in lines):
        yield Mistake(key=str(file), value="(no keys)", rule="sets nothing", remedy=f"{remedy}; then its keys")
    elif not any(re.fullmatch(r"\s*#\s*@package\s+_global_\s*", line) for line in lines[:head]):
        rule = f"{PACKAGE} is not its first line, so all its keys would be keys of {file.parent.name}"
        yield Mistake(key=str(file), value=lines[0], rule=rule, remedy=remedy)


def _wrong_entry(file: Path, entry: Any) -> Iterator[Mistake]:
    """An entry of `defaults` like `algo: dapo`, `/algo: dapo`, `override algo: dapo` or `override /algo`."""
    pairs = list(cast("dict[Any, Any]", entry).items()) if isinstance(entry, dict) else [(entry, None)]
    groups = groups_in(conf_dir())
    for key, option in pairs:
        override, _, name = str(key).strip().rpartition(" ")
        name = name.removeprefix("/")
        if (not override and option is None) or re.search(r"[@/]", name):
            continue  # a file of the same group; Hydra's own messages about nested groups and packages are clear
        if f"{key}" == f"override /{name}" and option and name in groups:
            continue
        value = f"- {key}: {show(option)}" if option is not None else f"- {key}"
        if name in groups:
            rule = f"to select an option of another group, write override /{name} and the name of a file in conf/{name}"
            remedy = f"- override /{name}: {show(option) if option is not None else 'NAME'}"
            yield Mistake(key=str(file), value=value, rule=rule, remedy=remedy)
        elif override:
            remedy = did_you_mean(name, groups, prefix="- override /")
            yield Mistake(key=str(file), value=value, rule=f"there is no group {name} to override", remedy=remedy)
