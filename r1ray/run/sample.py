"""A completion as a card of report.html. What a model wrote is hostile: escaped, capped, and what would not be seen is made
visible.
"""

import html
import unicodedata
from collections.abc import Mapping
from typing import Any

from r1ray.run.console import number

MAX_SHOWN = 6000
"""Characters of a text: its begin and its end."""
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of controls, bidirectional marks, line separators and what is no character."""


def visible(text: str, *, limit: int = MAX_SHOWN) -> str:
    """Plain text, not yet escaped for HTML. Example: `visible("a\\x1b[2K\\u202eb") == "a[U+001B][2K[U+202E]b"`."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
    return "".join(f"[U+{ord(c):04X}]" if c not in "\n\t" and unicodedata.category(c) in _UNSEEN else c for c in text)


def sample_card(line: Mapping[str, Any]) -> str:
    """One line of a rollouts file (`r1ray.data.rollouts`)."""
    verdict = {True: '<span class="right">right</span>', False: '<span class="wrong">wrong</span>', None: ""}[
        line["correct"]
    ]
    parts = ", ".join(f"{name} {number(value)}" for name, value in line["components"].items() if value is not None)
    facts = [
        html.escape(visible(line["problem"], limit=200)),
        verdict,
        f"reward {number(line['reward'])} ({html.escape(parts)})",
        f"{line['length']} tokens",
    ]
    if line["finish_reason"] != "stop":
        facts.append('<span class="wrong">cut at the limit</span>')
    completion = _marked(html.escape(visible(line["completion"])))
    head = "".join(f"<span>{fact}</span>" for fact in facts if fact)
    prompt = html.escape(visible(line["prompt"]))
    return f'<article class="sample"><header>{head}</header><pre class="prompt">{prompt}</pre><pre>{completion}</pre></article>'


def _marked(completion: str) -> str:
    """Escaped text with its thinking and its last answer marked; in linear time, whatever it holds."""
    thinking, closed, rest = completion.partition("&lt;/think&gt;")
    if not closed:
        thinking, rest = "", completion
    end = rest.rfind("&lt;/answer&gt;")
    start = rest.rfind("&lt;answer&gt;", 0, end) if end >= 0 else -1
    if start >= 0:
        end += len("&lt;/answer&gt;")
        rest = f'{rest[:start]}<span class="answer">{rest[start:end]}</span>{rest[end:]}'
    return (f'<span class="think">{thinking}{closed}</span>' if closed else "") + rest
