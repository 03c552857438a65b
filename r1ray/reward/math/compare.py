"""Compare two maths answers without any parser or computer algebra: settles most pairs, in the trusted process, in microseconds.

What is not a plain number, a word or the same text is left undecided, for math-verify in its child process. Only ASCII digits are
digits, and the number of them is capped.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 2000
MAX_DIGITS = 300
MAX_DEPTH = 50

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
DECIMAL = re.compile(rf"([+-]?)\s*({_UNSIGNED})")
RATIO = re.compile(rf"([+-]?)\s*(?:\\frac\{{({_UNSIGNED})\}}\{{({_UNSIGNED})\}}|({_UNSIGNED})\s*/\s*({_UNSIGNED}))")
SHORT_RATIO = re.compile(r"\\frac\s*([0-9])\s*([0-9])")
WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf)\{([^{}\\]*)\}")
SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,;: ]|~")
LOOKALIKES = str.maketrans(
    # minus sign, no-break space, multiplication sign, pi, degree, infinity
    {"\u2212": "-", "\u00a0": " ", "\u00d7": r"\times ", "\u03c0": r"\pi ", "\u00b0": r"^\circ ", "\u221e": r"\infty "}
)

HOSTILE = re.compile(
    rf"[0-9]{{{MAX_DIGITS + 1},}}"  # a number too long to convert
    r"|\^\s*\{?\s*[0-9]{5,}"  # an exponent above 9999
    r"|\^\{[^{}a-zA-Z]*[0-9]\s*\^\s*\{?[^{}a-zA-Z]*([0-9]{2}|\^)"  # a tower of numeric powers
    r"|[0-9]{4,}\s*[)}]*\s*!"  # a factorial above 999!
    r"|\^[^!]{0,20}[)}]\s*!"  # a factorial of a power
)


def normalise(text: str) -> str:
    """The same answer with its typography removed: delimiters, spacing, `\\dfrac`, a wrapping `\\text{}`, the final full stop."""
    text = text.translate(LOOKALIKES).strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    text = text.replace(r"\$", "").replace("{,}", ",").replace(r"\%", "%")
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", SPACING.sub("", text))
    text = SHORT_RATIO.sub(r"\\frac{\1}{\2}", text)
    wrapped = WRAPPER.fullmatch(text)
    text = wrapped[1] if wrapped else text
    return " ".join(text.split()).removesuffix(".").strip("$ ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """`50\\%` is Number(value=50, percent=True, exact=True); `0.5` is not exact: people round decimals."""

    value: Fraction
    percent: bool
    exact: bool


def number(text: str) -> Number | None:
    """Read a normalised integer, decimal, fraction or percentage, thousands separators allowed; None for everything else."""
    body = text.removesuffix("%").rstrip()
    percent = body != text
    if len(body) > MAX_DIGITS:
        return None
    if match := DECIMAL.fullmatch(body):
        value = _unsigned(match[2])
    elif match := RATIO.fullmatch(body):
        over, under = (part for part in match.groups()[1:] if part is not None)
        if not _unsigned(under):
            return None
        value = _unsigned(over) / _unsigned(under)
    else:
        return None
    return Number(value=-value if match[1] == "-" else value, percent=percent, exact="." not in body)


def fast_equal(answer: str, gold: str) -> bool | None:
    """Whether two normalised answers are the same; None when only algebra can tell. Not symmetric: the gold sets the rules."""
    if not answer:
        return False
    if answer == gold:
        return True
    answer_number, gold_number = number(answer), number(gold)
    if answer_number and gold_number:
        return _same_number(answer_number, gold_number)
    if _is_word(gold):
        return answer.casefold().strip("() ") == gold.casefold().strip("() ")
    return None


def hostile(text: str) -> bool:
    """Whether an answer is too big or too strange to be worth a parser's time: huge numbers, towers, deep nesting, odd characters.

    Words in `\\text{}` may be in any script (units); everything else must be ASCII.
    """
    return (
        len(text) > MAX_LENGTH
        or not WRAPPER.sub("", text).isascii()
        or not balanced(text)
        or HOSTILE.search(text) is not None
    )


def readable(gold: str) -> bool:
    """Whether a dataset's answer can be compared with at all. Cheap and safe: no parser sees it."""
    return 0 < len(gold) <= MAX_LENGTH and gold.isprintable() and balanced(gold) and bool(normalise(gold))


def balanced(text: str) -> bool:
    """Braces pair up, and nothing nests deeper than MAX_DEPTH."""
    braces = depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        braces += (character == "{") - (character == "}")
        depth += (character in "{([") - (character in "})]")
        if braces < 0 or depth > MAX_DEPTH:
            return False
    return braces == 0


def _unsigned(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip("."))


def _same_number(answer: Number, gold: Number) -> bool:
    """Fractions and integers are equal or not; a decimal on either side may be rounded, to six decimals and to six digits.

    A percentage equals both p / 100 and, where the other side has no percent sign, p: people answer "what percentage" either way.
    """
    if answer.percent != gold.percent:
        bare, percentage = (gold, answer) if answer.percent else (answer, gold)
        return percentage.value in (bare.value, 100 * bare.value)
    if answer.exact and gold.exact:
        return answer.value == gold.value
    return abs(answer.value - gold.value) <= min(Fraction(5, 10**7), abs(gold.value) / 10**6)


def _is_word(text: str) -> bool:
    """Text without mathematics in it (Monday, (B), 星期一): to be compared as text. `ab` may be a product."""
    letters = text.strip("() ").replace(" ", "")
    option = len(letters) == 1 and letters.isupper()
    return letters.isalpha() and (option or len(letters) > 2 or not letters.isascii())
