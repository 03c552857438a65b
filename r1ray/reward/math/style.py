r"""Commands that change how an answer looks and not what it says: fonts, sizes, colours, spaces. Tokens in, tokens out.

A command that sets its argument in another font is removed, unless the argument is words: these stay in `\text{}`, which `units`
and `compare` read. A single letter in roman is a letter, as in `3+2\mathrm{i}`, unless it follows a number as the name of a unit.
"""

from collections.abc import Sequence

from r1ray.reward.math.tokens import group_end, lex, render

MATHS_FONTS = frozenset(
    r"\mathrm \mathbf \mathit \mathsf \mathtt \mathnormal \boldsymbol \bm \pmb \symbf \symrm \operatorname".split()  # noqa: SIM905
)
TEXT_FONTS = frozenset(
    r"\text \textbf \textit \textrm \textnormal \textsf \texttt \textsc \textup \mbox \hbox \emph".split()  # noqa: SIM905
)
AROUND = frozenset(
    r"\underline \uuline \uline \ensuremath \boxed \fbox \framebox \smash \mathop \mathord \mathbin".split()  # noqa: SIM905
)
"""Commands of which only the argument counts."""
WITH_COLOUR = {r"\color": False, r"\textcolor": True, r"\colorbox": True, r"\mathcolor": True}
"""{command: whether its second argument is the coloured text}."""
WITHOUT_MEANING = frozenset(
    (r"\hspace", r"\vspace", r"\phantom", r"\hphantom", r"\vphantom", r"\tag", r"\label", r"\mspace")
)
"""Dropped together with their argument."""
_SIZES = (
    *("left", "right", "middle", "mleft", "mright"),
    *(f"{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r", "m")),
)
_TYPE = (
    "tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge bf it rm sf tt bfseries itshape boldmath"
)
DROPPED = frozenset(
    f"\\{name}"
    for name in (
        *_SIZES,
        *_TYPE.split(),
        *[
            "displaystyle",
            "textstyle",
            "scriptstyle",
            "limits",
            "nolimits",
            "!",
            "nonumber",
            "mathstrut",
            "strut",
            "centering",
        ],
    )
)
SPACES = frozenset(
    rf"\{name}" for name in ("quad", "qquad", ";", ":", " ", ",", ">", "thinspace", "enspace", "enskip", "space")
)
FUNCTIONS = frozenset(
    """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp gcd lcm max min floor ceil mod det arcsinh arccosh
    arctanh arsinh arcosh artanh sqrt""".split()  # noqa: SIM905
)
UNIT_LETTERS = frozenset("mgtshLlNJWVK")
"""Single letters that name a unit after a number. Those of points and options (A to E), and e and i, do not."""


def plain(tokens: list[str]) -> list[str]:
    """The tokens without style."""
    kept: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        after = _skip_spaces(tokens, position + 1)
        if token in DROPPED:
            position += 1
            if kept and (kept[-1].isdigit() or kept[-1] == ".") and tokens[position : position + 1] != ["."]:
                kept.append(" ")  # so that the digits around it are no number
            if token in (r"\left", r"\right") and tokens[position : position + 1] == ["."]:
                position += 1
        elif token in SPACES or token == "~":
            kept.append(" ")
            position += 1
        elif token in WITHOUT_MEANING and (argument := _argument(tokens, after)):
            kept.append(" ")
            position = argument[1]
        elif token in WITH_COLOUR and (argument := _argument(tokens, after)):
            position = argument[1]
            if WITH_COLOUR[token] and (coloured := _argument(tokens, _skip_spaces(tokens, position))):
                kept += plain(coloured[0])
                position = coloured[1]
        elif token in AROUND and (argument := _argument(tokens, after)):
            kept += plain(argument[0])
            position = argument[1]
        elif (token in MATHS_FONTS or token in TEXT_FONTS) and (argument := _argument(tokens, _star(tokens, after))):
            kept += _set_in_font(token, argument[0], kept)
            position = argument[1]
        else:
            kept.append(token)
            position += 1
    return kept


def _set_in_font(command: str, content: list[str], before: Sequence[str]) -> list[str]:
    inner = [token for token in plain(content) if token != "$"]
    words = [token for token in inner if token != " "]
    previous = next((token for token in reversed(before) if token != " "), "")
    spaced = bool(inner) and (inner[0] == " " or before[-1:] == [" "])
    if not words:
        return [" "]
    time_or_value = words[0] in ("min", "sec", "max") and (command in TEXT_FONTS or previous.isdigit())
    if len(words) == 1 and words[0] in FUNCTIONS and not time_or_value:
        return [f"\\{words[0]}", " "]
    if len(words) == 1 and len(words[0]) == 1 and words[0].isalpha() and words[0].isascii():
        return _letter(words[0], before, previous, spaced)
    if any(not _is_word(token) for token in words):
        return [" ", *inner, " "] if inner[0][:1].isdigit() and before and before[-1][-1:].isdigit() else inner
    if command == r"\operatorname":
        return [r"\operatorname", "{", *inner, "}"]
    if command in MATHS_FONTS and not spaced and len(words) == 1 and words[0].isupper() and len(words[0]) < 4:
        return inner  # a segment AB
    return [r"\text", "{", *inner, "}"]


def _letter(letter: str, before: Sequence[str], previous: str, spaced: bool) -> list[str]:
    """A single letter: the name of a unit directly after a number, or after a space and no operator; else a letter."""
    in_sum = any(token in ("+", "-") for token in before[1:])
    measured = previous[-1:].isdigit() or previous in ("}", r"\pi", ")")
    if spaced and measured and letter not in "ei":
        return [r"\text", "{", letter, "}"]
    if letter in UNIT_LETTERS and previous[-1:].isdigit() and not in_sum:
        return [r"\text", "{", letter, "}"]
    return [letter]


def _is_word(token: str) -> bool:
    return token.isalpha() or token in tuple("/.-'\u2019,()") or (token.isprintable() and not token.isascii())


def _star(tokens: list[str], position: int) -> int:
    return position + 1 if tokens[position : position + 1] == ["*"] else position


def _skip_spaces(tokens: Sequence[str], position: int) -> int:
    while position < len(tokens) and tokens[position] == " ":
        position += 1
    return position


def _argument(tokens: list[str], start: int) -> tuple[list[str], int] | None:
    """(the tokens in the braces at `start`, the index after them); None where there are none."""
    if tokens[start : start + 1] != ["{"]:
        return None
    end = group_end(tokens, start)
    return None if end is None else (tokens[start + 1 : end], end + 1)


def join_thousands(tokens: list[str]) -> list[str]:
    r"""Commas between groups of three digits removed, where a list is impossible or unusual: `1,600\pi`, `\frac{1,000}{3}`.

    In round and square brackets, set braces and arguments of functions of several arguments they separate elements: `(7,123)`.
    """
    joined: list[str] = []
    listed = [False]
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token in ("(", "[", r"\{", r"\langle", "{"):
            listed.append(listed[-1] if token == "{" else not _one_argument(joined))
        elif token in (")", "]", r"\}", r"\rangle", "}") and len(listed) > 1:
            listed.pop()
        end = _grouped_end(tokens, position) if token.isdigit() and not listed[-1] else position
        if end > position:
            joined.append("".join(tokens[position:end:2]))
            position = end
        else:
            joined.append(token)
            position += 1
    return joined


def _grouped_end(tokens: list[str], start: int) -> int:
    """The index after `1 , 234 , 567`, which begins at `start`; `start` where the tokens there are a list or one number."""
    if (
        not 1 <= len(tokens[start]) <= 3
        or tokens[start][0] == "0"
        or tokens[start - 1 : start] in ([","], ["."], ["_"], ["^"])
    ):
        return start
    end = start + 1
    while end + 1 < len(tokens) and tokens[end] == "," and tokens[end + 1].isdigit() and len(tokens[end + 1]) == 3:
        end += 2
    return start if tokens[end : end + 1] == [","] and tokens[end + 1 : end + 2] not in ([], [" "]) else end


def _one_argument(before: Sequence[str]) -> bool:
    return next((token for token in reversed(before) if token != " "), "") in (r"\floor", r"\ceil")


def retouched(text: str) -> str:
    """The text without style, and without separators of thousands."""
    tokens = plain(lex(text))
    if tokens.count("$") % 2 == 0:  # delimiters of maths in prose; a single one is a currency
        tokens = [" " if token == "$" else token for token in tokens]
    return render(join_thousands(tokens))
