r"""What the grammar of expressions is made of: trees, the names of letters and functions, and the tokens of a text."""

import re
from fractions import Fraction
from typing import Any

from r1ray.reward.math.style import FUNCTIONS
from r1ray.reward.math.tokens import lex

Tree = list[Any]

GREEK = frozenset(
    r"""\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi \rho \sigma
    \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \ell
    \hbar""".split()  # noqa: SIM905
)
ACCENTS = frozenset(
    r"\vec \overline \bar \hat \tilde \widehat \overrightarrow \mathcal \mathscr \mathfrak \variable".split()  # noqa: SIM905
)
ATOMS = frozenset(
    r"\pi \infty \frac \sqrt \binom \angle \triangle \lfloor \lceil \operatorname".split()  # noqa: SIM905
)
ENDS = frozenset(r"\mod \bmod ) ] } | \} \rfloor \rceil + - / * : , ; = < >".split())  # noqa: SIM905
"""Tokens with which no factor begins."""
NUMBER = re.compile(r"[0-9]+|\.")
TRIGONOMETRIC = frozenset(
    name for name in FUNCTIONS if name.removeprefix("arc")[:3] in ("sin", "cos", "tan", "cot", "sec", "csc")
)
CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
FUNCTION_OF = {"|": "abs", r"\lfloor": "floor", r"\lceil": "ceil"}
WORD_FUNCTION = re.compile(rf"({'|'.join(sorted(FUNCTIONS, key=len, reverse=True))})([a-zA-Z]?)")
RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in|cup|cap|setminus|backslash)")
MAX_LETTERS = 6
"""More letters in a row are a word."""


class Ambiguous(ValueError):
    """The text has more than one reading, or none: it equals no other text."""


class Unsupported(ValueError):
    """The text has a construction that is not of this grammar: a matrix, a set, an integral."""


def tokens_of(text: str) -> list[str]:
    tokens: list[str] = []
    space = False
    for token in lex(text):
        if token == " ":
            space = True
            continue
        after_index = space and tokens[-2:-1] in (["_"], ["^"])  # \\log_2 8
        if token.isdigit() and tokens and NUMBER.fullmatch(tokens[-1][-1]) and not after_index:
            if space:
                raise Ambiguous("two numbers side by side")
            tokens[-1] += token
        elif token == "." and tokens and tokens[-1].isdigit() and not space:
            tokens[-1] += "."
        elif token.isalpha() and token.isascii():
            tokens += _letters(token)
        else:
            tokens.append(token)
        space = False
    return tokens


def _letters(run: str) -> list[str]:
    if (match := WORD_FUNCTION.fullmatch(run)) and not (
        match[2] and len(match[1]) < 3 and match[1] not in ("ln", "lg")
    ):
        return [f"\\{match[1]}", *match[2]]
    return list(run) if len(run) <= MAX_LETTERS else [run]


def whole(value: int) -> Tree:
    return ["num", str(value), None]


def negated(tree: Tree) -> Tree:
    if tree[0] == "num":
        return ["num", str(-Fraction(tree[1])), tree[2]]
    return ["*", whole(-1), tree]
