"""The header of a recipe: comments at the top of its file that say what it retells, in a form that can be read back.

    # @package _global_
    # DAPO: GRPO with clip-higher and token-level loss.
    # source: arXiv 2503.14476 [pdf]; the project's verl script [repo]
    # base: Qwen/Qwen2.5-32B
    # data: BytedTsinghua-SIA/DAPO-Math-17k
    # reward: 1 or -1 for the answer, soft overlong punishment
    # result: AIME24 avg@32 50.0
    # hardware: not published
    # unconfirmed: warm-up
    # numbers:
    #   completions a pass = 8,192 [pdf]
    #   response tokens @long = 20,480 [repo]

A text may go on in lines that are indented. A number is `name = value [where it is told]`, its name one of `r1ray.recipes.units`,
its value a number, `null`, or several (`0.9, 0.95`); `@stage` says of which stage. Where: a mark that stands in SOURCES. Whatever
stands before the first field is the title.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from r1ray.mistakes import did_you_mean

FIELDS = ("source", "base", "data", "reward", "result", "hardware", "unconfirmed", "numbers")
"""What every paper's header says, in this order."""
OPTIONAL_FIELDS = ("differs",)
"""What r1ray does otherwise than the paper."""
SOURCES: Mapping[str, str] = {
    "v1": "the paper's first version",
    "v2": "the paper's second version",
    "pdf": "the paper",
    "repo": "the authors' code or script",
    "card": "the model's or dataset's page",
    "sec": "told by others",
    "ours": "follows from the others, or r1ray's choice where nothing is published",
}
Value = int | float | tuple[int | float, ...] | None
NUMBER = re.compile(r"(?P<name>[^=@\[\]]+?)(?: @(?P<stage>[\w.-]+))? = (?P<value>[^\[\]]+?) \[(?P<source>[^\[\]]+)\]")


class HeaderError(ValueError):
    """A header that cannot be read: file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Example: `Number(name="response tokens", stage="long", value=65536, source="v2")`."""

    name: str
    stage: str | None
    """None: of every rl stage, or of all of them together where a sum is meant."""
    value: Value
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe's file, read but not composed."""

    file: Path
    title: str
    fields: Mapping[str, str]
    """All but `numbers`; a file of one's own may lack some."""
    numbers: tuple[Number, ...]
    options: Mapping[str, str]
    """{group: what the recipe chooses of it}, as in {"algo": "dapo"}."""

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def missing(self) -> list[str]:
        """What a paper's header has and this one has not."""
        return [name for name in FIELDS if not (self.numbers if name == "numbers" else self.fields.get(name))]


def parse(file: Path) -> Recipe:
    """Raises HeaderError."""
    text = _text_of(file)
    known = (*FIELDS, *OPTIONAL_FIELDS)
    title: list[str] = []
    fields: dict[str, list[str]] = {}
    numbers: list[Number] = []
    field = ""
    for count, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("#"):
            break
        if line.startswith("# @package"):
            continue
        where, content = f"{file}:{count}", line.removeprefix("#")
        found = re.match(r" ([a-z]+):(?: (.*))?$", content)
        if content.startswith("   ") and field:
            if field == "numbers":
                numbers.append(_number(content.strip(), where))
            else:
                fields[field].append(content.strip())
        elif found and (field or found[1] in known):
            field = found[1]
            if field in fields or field not in known:
                remedy = "it stands twice" if field in fields else did_you_mean(field, known)
                raise HeaderError(f"{where}: {field}: is no field of a recipe's header; {remedy}")
            fields[field] = [found[2]] if found[2] else []
        elif field:
            raise HeaderError(
                f"{where}: {content.strip()!r} is neither a field nor indented, so that it goes on with {field}"
            )
        else:
            title.append(content.strip())
    fields.pop("numbers", None)
    return Recipe(
        file=file,
        title=" ".join(title),
        fields={name: " ".join(lines) for name, lines in fields.items()},
        numbers=tuple(numbers),
        options=_options(text, file),
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise HeaderError(f"{file}: is no text that can be read ({error})") from error


def _number(line: str, where: str) -> Number:
    found = NUMBER.fullmatch(line)
    if found is None:
        raise HeaderError(f"{where}: {line!r} has to be of the form: name = value [where it is told]")
    if found["source"] not in SOURCES:
        there = ", ".join(f"{mark} ({meaning})" for mark, meaning in SOURCES.items())
        raise HeaderError(f"{where}: [{found['source']}] is none of the sources; there are: {there}")
    try:
        return Number(name=found["name"], stage=found["stage"], value=_value(found["value"]), source=found["source"])
    except ValueError as error:
        raise HeaderError(f"{where}: {found['value']!r} is no number, nor null, nor several numbers") from error


def _value(text: str) -> Value:
    """Example: "8,192" is 8192, "0.9, 0.95" is (0.9, 0.95), "null" is None."""
    if text == "null":
        return None
    if ", " in text:
        return tuple(_one(part) for part in text.split(", "))
    return _one(text)


def _one(text: str) -> int | float:
    plain = text.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", text) else text
    return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)


def _options(text: str, file: Path) -> dict[str, str]:
    """What is no list of defaults is left to the check, which names it."""
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).replace(' in "<unicode string>",', " at").split())
        raise HeaderError(f"{file}: is not YAML ({said}); correct its indentation, colons, brackets") from error
    entries: Any = cast("dict[str, Any]", content).get("defaults") if isinstance(content, dict) else None
    entries = cast("list[Any]", entries) if isinstance(entries, list) else []
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in cast("dict[Any, Any]", entry).items()]
    texts = {str(key): str(value) for key, value in pairs}
    return {key.removeprefix("override /"): value for key, value in texts.items() if key.startswith("override /")}
