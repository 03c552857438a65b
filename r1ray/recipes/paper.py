"""The mapping `paper` in a recipe's file: what the recipe reproduces, where it is published, and the published numbers.

    paper:
      title: "DAPO: GRPO with clip-higher and token-level loss."
      source: arXiv 2503.14476 [pdf]; the project's verl script [repo]
      base: Qwen/Qwen2.5-32B
      numbers:
        completions per step: [8192, pdf]
        betas: [[0.9, 0.999], repo]
        response tokens: {short: [8192, repo], long: [16384, repo]}    # by stage

The origins, in brackets, say where a number was found (`ORIGINS`). `read` takes `paper` from the recipe's own file: a recipe that
is derived from another one by `defaults` does not inherit it. `r1ray.cli` removes it from what Hydra composes.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BeforeValidator, ValidationError
from yaml import YAMLError

from r1ray.config.base import StrictModel
from r1ray.mistakes import did_you_mean

ORIGINS: Mapping[str, str] = {
    "v1": "the paper's first version",
    "v2": "the paper's second version",
    "pdf": "the paper",
    "repo": "the authors' code or script",
    "card": "the model's or dataset's page",
    "sec": "a secondary source",
    "ours": "follows from the other numbers, or r1ray's choice where nothing is published",
}
EVERY_STAGE = ""
Value = float | list[float] | None


class PaperError(ValueError):
    """A recipe's file cannot be read: the file, the key and the remedy."""


class Number(NamedTuple):
    """Example: `Number(name="response tokens", stage="long", value=65536, origin="v2")`."""

    name: str
    stage: str
    """EVERY_STAGE: the number holds for each stage with reinforcement learning, or, if it is a sum, for the whole run."""
    value: Value
    origin: str


def _known_origin(origin: str) -> str:
    if origin not in ORIGINS:
        raise ValueError(f"{origin} is not an origin")
    return origin


def _by_stage(given: Any) -> Any:
    return given if isinstance(given, dict) else {EVERY_STAGE: given}


ByStage = Annotated[dict[str, tuple[Value, Annotated[str, AfterValidator(_known_origin)]]], BeforeValidator(_by_stage)]


class Paper(StrictModel):
    title: str = ""
    source: str = ""
    """Empty: the recipe reproduces no publication."""
    base: str = ""
    data: str = ""
    reward: str = ""
    result: str = ""
    hardware: str = ""
    unconfirmed: str = ""
    """What the sources do not give, with the value that the recipe uses."""
    differs: str = ""
    """Where the recipe deviates from the paper."""
    numbers: dict[str, ByStage] = {}

    def each_number(self) -> Iterator[Number]:
        for name, by_stage in self.numbers.items():
            yield from (Number(name, stage, value, origin) for stage, (value, origin) in by_stage.items())


class Recipe(NamedTuple):
    """A recipe's file, read but not composed."""

    name: str
    paper: Paper
    options: Mapping[str, str]
    """{group: the option that the recipe selects}, for instance {"algo": "dapo"}."""


def read(file: Path) -> Recipe:
    """Raises PaperError."""
    try:
        text = file.read_text()
        content: Any = OmegaConf.to_container(OmegaConf.create(text))
        paper = Paper.model_validate(content.get("paper", {}) if isinstance(content, dict) else {})
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise PaperError(f"{file}: {' '.join(str(error).split())}; write it as YAML in UTF-8") from error
    except ValidationError as error:
        raise PaperError(f"{file}: {_first_mistake(error)}") from error
    return Recipe(file.stem, paper, dict(re.findall(r"^\s*- override /(\w+): (\S+)", text, re.MULTILINE)))


def _first_mistake(error: ValidationError) -> str:
    """Key, rule and remedy."""
    item = error.errors(include_url=False)[0]
    key = ".".join(["paper", *(str(part) for part in item["loc"] if part != EVERY_STAGE)])
    remedy = f"write {key}: TEXT"
    if item["type"] == "extra_forbidden" or not item["loc"]:
        remedy = did_you_mean(key.removeprefix("paper."), Paper.model_fields)
    elif "numbers" in item["loc"]:
        origins = ", ".join(f"{origin} ({meaning})" for origin, meaning in ORIGINS.items())
        remedy = f"write NAME: [VALUE, ORIGIN] or NAME: {{STAGE: [VALUE, ORIGIN]}}; the origins are {origins}"
    return f"{key}: {item['msg']}; {remedy}"
