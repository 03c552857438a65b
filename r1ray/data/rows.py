"""Tables with a prompt column and the columns that the verifier reads (`source: rows`).

verifier      columns that it reads; `answer` is a text, a number or a list of them, and may be called `answers`
math          answer
exact         answer
text_match    answer
choice        answer: the letter of the correct option, which the prompt lists
logic         answer: "(1) Ann is a knight (2) Bob is a knave"
countdown     numbers, a list, and target
code          tests, optionally subtasks, checker, floats and limits (`r1ray.reward.code.cases`)
program       the same; the whole completion is the program
patch         files and patched, each {path: text}: the files that the prompt shows, and their text after the correct patch
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from r1ray.data.base import Item, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_object
from r1ray.data.schemas import conversation, golds, listed, numbers_and_target
from r1ray.plugin import Args, args_of, resolve_or_none
from r1ray.reward.accuracy import VERIFIERS
from r1ray.reward.choice import letter_of
from r1ray.reward.code.cases import ProgramArgs, load_cases, read_floats, read_subtasks
from r1ray.reward.logic import roles
from r1ray.sandbox.base import Language

EXTRA_COLUMNS = (
    "answers",
    "tests",
    "subtasks",
    "checker",
    "floats",
    "limits",
    "numbers",
    "target",
    "files",
    "patched",
    "reference",
)
"""Columns besides prompt, answer and language that a verifier or a judge may read."""


class RowsArgs(SourceArgs):
    verifier: str = "math"
    """A name in `r1ray.reward.accuracy.VERIFIERS`, or an import path."""
    verifier_args: dict[str, Any] = {}
    """Its arguments, {language: cpp}; they go into the payload of every problem."""

    @property
    def parsed_verifier_args(self) -> Args:
        """`verifier_args`, validated and with defaults."""
        return args_of(resolve_or_none(self.verifier, VERIFIERS)).model_validate(self.verifier_args)

    @property
    def program_language(self) -> Language | None:
        if not issubclass(args_of(resolve_or_none(self.verifier, VERIFIERS)), ProgramArgs):
            return None
        return self.verifier_args.get("language", ProgramArgs().language)


def rows(row: Row, args: RowsArgs) -> Item:
    """A prompt (text or chat messages) and an answer. The columns but prompt, answer and language go into `meta`.

    With another verifier than math the payload is the whole row, under our names, in the form that r1ray's verifiers read, and the
    verifier's arguments. (The column `language` is the language of the prompt, `verifier_args.language` that of programs.)
    """
    parsed_verifier_args = args.parsed_verifier_args
    if isinstance(parsed_verifier_args, ProgramArgs):
        payload = _with_tests(row, parsed_verifier_args.language)
    else:
        payload = PAYLOADS.get(args.verifier, dict)(row)
    return Item(
        messages=conversation(row["prompt"]),
        verifier=args.verifier,
        payload={**payload, **parsed_verifier_args.model_dump()},
        language=row.get("language") or "en",
        meta={name: value for name, value in row.items() if name not in ("prompt", "answer", "language")},
    )


def _with_tests(row: Row, language: Language) -> dict[str, Any]:
    try:
        cases = load_cases(row.get("tests"), language=language, floats=read_floats(row.get("floats")))
        read_subtasks(row.get("subtasks"), num_tests=len(cases.inputs))
    except ValueError as error:
        raise Unreadable(str(error)) from error
    return dict(row)


def _answer(row: Row) -> Any:
    found = row.get("answers") if row.get("answer") in (None, "") else row["answer"]
    if found is None:
        raise Unreadable("there is no answer: columns.answer=COLUMN says which column holds it")
    return found


def _with_answers(row: Row, *, read: Callable[[str], str | None], form: str) -> dict[str, Any]:
    """`read`: an answer as the verifier compares it; None or "" for one that the verifier cannot use."""
    given = _answer(row)
    answers = [answer for answer in map(read, listed(given)) if answer]
    if not answers:
        raise Unreadable(f"expected {form} as answer, found {given!r:.60}")
    return {**row, "answers": answers}


def _countdown(row: Row) -> dict[str, Any]:
    numbers, target = numbers_and_target(row)
    return {**row, "numbers": numbers, "target": target}


def _patch(row: Row) -> dict[str, Any]:
    files, patched = _texts(row, "files"), _texts(row, "patched")
    if {**files, **patched} == files:
        raise Unreadable("patched changes nothing in files")
    return {**row, "files": files, "patched": patched}


def _texts(row: Row, name: str) -> dict[str, str]:
    """{path: text}. In a parquet table every row has the paths of all rows; those of other rows are empty."""
    texts = {path: content for path, content in (as_object(row.get(name)) or {}).items() if content is not None}
    if not texts or not all(isinstance(content, str) for content in texts.values()):
        raise Unreadable(f"expected {name} as {{path: text}}, found {row.get(name)!r:.60}")
    return texts


PAYLOADS: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "choice": partial(_with_answers, read=letter_of, form="the letter of an option"),
    "countdown": _countdown,
    "exact": partial(_with_answers, read=lambda answer: answer, form="a text, a number or a list of them"),
    "logic": partial(
        _with_answers,
        read=lambda answer: answer if roles(answer) else None,
        form="who is what, as in '(1) Ann is a knight (2) Bob is a knave'",
    ),
    "math": lambda row: golds(_answer(row)),
    "patch": _patch,
    "text_match": partial(_with_answers, read=lambda answer: answer, form="a text, a number or a list of them"),
}
"""{verifier: row -> what it reads}; a verifier that is not listed gets the row as it is."""
