"""Files of one's own, before Hydra reads them: Hydra's words for the commonest mistakes in them mislead, or it says none."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from r1ray.check.directory import mapping_in
from r1ray.check.mistakes import Mistake, did_you_mean, show
from r1ray.check.overrides import NO_CHOICE, conf_dir, groups_in

PACKAGE = "# @package _global_"


def names_taken(arguments: Sequence[str]) -> Iterator[Mistake]:
    """Files of --config-dir that are called like one of conf/, which Hydra would take in their place."""
    folder = _config_dir(arguments)
    for file in sorted(folder.glob("**/*.yaml")) if folder else ():
        name = file.relative_to(cast(Path, folder))
        if (conf_dir() / name).is_file():
            rule = f"r1ray has a {name} too, and its own would be taken"
            remedy = f"give the file another name: {name.with_name(f'my_{name.name}')}"
            yield Mistake(key="--config-dir", value=str(file), rule=rule, remedy=remedy)


def own_recipes(arguments: Sequence[str]) -> Iterator[Mistake]:
    """Mistakes of the files that `recipe=` and `scale=` choose from the folder --config-dir, and of those that they begin with.

    Example: `own_recipes(["--config-dir", "my_recipe/conf", "recipe=mine"])` reads my_recipe/conf/recipe/mine.yaml.
    """
    folder = _config_dir(arguments)
    chosen = [argument.partition("=") for argument in arguments if argument.partition("=")[0] in NO_CHOICE]
    files = (
        [folder / group / f"{name}.yaml" for group, _, names in chosen for name in names.split(",")] if folder else []
    )
    seen: set[Path] = set()
    while files:
        file = files.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        entries: Any = (mapping_in(file) or {}).get("defaults")
        entries = cast("list[Any]", entries) if isinstance(entries, list) else []
        files += [file.parent / f"{entry}.yaml" for entry in entries if isinstance(entry, str) and "/" not in entry]
        yield from _without_package(file)
        for entry in entries:
            yield from _wrong_entry(file, entry)


def _config_dir(arguments: Sequence[str]) -> Path | None:
    for flag, following in pairwise([*arguments, ""]):
        name, given, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return Path(value if given else following)
    return None


def _without_package(file: Path) -> Iterator[Mistake]:
    """Hydra looks for it in the lines before the first that is not of the form `# @...`."""
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    for line in lines:
        if re.fullmatch(r"\s*#+\s*@package\s+_global_\s*", line):
            return
        if not re.match(r"\s*#\s*@", line):
            break
    rule = f"{PACKAGE} is not its first line, so that all it sets would be keys of {file.parent.name}"
    begins = lines[0] if lines else "(nothing)"
    yield Mistake(key=str(file), value=begins, rule=rule, remedy=f"make this the first line: {PACKAGE}")


def _wrong_entry(file: Path, entry: Any) -> Iterator[Mistake]:
    """One of `defaults`: `algo: dapo`, `/algo: dapo`, `override algo: dapo` and `override /algo` are meant for another."""
    pairs = list(cast("dict[Any, Any]", entry).items()) if isinstance(entry, dict) else [(entry, None)]
    for key, option in pairs:
        words = str(key).split()
        name = words[-1].removeprefix("/") if words else ""
        groups = groups_in(conf_dir())
        overrides = words[:1] == ["override"] and not re.search(r"@|^hydra/", name)
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
