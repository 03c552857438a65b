"""Any table: a prompt, and what its verifier reads beside it (`source: rows`).

verifier      what it reads of a row; `answer` is a text, a number or a list of them, and may be called `answers`
math          answer
exact         answer
choice        answer: the letter of the right option, which the prompt lists
logic         answer: "(1) Ann is a knight (2) Bob is a knave"
countdown     numbers, a list, and target
code          tests, perhaps subtasks, checker and limits (`r1ray.reward.code.cases`)
program       the same; the whole completion is the program
patch         files and patched, each {path: text}: the files that the prompt shows, and what the right patch makes of them
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from r1ray.data.schemas import Item, Row, Unreadable, as_object, conversation, golds, listed, numbers_and_target
from r1ray.reward.choice import letter_of
from r1ray.reward.code.cases import OF_PROGRAMS, read_cases, read_language, read_subtasks
from r1ray.reward.logic import roles

OTHERS = ("answers", "tests", "subtasks", "checker", "limits", "numbers", "target", "files", "patched", "reference")
"""Names beside prompt, answer and language by which a verifier or a judge looks for something in a row."""


def rows(row: Row, *, verifier: str = "math", programs: str = "python") -> Item:
    """A prompt (text or chat messages) and an answer. The columns but prompt, answer and language end up in `meta`.

    With another verifier than math the payload is the whole row, under our names, and in it what r1ray's own verifiers read.
    Programs are in the language `programs`: python or cpp (a column `language` is that of the prompt).
    """
    return Item(
        messages=conversation(row["prompt"]),
        verifier=verifier,
        payload=_programs(row, programs) if verifier in OF_PROGRAMS else PAYLOADS.get(verifier, dict)(row),
        language=row.get("language") or "en",
        meta={name: value for name, value in row.items() if name not in ("prompt", "answer", "language")},
    )


def _programs(row: Row, programs: str) -> dict[str, Any]:
    try:
        cases = read_cases(row.get("tests"), language=read_language(programs))
        read_subtasks(row.get("subtasks"), num_tests=len(cases.inputs))
    except ValueError as error:
        raise Unreadable(str(error)) from error
    return {**row, "language": programs}


def _answer(row: Row) -> Any:
    found = row.get("answers") if row.get("answer") in (None, "") else row["answer"]
    if found is None:
        raise Unreadable("there is no answer: columns.answer=COLUMN says which column holds it")
    return found


def _with_answers(row: Row, *, read: Callable[[str], str | None], form: str) -> dict[str, Any]:
    """`read`: an answer as the verifier compares it; nothing for one that it could make nothing of."""
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
    """{path: text}; in a parquet table every row has the paths of all, with nothing in those of others."""
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
}
"""What a verifier reads of a row; one that is not here, and judges no programs, gets the row as it is."""
