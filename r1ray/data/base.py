"""Sources of data: rows, the items that are read from them, the `Source` that says how, and the arguments of every source."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from r1ray.data.columns import KeepRule, read_keep_rules
from r1ray.mistakes import Finding, Mistake
from r1ray.plugin import Args, invalid
from r1ray.sandbox.base import Language
from r1ray.types import Message

if TYPE_CHECKING:
    from r1ray.config import SourceConfig
    from r1ray.config.view import StageView

Row = Mapping[str, Any]


class Unreadable(ValueError):
    """This row cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row that was read: a Problem before its prompt is rendered, or a training example when it has a `response`.

    Example: `Item(messages=(Message(role="user", content="2 + 2?"),), payload={"answers": ["4"]})`.
    """

    messages: tuple[Message, ...]
    verifier: str = "math"
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])
    response: str | None = None
    """The completion to imitate (supervised training), without EOS."""
    id: str | None = None
    """The dataset's own id of the problem, if it is the same in all its sets; otherwise `load_source` hashes the content."""
    keys: frozenset[str] = frozenset()
    """Made by `load_source` from the question alone. Two items that share a key are the same problem, whatever their sets,
    instructions and templates."""
    language: str = "en"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    accuracy: str | None = None
    extract: str | None = None
    """`accuracy_component` and `extract` of this problem; None: those of the source's configuration."""


class SourceArgs(Args):
    """Arguments that every source takes. A source with arguments of its own declares a subclass."""

    instruction: str = ""
    """Text added below the question: "Put the final answer in \\boxed{}."."""
    keep: dict[str, Any] = {}
    """Which rows are used, by the values of their columns (`r1ray.data.columns`); empty: all."""

    @model_validator(mode="after")
    def _keep(self) -> Self:
        try:
            read_keep_rules(self.keep)
        except ValueError as error:
            remedy = "for example keep={level: {any_of: [Level 4, Level 5]}} or keep={difficulty: {min: 1, max: 15}}"
            raise invalid("keep", str(error), remedy) from error
        return self

    @property
    def kept(self) -> tuple[KeepRule, ...]:
        return read_keep_rules(self.keep)

    @property
    def program_language(self) -> Language | None:
        """The language of the programs that completions contain, so that a sandbox must run it; None where they contain none."""
        return None

    def check(self, view: "StageView", key: str, owner: "SourceConfig") -> Iterator[Finding]:
        if owner.extract is not None and self.program_language is not None:
            where, rule = (
                f"{key.removesuffix('.args')}.extract",
                "completions are programs, which are read from their fences",
            )
            yield Mistake(key=where, value=owner.extract, rule=rule, remedy=f"{where}=null")


class PythonArgs(SourceArgs):
    """Arguments of sources whose completions are Python programs."""

    @property
    def program_language(self) -> Language:
        return "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The schema of a dataset. Its functions get the validated arguments, an instance of `Args`, last."""

    read: Callable[[Row, Any], Item]
    """One row under our names -> Item. Raises Unreadable for a row that lacks what is needed to score a completion."""
    Args: type[SourceArgs] = SourceArgs
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """{our name: the dataset's column}; a dot leads into a nested one. `SourceConfig.columns` overrides."""
    optional: frozenset[str] = frozenset()
    """Our names that may be missing."""
    pass_extra_columns: bool = False
    """Whether `read` also gets the remaining columns, under their own names."""
    extra_columns: tuple[str, ...] = ()
    """The names among the remaining columns that `read` uses; messages list them."""
    generate: Callable[[Any], Iterator[dict[str, Any]]] | None = None
    """Makes the rows: such a source takes no path."""
    read_run: Callable[[str, Any], Iterator[dict[str, Any]]] | None = None
    """Makes the rows from what a run has written at the path, which is relative to the run directory (`in_run_dir`)."""
