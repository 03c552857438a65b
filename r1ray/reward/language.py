"""Language consistency (DeepSeek-R1, arXiv 2501.12948, 2.3.2): the share of the reasoning's words that are of the target language.

The paper does not define a word. Ours: every Chinese character and kana by itself, and every run of at least two letters of another
script; digits, symbols, single letters (variables), LaTeX commands, code and tags are no words. The target is the script of the
problem's language: French and English count alike.
"""

import re
from collections.abc import Mapping

from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.text import thinking, without
from r1ray.types import Problem

SCRIPTS: Mapping[str, str] = {
    "han": r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef]",
    "kana": r"[\u3040-\u30ff]",
    "hangul": r"[\u1100-\u11ff\uac00-\ud7af]{2,}",
    "latin": r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,}",
    "cyrillic": r"[\u0400-\u052f]{2,}",
    "greek": r"[\u0370-\u03ff\u1f00-\u1fff]{2,}",
    "arabic": r"[\u0600-\u06ff\u0750-\u077f]{2,}",
    "hebrew": r"[\u0590-\u05ff]{2,}",
    "devanagari": r"[\u0900-\u097f]{2,}",
    "thai": r"[\u0e00-\u0e7f]{2,}",
}
LANGUAGES: Mapping[str, frozenset[str]] = {
    "zh": frozenset({"han"}),
    "ja": frozenset({"han", "kana"}),
    "ko": frozenset({"hangul"}),
    **dict.fromkeys(("ru", "uk", "bg", "sr"), frozenset({"cyrillic"})),
    **dict.fromkeys(("ar", "fa", "ur"), frozenset({"arabic"})),
    "el": frozenset({"greek"}),
    "he": frozenset({"hebrew"}),
    "hi": frozenset({"devanagari"}),
    "th": frozenset({"thai"}),
    **dict.fromkeys(
        ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "cs", "sv", "tr", "vi", "id"), frozenset({"latin"})
    ),
}
WORD = re.compile("|".join(f"(?P<{script}>{word})" for script, word in SCRIPTS.items()))
NO_WORD = re.compile(r"\\[A-Za-z]+|</?[a-z_]{1,20}>|`[^`\s]{1,40}`")
"""A command, a tag, a name in code. Text between dollars counts: it may contain prose."""


@per_completion
def language(problem: Problem, text: str) -> ComponentScore:
    """Between 0 and 1; 0 when the reasoning has no words."""
    return ComponentScore(value=share_of(problem, text) or 0.0)


def share_of(problem: Problem, text: str) -> float | None:
    """The share of the words of the reasoning that are of the problem's language; None when there are no words."""
    if problem.language not in LANGUAGES:
        raise ValueError(f"problem {problem.id}: language {problem.language!r} is not one of {', '.join(LANGUAGES)}")
    text = NO_WORD.sub(" ", without(thinking(text), "```", "```"))
    scripts = [str(match.lastgroup) for match in WORD.finditer(text)]
    ours = sum(script in LANGUAGES[problem.language] for script in scripts)
    return ours / len(scripts) if scripts else None
