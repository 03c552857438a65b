"""Overrides as a person types them, and what Hydra says about them in plain words."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from yaml import YAMLError

from r1ray.config.files import conf_dir, groups_in
from r1ray.config.tree import has, laid_over, value_of
from r1ray.mistakes import NOT_CHECKED, Mistake, did_you_mean
from r1ray.model.files import local_folder

OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
NO_CHOICE = {"recipe": "~recipe", "scale": "scale=none"}
"""How a run does without the groups that only override others."""
QUOTING = """no blanks around =, lists as [1,2], and quotes around other special characters: 'key="a, b"'"""


def with_prefix(argument: str, groups: Iterable[str]) -> str:
    """What Hydra is given: a value is forced in whether or not its key exists, a group of ours is chosen with or without +.

    Example: `with_prefix("trainer.lr=1", ["algo"])` is `"++trainer.lr=1"`, `with_prefix("+algo=grpo", ["algo"])` is `"algo=grpo"`.
    """
    if argument == "~scale":  # conf/config.yaml chooses hardware by its name, so that it needs one
        return "scale=none"
    found = OVERRIDE.fullmatch(argument)
    if found is None or found["key"].startswith("hydra."):
        return argument
    plain = f"{found['key']}={found['value']}"
    return plain if is_choice(plain, groups) else f"++{plain}"


def is_choice(override: str, groups: Iterable[str]) -> bool:
    """Whether it chooses a file of a group, as `algo=dapo` does and `algo.kl_coef=0` does not."""
    key, _, value = override.partition("=")
    return key in groups and not value.startswith("{")


def unprefixed(override: str) -> str:
    """As a person would type it; `with_prefix` undone."""
    return override.removeprefix("++")


def recipe_against_scale(
    raw: Mapping[str, Any], overrides: Iterable[str], choices: Mapping[str, str], folders: Sequence[Path]
) -> Iterator[str]:
    """A note when what comes after the recipe (the scale, hardware, what stands in) replaces numbers of the recipe that was chosen.

    Its numbers are those of its own file over those of its algorithm's. `folders`: where Hydra looked, conf/ and the user's own.
    """
    recipe, algo = (_chosen(group, choices, folders) for group in ("recipe", "algo"))
    if recipe is None or choices.get("scale") == "none":
        return
    told = laid_over({"algo": _content(algo, folders)}, _content(recipe, folders))
    groups = groups_in(conf_dir())
    given = [override.partition("=")[0] for override in overrides if not is_choice(override, groups)]
    stages = cast("dict[str, dict[str, Any]]", raw.get("stages") or {}).values()
    replaced = {
        key: (old, value_of(raw, key))
        for key, old in _leaves(told)
        if not any(f"{key}.".startswith(f"{other}.") for other in given)
        and not (isinstance(old, str) and ("${" in old or old == "???"))
        and not (stages and all(has((stage or {}).get("config") or {}, key) for stage in stages))
    }
    both = {key: values for key, values in replaced.items() if None not in values and values[0] != values[1]}
    if both:
        listed = ", ".join(f"{key}={new} (recipe: {old})" for key, (old, new) in both.items())
        yield (
            f"scale={choices['scale']} and what goes with it come after recipe={choices['recipe']} and set {listed}: "
            "give these keys yourself, or scale=none, for the recipe's numbers"
        )


def _chosen(group: str, choices: Mapping[str, str], folders: Sequence[Path]) -> Path | None:
    files = [folder / group / f"{choices.get(group)}.yaml" for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def replaced(choices: Mapping[str, str]) -> Iterator[str]:
    """A note when something stands in for what was chosen; `choices` are Hydra's, {group: option}."""
    groups = [key.partition("/")[2] for key in choices if key.startswith("replacement/") and key != "replacement/model"]
    files = {group: conf_dir() / "replacement" / group / f"{choices[f'replacement/{group}']}.yaml" for group in groups}
    if replaced := ", ".join(f"{group}={choices[group]}" for group in sorted(files) if files[group].is_file()):
        yield f"model={choices['model']} is too small for {replaced}: conf/replacement says what stands in, another model gets them"


def facts_of_another(
    raw: Mapping[str, Any], overrides: Iterable[str], choices: Mapping[str, str], folders: Sequence[Path]
) -> Iterator[str]:
    """A note when another model of the hub was named and the facts are still those of the option that was chosen."""
    given = {override.partition("=")[0] for override in overrides}
    path, facts = value_of(raw, "model.path"), value_of(raw, "model.facts")
    if "model.path" not in given or not facts or any(key.startswith("model.facts") for key in given):
        return
    option = _content(_chosen("model", choices, folders), folders)
    if path != option.get("path") and local_folder(str(path)) is None:
        yield (
            f"{NOT_CHECKED}what {path} is: model.facts are those of model={choices.get('model')} (a context of "
            f"{value_of(raw, 'model.facts.context_length')} tokens): give its own, or model.facts=null"
        )


def _content(file: Path | None, folders: Sequence[Path]) -> dict[str, Any]:
    """What a file sets, with the files of its group that it is derived from, wherever they are."""
    if file is None:
        return {}
    own = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))
    defaults = cast("list[Any]", own.pop("defaults", None) or [])
    derived = [entry for entry in defaults if isinstance(entry, str)]
    group, content = file.parent.name, dict[str, Any]()
    for name in derived if "_self_" in derived else [*derived, "_self_"]:  # later ones win, as Hydra has it
        content = laid_over(
            content, own if name == "_self_" else _content(_chosen(group, {group: name}, folders), folders)
        )
    return content


def explain(error: Exception, arguments: Sequence[str]) -> tuple[Mistake, str | None]:
    """Hydra's error as a mistake, and the argument that caused it (None when it was none of them)."""
    message = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override), error.override
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_file(error, arguments)
    if isinstance(error, YAMLError):
        remedy = "correct the file's YAML: indentation, colons, brackets"
        return Mistake(key="a YAML file", value="unreadable", rule=" ".join(message.split()), remedy=remedy), None
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", message):
        key, _, value = unprefixed(found[1]).partition("=")
        remedy = f"--multirun for a run of each, {key}=[{value}] for a list, or quotes for a text"
        return Mistake(key=key, value=value, rule="several values, but this is one run", remedy=remedy), found[1]
    if found := re.search(r"Could not delete from config\. '(.+?)' does not exist", message):
        rule = "~ takes a key away, and there is none of this name"
        guilty = next((a for a in arguments if a.startswith(f"~{found[1]}")), None)
        return Mistake(key=found[1], value="~", rule=rule, remedy="check the spelling with --cfg job"), guilty
    if found := re.search(r"Could not override '(.+?)'", message):
        guilty = next((a for a in arguments if a.startswith(f"{found[1]}=")), None)
        rule = "is not among the groups that conf/config.yaml chooses from"
        value = guilty.partition("=")[2] if guilty else ""
        return Mistake(key=found[1], value=value, rule=rule, remedy=f"add it: +{found[1]}={value}"), guilty
    if found := re.search(r"Additional config directory '(.+?)' not found", message):
        return Mistake(key="--config-dir", value=found[1], rule="is not a folder", remedy="check the path"), None
    if "Config group override must be a string" in message:
        return _not_a_name(arguments)
    if found := re.search(r"Error resolving interpolation '(.+?)'", message):
        return _not_one(found[1], arguments)
    remedy = "--info defaults-tree shows what is chosen; HYDRA_FULL_ERROR=1 shows where this arose"
    return Mistake(
        key="the command line",
        value=" ".join(map(unprefixed, arguments)),
        rule=" ".join(message.split()),
        remedy=remedy,
    ), None


def _not_one(interpolation: str, arguments: Sequence[str]) -> tuple[Mistake, str | None]:
    """`~data`, or `stages=[sft,rl]`: what stands in with the built-in model is chosen by the name of one file."""
    for group in re.findall(r"\$\{(\w+)\}", interpolation):
        guilty = next((a for a in arguments if a == f"~{group}" or a.startswith(f"{group}=[")), None)
        if guilty is not None:
            value = "~" if guilty.startswith("~") else guilty.partition("=")[2]
            options = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
            rule = f"chooses one file of conf/{group} by its name"
            remedy = f"a file of your own, whose defaults name several, in --config-dir; {did_you_mean('', options)}"
            return Mistake(key=group, value=value, rule=rule, remedy=remedy), guilty
    return _unreadable(" ".join(arguments)), None


def _unreadable(override: str) -> Mistake:
    text = unprefixed(override)
    remedy = QUOTING if "=" in text else f"write {text}=VALUE"
    return Mistake(key="the command line", value=text, rule="is not of the form key=value", remedy=remedy)


def _missing_file(error: MissingConfigException, arguments: Sequence[str]) -> tuple[Mistake, str | None]:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not group:
        remedy = "config, or a file of your --config-dir"
        return Mistake(key="--config-name", value=name, rule="there is no such file", remedy=remedy), None
    guilty = next((a for a in arguments if a.lstrip("+").startswith(f"{group}=")), None)
    rule = f"there is no {group}/{name}.yaml"
    return Mistake(key=group, value=name, rule=rule, remedy=did_you_mean(name, error.options or [])), guilty


def _not_a_name(arguments: Sequence[str]) -> tuple[Mistake, str | None]:
    """`trainer=5`: a group was given something that is no name."""
    groups = groups_in(conf_dir())
    for argument in arguments:
        found = OVERRIDE.fullmatch(argument)
        if found is None or found["key"] not in groups:
            continue
        key, value = found["key"], found["value"]
        if value == "null" or not re.fullmatch(r"[A-Za-z_][\w.,/-]*|\[.*\]", value):
            remedy = did_you_mean(value, [path.stem for path in (conf_dir() / key).glob("*.yaml")])
            if value == "null" and key in NO_CHOICE:
                remedy = f"{NO_CHOICE[key]} for none of them; {remedy}"
            rule = f"chooses a file of conf/{key} by its name"
            return Mistake(key=key, value=value, rule=rule, remedy=remedy), argument
    return _unreadable(" ".join(arguments)), None
