"""Golds that are no answers: what datasets of mathematics write where an answer is missing, or where the problem asks for a proof.

Such a row cannot be scored: a completion would be correct if it said "proof" or "N/A". The words are read without case, math
delimiters, text commands and punctuation around them. An answer that says that there is none (`\\text{no}`, `no solution`, `DNE`,
`\\emptyset`, `undefined`, `None of the above`) is an answer.
"""

import re
import unicodedata

MISSING = frozenset(
    (
        *(
            "none",
            "null",
            "nil",
            "nan",
            "na",
            "n/a",
            "n.a",
            "n / a",
            "tbd",
            "todo",
            "missing",
            "unknown",
            "blank",
            "omitted",
        ),
        *(
            "notfound",
            "notprovided",
            "notavailable",
            "noanswer",
            "noneprovided",
            "nosolution_found",
            "unanswered",
            "#n/a",
            "<na>",
        ),
        *("无", "暂无", "略", "空", "なし"),
    )
)
"""What programs, tables and annotators write for a missing value. But `\\text{none}` was typeset as an answer."""
PHRASES = re.compile(
    r"""
      (?:an?\s|the\s|see\s|complete\s|full\s|rigorous\s|formal\s)*
      (?:proofs?|demonstration|derivation|preuve|démonstration|beweis|demostración|dimostrazione|証明|证明)
      (?:\s?(?:is\s)?(?:only|omitted|required|needed|question|problem|completed?|shown|given|provided|above|below|见解析|略))*
    | (?:to\sbe\s|as\s|it\sis\s|statement\sis\s)?(?:proved|proven|shown)(?:\s(?:above|below))?
    | prove(?:\s(?:it|that|this|the\s(?:statement|claim)))? | q\.?\s?e\.?\s?d
    | (?:the\s|final\s|correct\s)*(?:answer|solution|result|value)?s?\s?
      (?:is\s|was\s|has\s|are\s|were\s)*(?:not|n't|none|never)\s?(?:been\s)?
      (?:found|provided|given|available|specified|supplied|stated|applicable|present|known|extracted|annotated)
    | none\s(?:provided|given|found|available)
    | no\s(?:final\s|short\s|numerical\s)?answers?(?:\s(?:provided|given|found|available))?
    | (?:please\s)?(?:see|refer\sto|check|cf\.?|as\sin|given\sin)\s
      (?:the\s|my\s|our\s|its\s|below\s|above\s|full\s|attached\s|detailed\s)*
      (?:solution|proof|explanation|above|below|answer|derivation|reasoning|figure|graph|diagram|text|note|analysis|image)s?
      (?:\s(?:above|below|section))?
    | (?:详见|参见|请见|见|证明见|答案见|解析见|证明过程?见|证明)(?:解析|解答|答案|证明|过程|详解|上|下|图)*
    | (?:证明|答案|解析|过程)(?:略|省略) | 无答案 | 没有答案 | siehe\slösung | voir\s(?:la\s)?solution | véase\s(?:la\s)?solución
    """,
    re.VERBOSE,
)
BOX = re.compile(r"\\f?box(?:ed)?\s*\{(.*)\}", re.DOTALL)
TYPESET = re.compile(r"\\(?:text|mathrm|textbf|textit|mathbf|operatorname|mbox|emph)\s*\{([^{}]*)\}")
SIGNS = frozenset("$`~|\u2212")
"""Marks that Unicode does not count as punctuation and that are no answer. `<`, `>`, `=` and `+` may be one."""


def is_placeholder(gold: str) -> bool:
    """Example: true for "N/A", "-", "**Proof.**" and "\\text{see solution}", false for "\\text{no}", "0" and "\\emptyset"."""
    if "\\" not in gold and all(char in SIGNS or unicodedata.category(char)[0] in "PZC" for char in gold):
        return True
    opened = gold = BOX.sub(r"\1", gold.strip(" $\n"))
    while (inner := TYPESET.sub(r"\1", opened)) != opened:
        opened = inner
    words = _plain(opened)
    if words in MISSING:
        return words != "none" or _plain(gold) == "none"
    return PHRASES.fullmatch(words) is not None


def _plain(text: str) -> str:
    """Without marks around it, in small letters, with single spaces (`**NOT_FOUND**` is "not found")."""
    text = re.sub(r"\\[()\[\]]", "", text)
    text = re.sub(r"^[^\w\\]+|[^\w\\]+$", "", text)
    return " ".join(re.sub("[_-]", " ", text.casefold()).split())
