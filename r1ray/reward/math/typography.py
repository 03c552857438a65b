r"""Normalise the notation of a maths answer: delimiters, spacing, look-alike characters, and broken LaTeX with only one meaning.

Text in, text out, in linear time; values are not interpreted here. Full-width forms, which Chinese keyboards produce, become ASCII;
digits of other scripts stay as they are, and no later step takes them for digits.
"""

import re
from functools import lru_cache

from r1ray.reward.math.style import retouched

MAX_DEPTH = 50
MAX_REPAIRS = 3
"""Braces at the end that may be missing or superfluous, at most."""

_FULL_WIDTH = {0xFF01 + i: chr(0x21 + i) for i in range(94)}
_CHARACTERS = {
    "\u00a0": " ", "\u3000": " ", "\u3001": ", ", "\uff0c": ", ", "\u3002": ".", "\u2212": "-", "\u2013": "-", "\u2014": "-",
    "\u00d7": r"\times ", "\u00f7": "/", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u03c0": r"\pi ", "\u00b0": r"^\circ ",
    "\u2103": r"^\circ C", "\u221e": r"\infty ", "\u221a": r"\sqrt ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u00b1": r"\pm ", "\u00b2": "^2",
    "\u00b3": "^3", "\u201c": '"', "\u201d": '"', "\uffe5": "\u00a5",
}  # fmt: skip
LOOKALIKES = str.maketrans({**{chr(code): ascii for code, ascii in _FULL_WIDTH.items()}, **_CHARACTERS})

_STYLE = r"text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|underline"
WRAPPER = re.compile(rf"\\(?:{_STYLE})\s*\{{([^{{}}\\]*)\}}")
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)")
PLAIN = re.compile("-?[0-9]+")
TABULAR = re.compile(r"\\begin\{[a-z]*(?:matrix|array|cases|aligned)\}")

COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"), **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("leq", "leqslant"), r"\le"), **dict.fromkeys(("geq", "geqslant"), r"\ge"), "lt": "<", "gt": ">",
    "neq": r"\ne", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "varnothing": r"\emptyset",
    "degree": r"^\circ", **dict.fromkeys(("dots", "ldots", "cdots"), r"\ldots"), "$": "$", "%": "%", "colon": ":",
    **dict.fromkeys(("lvert", "rvert", "vert"), "|"), **dict.fromkeys(("lVert", "rVert", "Vert", "|"), r"\|"),
    **dict.fromkeys(("llcorner", "lfloor"), r"\lfloor "), **dict.fromkeys(("lrcorner", "rfloor"), r"\rfloor "),
    **dict.fromkeys(("ulcorner", "lceil"), r"\lceil "), **dict.fromkeys(("urcorner", "rceil"), r"\rceil "),
    "R": r"\mathbb{R}", "reals": r"\mathbb{R}", "Z": r"\mathbb{Z}", "N": r"\mathbb{N}", "Q": r"\mathbb{Q}",
    "ast": "*", "lnot": r"\neg",
}  # fmt: skip
"""{command: its replacement}; other commands stay."""
SPELLING = re.compile(r"\\([A-Za-z]+|.)|\.\.\.", re.DOTALL)
BACKSLASHES = re.compile(r"\\\\(?=[A-Za-z])")
REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # A command without its backslash; no variable has such a name.
        (r"(?<![\\A-Za-z])(?=d?frac\s?[{0-9]|sqrt\s?[\[({0-9])d?", r"\\"),
        (r"(?<![\\A-Za-z])(?=(?:pi|infty|cdot|times)(?![A-Za-z]))", r"\\"),
        (r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty"),
        (r"([,(\[=<>{]|^|\\(?:in|le|ge)) ?\+ ?(?=\\infty)", r"\1"),
        (r"\*\* ?([0-9]{2,})", r"^{\1}"),
        (r"\*\* ?\(([^()]*)\)", r"^{\1}"),
        (r"\*\*", "^"),
        (r"\^ ?\{ ?\\circ ?\}", r"^\\circ"),
        (r"\^ ?\{ ?(?:\\prime ?){2}\}", "''"),
        (r"\^ ?(?:\{ ?\\prime ?\}|\\prime(?![A-Za-z]))", "'"),
        (r"\\mathbb ?([A-Z])", r"\\mathbb{\1}"),
        (r"\\\{ ?\\\}", r"\\emptyset"),
        (r"(?<=[0-9}) ]) ?(?:\\text ?\{ ?)?(?:per ?cent(?:age)?|pct\.?)(?: points?)? ?(?:\}|$)|(?<=[0-9}]) +%", "%"),
        # A space before the imaginary unit: without it math-verify reads it as a variable.
        (r"(?<=[0-9]) ?(?:\\cdot ?)?i(?![A-Za-z])", " i"),
    )
)
COMMAND = re.compile(r"\\(frac|sqrt)(?![A-Za-z])")
"""Commands with arguments whose braces may be missing."""


@lru_cache(maxsize=20_000)
def normalise(text: str) -> str:
    """The same answer in normal form.

    Example: `normalise("$\\dfrac 12$.")` is "\\frac{1}{2}".
    """
    text = unwrapped(_collapsed(text if text.isascii() else text.translate(LOOKALIKES)).rstrip("\\ "))
    if PLAIN.fullmatch(text):
        return text
    if "\\\\" in text and not TABULAR.search(text):
        text = BACKSLASHES.sub(r"\\", text)
    text = _collapsed(SPELLING.sub(_respelled, retouched(text)))
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    return unwrapped(with_braces(closed(unwrapped(text))).rstrip("., ;"))


def _respelled(match: re.Match[str]) -> str:
    return r"\ldots" if match[1] is None else COMMANDS.get(match[1], match[0])


def _collapsed(text: str) -> str:
    return " ".join(text.split())


def unwrapped(text: str) -> str:
    r"""The text without anything around the whole of it: `$ $`, `\( \)`, `\[ \]`, braces, a box, quotes, `\text{}`, a full stop."""
    before = None
    while text != before:
        before, text = text, text.strip().removesuffix(".").rstrip()
        if text[-1:] not in _WRAPPING:
            break
        for opening, closing in _WRAPPERS:
            if text.endswith(closing) and text.startswith(opening) and len(text) >= len(opening) + len(closing):
                text = text[len(opening) : -len(closing)].strip()
        if wrapped := WRAPPER.fullmatch(text):
            text = wrapped[1]
        box = BOX.match(text)
        start = box.end() if box else 0
        if text.endswith("}") and text[start : start + 1] == "{" and partners(text).get(start) == len(text) - 1:
            text = text[start + 1 : -1]
    return text


_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ('"', '"'), ("**", "**"), ("*", "*"), ("`", "`"))
_WRAPPING = tuple(')]}$"*`')


def partners(text: str) -> dict[int, int]:
    """{position of an opening brace: position of the one that closes it}; braces after a backslash are ignored."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            found[opened.pop()] = match.start()
    return found


def closed(text: str) -> str:
    """The text with missing braces added at the end, and superfluous ones removed there; other errors stay."""
    depth = lowest = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += (match[0] == "{") - (match[0] == "}")
        lowest = min(lowest, depth)
    if text.startswith(r"\{") and r"\}" not in text and depth == 0:
        return text + r"\}"
    if lowest == 0 and 0 < depth <= MAX_REPAIRS:
        return text + "}" * depth
    if -MAX_REPAIRS <= lowest < 0 and depth == lowest and text.endswith("}" * -lowest) and not text.endswith(r"\}"):
        return text[:lowest]
    return text


def with_braces(text: str) -> str:
    r"""The arguments of \frac and \sqrt in braces, where they are one digit (LaTeX's rule) or, after \sqrt, a whole number or in
    parentheses. `\frac123` stays, since it could be 1/23 or 3 times 1/2.
    """
    closing = partners(text)
    brackets = _round_partners(text)
    inserts: dict[int, str] = {}
    drops: set[int] = set()
    for command in COMMAND.finditer(text):
        position = command.end()
        spans: list[tuple[int, int]] = []
        for _ in range(2 if command[1] == "frac" else 1):
            while text[position : position + 1] == " ":
                position += 1
            if position in closing:
                spans.append((-1, -1))
                position = closing[position] + 1
            elif command[1] == "sqrt" and position in brackets:
                drops |= {position, brackets[position]}
                spans.append((position, brackets[position] + 1))
                position = brackets[position] + 1
            elif match := _DIGITS.match(text, position) if command[1] == "sqrt" else _DIGIT.match(text, position):
                spans.append(match.span())
                position = match.end()
            else:
                break
        else:
            if command[1] == "frac" and spans[1] != (-1, -1) and text[position : position + 1].isdigit():
                continue
            for start, end in spans:
                if end > 0:
                    inserts[start] = inserts.get(start, "") + "{"
                    inserts[end] = "}" + inserts.get(end, "")
    if not inserts:
        return text
    return "".join(inserts.get(i, "") + ("" if i in drops or i == len(text) else text[i]) for i in range(len(text) + 1))


_DIGIT, _DIGITS = re.compile(r"[0-9]"), re.compile(r"[0-9]+")


def _round_partners(text: str) -> dict[int, int]:
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"[()]", text):
        if match[0] == "(":
            opened.append(match.start())
        elif opened:
            found[opened.pop()] = match.start()
    return found


def balanced(text: str) -> bool:
    """Whether braces match, and brackets nest at most MAX_DEPTH deep."""
    braces = depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        braces += (character == "{") - (character == "}")
        depth += (character in "{([") - (character in "})]")
        if braces < 0 or depth > MAX_DEPTH:
            return False
    return braces == 0
