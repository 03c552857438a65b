"""Files of one's own, before Hydra reads them: Hydra's words for the commonest mistakes in them mislead, or it says none."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from r1ray.check.overrides import NO_CHOICE
from r1ray.config.files import conf_dir, groups_in
from r1ray.mistakes import Mistake, did_you_mean, show
from r1ray.run.directory import mapping_in

PACKAGE = "# @package _global_"


def names_taken(arguments: Sequence[str]) -> Iterator[Mistake]:
    """Files of --config-dir that are called like one of conf/ and say something else: Hydra would read that of conf/."""
    folder = _config_dir(arguments)
    if folder is None:
        return
    files = {file: conf_dir() / file.relative_to(folder) for file in sorted(folder.glob("**/*.yaml"))}
    taken = [file for file, ours in files.items() if ours.is_file() and ours.read_bytes() != file.read_bytes()]
    if taken:
        names = ", ".join(str(file.relative_to(folder)) for file in taken)
        rule = f"r1ray has files of these names, which would be read in place of yours: {names}"
        remedy = "give yours other names, as in my_NAME.yaml"
        yield Mistake(key="--config-dir", value=str(folder), rule=rule, remedy=remedy)


def own_recipes(arguments: Sequence[str]) -> Iterator[Mistake]:
    """Mistakes of the files that `recipe=` and `scale=` choose from the folder --config-dir, and of those that they begin with.

    Example: `own_recipes(["--config-dir", "my_recipe/conf", "recipe=mine"])` reads my_recipe/conf/recipe/mine.yaml.
    """
    folder = _config_dir(arguments)
    chosen = [argument.partition("=") for argument in arguments if argument.partition("=")[0] in NO_CHOICE]
    for group, _, names in chosen if folder else ():
        for name in names.split(","):
            yield from _of_file(cast(Path, folder) / group / f"{name}.yaml", cast(Path, folder), ())


def _of_file(file: Path, folder: Path, above: tuple[Path, ...]) -> Iterator[Mistake]:
    """`above`: the files that begin with it."""
    if not file.is_file():
        return
    if file in above:
        rule = "is derived from itself" + "".join(f", by {other.stem}" for other in above[above.index(file) + 1 :])
        yield Mistake(key=str(file), value=f"- {file.stem}", rule=rule, remedy="take it out of defaults")
        return
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        yield Mistake(key=str(file), value="unreadable", rule=f"is not UTF-8 ({error})", remedy="save it as UTF-8")
        return
    entries: Any = (mapping_in(file) or {}).get("defaults")
    entries = cast("list[Any]", entries) if isinstance(entries, list) else []
    yield from _without_package(file, lines, ".".join(file.relative_to(folder).parts[:-1]))
    for entry in entries:
        yield from _wrong_entry(file, entry)
        if isinstance(entry, str) and "/" not in entry:
            yield from _of_file(file.parent / f"{entry}.yaml", folder, (*above, file))


def _config_dir(arguments: Sequence[str]) -> Path | None:
    for flag, following in pairwise([*arguments, ""]):
        name, given, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return Path(value if given else following)
    return None


def _without_package(file: Path, lines: Sequence[str], package: str) -> Iterator[Mistake]:
    """Hydra looks for it in the lines before the first that is not of the form `# @...`; without it keys are those of `package`."""
    remedy = f"make this the first line: {PACKAGE}"
    if all(line.lstrip().startswith("#") for line in lines):
        yield Mistake(key=str(file), value="(no keys)", rule="sets nothing", remedy=f"{remedy}; then its keys")
        return
    for line in lines:
        if re.fullmatch(r"\s*#\s*@package\s+_global_\s*", line):
            return
        if not re.match(r"\s*#\s*@", line):
            break
    rule = f"{PACKAGE} does not stand above all else, so that all it sets would be keys of {package}"
    yield Mistake(key=str(file), value=lines[0], rule=rule, remedy=remedy)


def _wrong_entry(file: Path, entry: Any) -> Iterator[Mistake]:
    """One of `defaults`: `algo: dapo`, `/algo: dapo`, `override algo: dapo` and `override /algo` are meant for another."""
    pairs = list(cast("dict[Any, Any]", entry).items()) if isinstance(entry, dict) else [(entry, None)]
    for key, option in pairs:
        words = str(key).split()
        name = words[-1].removeprefix("/") if words else ""
        groups = groups_in(conf_dir())
        # Of groups in groups, and of others' packages, Hydra speaks itself.
        overrides = words[:1] == ["override"] and not re.search(r"[@/]", name)
        if (not overrides and option is None) or (words == ["override", f"/{name}"] and option and name in groups):
            continue
        value = f"- {key}: {show(option)}" if option is not None else f"- {key}"
        if name in groups and (overrides or len(words) == 1):
            rule = f"what a recipe chooses of a group is told with override, / and a name of a file in conf/{name}"
            remedy = f"- override /{name}: {show(option) if option is not None else 'NAME'}"
            yield Mistake(key=str(file), value=value, rule=rule, remedy=remedy)
        elif overrides:
            remedy = did_you_mean(name, groups, prefix="- override /")
            yield Mistake(key=str(file), value=value, rule=f"there is no group {name} to override", remedy=remedy)
