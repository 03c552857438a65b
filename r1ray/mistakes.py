"""Mistakes in the configuration: key, value, rule, remedy."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NOT_CHECKED = "not checked: "
"""Prefix of notes about what can be checked only when the run starts."""
SCALED = "scale="
"""Prefix of the note about numbers of a recipe that the scale replaces."""
REPLACED = "replaced: "
"""Prefix of notes about options that conf/builtin_substitute replaces."""
WARNING = "warning: "
"""Prefix of notes about what probably goes wrong."""
RESUME = "resume: "
"""Prefix of notes about a run that resumes."""
AT_START = (SCALED, REPLACED, WARNING, RESUME)
"""Notes that a start prints, too, and not only check=true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Example: `Mistake(key="trainer.lrr", value=1, rule="trainer has no such key", remedy="did you mean trainer.lr?")`."""

    key: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        head = f"{self.key} = {show(self.value)}"
        return f"  {head}\n      rule    {self.rule}\n      remedy  {self.remedy}"


Finding = Mistake | str
"""A mistake, for which the configuration is rejected, or a note, which is only printed."""


class ConfigError(ValueError):
    """Every mistake of a configuration at once; the text is printed."""

    def __init__(self, mistakes: Iterable[Mistake], notes: Sequence[str] = ()) -> None:
        unique = {str(mistake): mistake for mistake in mistakes}
        self.mistakes = tuple(unique.values())
        self.notes = tuple(notes)
        count = "1 mistake" if len(unique) == 1 else f"{len(unique)} mistakes"
        unchecked = [f"  {note}" for note in notes if note.startswith(NOT_CHECKED)]
        super().__init__("\n\n".join([f"{count} in the configuration; nothing was started.", *unique, *unchecked]))


def show(value: Any) -> str:
    """A value as YAML writes it, cut at 100 characters."""
    names = {None: "null", True: "true", False: "false"}
    # 1 == True and 0 == False in Python, hence the type check.
    text = names[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant: one written much like it, else one that begins with it, else one that holds it."""
    by_lower = {name.lower(): name for name in known}
    wanted = word.lower()
    matches = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.6)
    if not matches and len(wanted) >= 3:
        matches = sorted((name for name in by_lower if wanted in name), key=lambda name: (name.find(wanted) > 0, name))
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """The remedy for an unknown word: the closest known one and all there are."""
    names = sorted(known)
    guess = closest(word, names)
    there = f"there are: {', '.join(names)}" if names else "there are none"
    return f"did you mean {prefix}{guess}? {there}" if guess else there
