"""A completion as a card of report.html. Its text is hostile: it is escaped and capped, and invisible characters are shown."""

import html
import unicodedata
from collections.abc import Mapping
from typing import Any

from r1ray.run.console import number

MAX_SHOWN = 6000
"""Characters of a text that are shown, half from its beginning and half from its end."""
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: controls, bidirectional marks, surrogates, private use, unassigned, line and paragraph separators."""
_VERDICTS = {True: '<span class="right">correct</span>', False: '<span class="wrong">incorrect</span>', None: ""}


def visible(text: str, *, limit: int = MAX_SHOWN) -> str:
    """Plain text, not yet escaped for HTML. Example: `visible("a\\x1b[2K\\u202eb") == "a[U+001B][2K[U+202E]b"`."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
    return "".join(
        f"[U+{ord(c):04X}]" if c not in "\n\t" and unicodedata.category(c) in _INVISIBLE else c for c in text
    )


def completion_card(line: Mapping[str, Any]) -> str:
    """HTML of one line of a rollouts file (`r1ray.data.rollouts`)."""
    values: Mapping[str, float | None] = line["components"]
    components = ", ".join(f"{name} {number(value)}" for name, value in values.items() if value is not None)
    facts = [
        html.escape(visible(line["problem"], limit=200)),
        _VERDICTS[line["correct"]],
        f"reward {number(line['reward'])} ({html.escape(components)})",
        f"{line['length']} tokens",
    ]
    if line["finish_reason"] != "stop":
        facts.append('<span class="wrong">truncated</span>')
    completion = _marked(html.escape(visible(line["completion"])))
    head = "".join(f"<span>{fact}</span>" for fact in facts if fact)
    prompt = html.escape(visible(line["prompt"]))
    return f'<article class="sample"><header>{head}</header><pre class="prompt">{prompt}</pre><pre>{completion}</pre></article>'


def _marked(completion: str) -> str:
    """Escaped text with its thinking and its last answer marked, in linear time for any text."""
    thinking, closed, rest = completion.partition("&lt;/think&gt;")
    if not closed:
        thinking, rest = "", completion
    end = rest.rfind("&lt;/answer&gt;")
    start = rest.rfind("&lt;answer&gt;", 0, end) if end >= 0 else -1
    if start >= 0:
        end += len("&lt;/answer&gt;")
        rest = f'{rest[:start]}<span class="answer">{rest[start:end]}</span>{rest[end:]}'
    return (f'<span class="think">{thinking}{closed}</span>' if closed else "") + rest
