"""Overrides of the command line: convert them to Hydra's form, turn Hydra's errors into mistakes, and note replaced values."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from r1ray.config.files import conf_dir, groups_in
from r1ray.config.tree import has, merge, value_of
from r1ray.mistakes import NOT_CHECKED, REPLACED, SCALED, Mistake, did_you_mean, show
from r1ray.model.files import local_folder

OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
NO_CHOICE = {"recipe": "~recipe", "scale": "scale=none", "builtin_substitute": "builtin_substitute=none"}
"""{config group whose files only override other groups: the override that selects none of them}."""
DATASETS = {"data": "data.train", "eval": "eval.sets"}
"""{group of datasets: their key}."""
QUOTING = """no blanks around =, lists as [1,2], and quotes around other special characters: 'key="a, b"'"""


def with_prefix(override: str) -> str:
    """The override that Hydra gets: `++` sets a value whether or not its key exists; a group is selected with or without `+`.

    Example: `with_prefix("trainer.lr=1")` is `"++trainer.lr=1"`, `with_prefix("+algo=grpo")` is `"algo=grpo"`.
    """
    if override == "~scale":  # conf/config.yaml selects hardware by the name of the scale, so it needs one
        return "scale=none"
    found = OVERRIDE.fullmatch(override)
    if found is None or found["key"].startswith("hydra."):
        return override
    plain = f"{found['key']}={found['value']}"
    return plain if is_choice(plain) else f"++{plain}"


def is_choice(override: str) -> bool:
    """Whether it selects a file of a group, as `algo=dapo` does and `algo.kl_coef=0` does not."""
    key, _, value = override.partition("=")
    return key in groups_in(conf_dir()) and not value.startswith("{")


def without_prefix(override: str) -> str:
    """The override as the user typed it: undoes `with_prefix`."""
    return override.removeprefix("++")


def values_replaced_by_scale(
    raw: Mapping[str, Any], overrides: Iterable[str], choices: Mapping[str, str], folders: Sequence[Path]
) -> Iterator[str]:
    """A note when scale, hardware or builtin_substitute, which are composed after the recipe, replace its numbers.

    The recipe's numbers are those of its file and, for keys missing there, of its algorithm's file. `folders`: those that Hydra
    searched, conf/ and the user's.
    """
    recipe = _content("recipe", choices.get("recipe"), folders)
    if not recipe or choices.get("scale") == "none":
        return
    numbers = merge({"algo": _content("algo", choices.get("algo"), folders)}, recipe)
    typed = [override.partition("=")[0] for override in overrides]
    given = [override.partition("=")[0] for override in overrides if not is_choice(override)]
    stages = cast("dict[str, dict[str, Any]]", raw.get("stages") or {}).values()
    model, chosen = choices.get("model"), _selected("recipe", choices["recipe"], "model", folders)
    replaced = [f"model={model} (recipe: {chosen})"] if chosen not in (None, model) and "model" not in typed else []
    listed = ", ".join(
        f"{key}={new} (recipe: {old})"
        for key, old in _leaves(numbers)
        if None not in (new := value_of(raw, key), old)
        and new != old
        and not any(f"{key}.".startswith(f"{other}.") for other in given)
        and not (isinstance(old, str) and ("${" in old or old == "???"))
        and not (stages and all(has((stage or {}).get("config") or {}, key) for stage in stages))
    )
    if listed := ", ".join([*replaced, *([listed] if listed else [])]):
        yield (
            f"{SCALED}{choices['scale']} and the files it selects are composed after recipe={choices['recipe']} and set {listed}: "
            "to keep the recipe's numbers, set these keys on the command line or use scale=none"
        )


def substitute_notes(raw: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[str]:
    """A note for each option that conf/builtin_substitute replaces, because the built-in model is too small for it.

    Example: "data dapo_math -> countdown: model=builtin" says that model=builtin selected countdown in place of data=dapo_math.
    """
    for substitute, option in sorted(choices.items()):
        group = substitute.removeprefix("builtin_substitute/")
        if group in (substitute, "model") or not (content := _content(substitute, option, [conf_dir()])):
            continue
        keys = [key for key, value in _leaves(content) if value is not None]
        datasets = cast("dict[str, Any]", value_of(raw, DATASETS.get(group, "")) or {})
        instead = ", ".join([*datasets] or [f"{key}={value_of(raw, key)}" for key in keys])
        cause = "model" if choices["model"] == choices["builtin_substitute"] else "builtin_substitute"
        yield f"{REPLACED}{group} {choices[group]} -> {show(instead)}: {cause}={choices[cause]}"


def stale_model_properties(
    raw: Mapping[str, Any], overrides: Iterable[str], choices: Mapping[str, str], folders: Sequence[Path]
) -> Iterator[str]:
    """A note when model.path names another hub model and model.properties still describe the selected option."""
    given = {override.partition("=")[0] for override in overrides}
    path, properties = value_of(raw, "model.path"), value_of(raw, "model.properties")
    if "model.path" not in given or not properties or any(key.startswith("model.properties") for key in given):
        return
    if path != _content("model", choices.get("model"), folders).get("path") and local_folder(str(path)) is None:
        yield (
            f"{NOT_CHECKED}the size of {path}: model.properties are those of model={choices.get('model')} (a context of "
            f"{value_of(raw, 'model.properties.context_length')} tokens); set model.properties for it, or model.properties=null"
        )


def _selected(group: str, name: str, of: str, folders: Sequence[Path]) -> str | None:
    """The option of the group `of` that a file's defaults select by `override /of: ...`; None if they select none."""
    file = next((file for folder in folders if (file := folder / group / f"{name}.yaml").is_file()), None)
    content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file))) if file else {}
    for entry in cast("list[Any]", content.get("defaults") or []):
        if isinstance(entry, dict) and (option := cast("dict[str, str]", entry).get(f"override /{of}")):
            return option
    return None


def _content(group: str, option: str | None, folders: Sequence[Path]) -> dict[str, Any]:
    """What a file sets, with the files from which it is derived; {} when there is no such file."""
    file = next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)
    if file is None:
        return {}
    own = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))
    own.pop("paper", None)
    defaults = cast("list[Any]", own.pop("defaults", None) or [])
    derived = [entry for entry in defaults if isinstance(entry, str)]
    content = dict[str, Any]()
    for entry in derived if "_self_" in derived else [*derived, "_self_"]:  # later entries win, as in Hydra
        parent, _, name = entry[1:].rpartition("/") if entry.startswith("/") else (group, "", entry)
        content = merge(content, own if entry == "_self_" else _content(parent, name, folders))
    return content


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def invalid_choice(override: str) -> Mistake | None:
    """`trainer=5`, `~data`, `stages=[sft,rl]`: the value of a group is the name of one of its files."""
    group, _, value = override.lstrip("~").partition("=")
    value = "~" if override.startswith("~") else value
    if group not in groups_in(conf_dir()) or override == NO_CHOICE["recipe"] or _is_text(value):
        return None
    remedy = did_you_mean(value, [path.stem for path in (conf_dir() / group).glob("*.yaml")])
    if value.startswith("["):
        remedy = f"to select several, write a file in --config-dir with all of them in its defaults list; {remedy}"
    elif group in NO_CHOICE:
        remedy = f"{NO_CHOICE[group]} for none of them; {remedy}"
    return Mistake(key=group, value=value, rule=f"selects one file of conf/{group} by its name", remedy=remedy)


def _is_text(value: str) -> bool:
    try:
        return isinstance(yaml.safe_load(value), str)
    except yaml.YAMLError:  # Hydra's parser reports it
        return True


HYDRA: Mapping[str, tuple[str, str]] = {
    r"(?:Ambiguous value for argument|Sweep parameters) '\+*([^=]+)=": (
        "several values, but this is one run",
        "--multirun for a run of each, {key}=[{value}] for a list, or quotes for a text",
    ),
    r"Could not delete from config\. '(.+?)' does not exist": (
        "~ removes a key, and there is no such key",
        "check the spelling with --cfg job",
    ),
    r"Could not override '(.+?)'": ("is not a group that conf/config.yaml selects from", "add it: +{key}={value}"),
}
"""{pattern of one of Hydra's messages, with the key: (rule, remedy)}."""


def hydra_mistake(error: Exception, overrides: Sequence[str]) -> tuple[Mistake, str | None]:
    """Hydra's error as a mistake, and the override that caused it; None when no override did."""
    message = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        text = without_prefix(error.override)
        rule, remedy = "is not of the form key=value", QUOTING if "=" in text else f"write {text}=VALUE"
        return Mistake(key="the command line", value=text, rule=rule, remedy=remedy), error.override
    if isinstance(error, yaml.YAMLError):
        remedy = "correct the file's YAML: indentation, colons, brackets"
        return Mistake(key="a YAML file", value="unreadable", rule=message, remedy=remedy), None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        rule, remedy = f"there is no {error.missing_cfg_file}.yaml", did_you_mean(name, error.options or ["config"])
        return Mistake(key=group or "--config-name", value=name, rule=rule, remedy=remedy), _at_fault(group, overrides)
    for pattern, (rule, remedy) in HYDRA.items():
        if found := re.search(pattern, message):
            override = _at_fault(found[1], overrides)
            value = (override or "~").partition("=")[2] or "~"
            remedy = remedy.format(key=found[1], value=value)
            return Mistake(key=found[1], value=value, rule=rule, remedy=remedy), override
    remedy = "--info defaults-tree shows what is selected; HYDRA_FULL_ERROR=1 shows where this arose"
    value = " ".join(map(without_prefix, overrides))
    return Mistake(key="the command line", value=value, rule=message, remedy=remedy), None


def _at_fault(key: str, overrides: Iterable[str]) -> str | None:
    return next((override for override in overrides if override.lstrip("+~").partition("=")[0] == key), None)
