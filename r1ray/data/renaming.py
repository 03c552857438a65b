"""A row with r1ray's column names instead of the dataset's, and errors for names that the dataset does not have."""

from collections.abc import Iterable, Mapping
from typing import Any

from r1ray.config import SourceConfig
from r1ray.data.base import Row, Source
from r1ray.data.columns import shown, step_into
from r1ray.mistakes import closest


def columns_of(name: str, source: Source, cfg: SourceConfig) -> dict[str, str]:
    """{our name: the dataset's column}. Raises ValueError when `cfg.columns` maps a name that the source does not read."""
    unknown = sorted(set(cfg.columns) - set(source.columns))
    if unknown and not source.pass_extra_columns:
        raise ValueError(
            f"source {name!r}: columns maps {', '.join(unknown)}, but {cfg.source} reads: {', '.join(source.columns)}"
        )
    return {**source.columns, **cfg.columns}


class Renaming:
    """The rows of one dataset.

    An optional column may be missing in some rows. One that the user names (`columns.answer=solution`) has to be in at least one:
    otherwise its name is mistyped, and the source would silently use something else.
    """

    def __init__(self, name: str, source: Source, cfg: SourceConfig) -> None:
        self._name, self._source, self._columns = name, source, columns_of(name, source, cfg)
        self._given = dict(cfg.columns)
        self._unseen = dict(cfg.columns)
        self._theirs: dict[str, None] = {}

    def rename(self, theirs: Mapping[str, Any]) -> Row:
        """Raises ValueError when the row lacks a column that is not optional."""
        source, columns = self._source, self._columns
        self.look_at(theirs)
        ours: dict[str, Any] = {}
        if source.pass_extra_columns:
            # A column of theirs with the name of one that the user maps elsewhere is not what the user wants.
            used = {*columns.values(), *self._given}
            ours = {key: value for key, value in theirs.items() if key not in used}
        for ours_name, column in columns.items():
            is_there, value = step_into(theirs, column)
            if is_there:
                ours[ours_name] = value
            elif ours_name not in source.optional:
                known = (*source.columns, *source.extra_columns)
                own = (
                    ""
                    if ours_name in known
                    else f", and the source does not read {ours_name!r} (it reads {', '.join(known)})"
                )
                raise ValueError(
                    f"source {self._name!r}: there is no column {column!r} for {ours_name!r}{own}. "
                    f"{_there_are(column, theirs)}. A row: {shown(theirs)}. "
                    f"{self._reversed(theirs) or f'Map it to an existing column: columns={{{ours_name}: <column>}}'}"
                )
        return ours

    def _reversed(self, theirs: Mapping[str, Any]) -> str:
        """The remedy when `columns` maps the dataset's names to ours; "" otherwise."""
        read = {*self._source.columns, *self._source.extra_columns}
        swapped = {ours: column for column, ours in self._given.items() if ours in read and column in theirs}
        listed = ", ".join(f"{ours}: {column}" for ours, column in swapped.items())
        return f"columns has our name first: columns={{{listed}}}" if swapped else ""

    def look_at(self, theirs: Mapping[str, Any]) -> None:
        """Take note of the columns of a row."""
        if self._unseen:
            self._theirs.update(dict.fromkeys(theirs))
            self._unseen = {ours: column for ours, column in self._unseen.items() if not step_into(theirs, column)[0]}

    def check_given(self, others: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError when a column that the user names is in no row.

        Args:
            others: the rows that have not been renamed; they are read only until every column has been seen.
        """
        for theirs in others if self._unseen else ():
            self.look_at(theirs)
            if not self._unseen:
                break
        if self._theirs:
            for ours, column in self._unseen.items():
                raise ValueError(
                    f"source {self._name!r}: no row has the column {column!r} that columns.{ours} names. "
                    f"{_there_are(column, self._theirs)}. Correct columns.{ours}, or leave it out"
                )


def _there_are(column: str, theirs: Iterable[str]) -> str:
    names = list(theirs)
    guess = closest(column, names)
    return f"{f'Did you mean {guess}? ' if guess else ''}The columns are: {', '.join(names)}"
