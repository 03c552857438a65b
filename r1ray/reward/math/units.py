r"""The unit of an answer: `12\text{ cm}^2` is 12 and square centimetres. In English and Chinese, abbreviated or not.

A unit may be missing on either side (the question names it); two units must be the same, and nothing is converted. Words that are
no known unit (apples, 棵) are units too: two such names agree if one contains all words of the other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from r1ray.reward.math.number import FORMS
from r1ray.reward.math.typography import WRAPPER

_NAMES = {
    "m": "m meter metre 米", "cm": "cm centimeter centimetre 厘米 公分", "mm": "mm millimeter millimetre 毫米",
    "dm": "dm decimeter decimetre 分米", "km": "km kilometer kilometre 千米 公里", "in": "in inch 英寸", "ft": "ft foot feet 英尺",
    "yd": "yd yard 码", "mi": "mi mile 英里", "g": "g gram 克", "kg": "kg kilogram 千克 公斤", "mg": "mg milligram 毫克",
    "t": "t ton tonne 吨", "lb": "lb lbs pound 磅", "oz": "oz ounce 盎司", "s": "s sec second 秒 秒钟", "min": "min minute 分钟",
    "h": "h hr hour 小时 时", "day": "day 天 日", "week": "week 周 星期", "month": "month 月 个月", "year": "year yr 年",
    "L": "L l liter litre 升", "mL": "mL ml milliliter millilitre 毫升", "degree": "degree deg 度", "rad": "rad radian 弧度",
    "dollar": "dollar USD 美元", "cent": "cent 美分", "yuan": "yuan RMB CNY 元 人民币 块", "euro": "euro EUR 欧元",
    "N": "N newton 牛 牛顿", "J": "J joule 焦 焦耳", "W": "W watt 瓦 瓦特", "V": "V volt 伏 伏特", "A": "A ampere 安 安培",
    "Hz": "Hz hertz 赫兹", "Pa": "Pa pascal 帕", "K": "K kelvin", "Celsius": "Celsius 摄氏度", "Fahrenheit": "Fahrenheit 华氏度",
    "unit": "unit 个 单位", "person": "person people 人",
}  # fmt: skip
KNOWN = {name: unit for unit, names in _NAMES.items() for name in names.split()}
SCALES = {
    **{"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12},
    **{"百": 100, "千": 1000, "万": 10**4, "亿": 10**8},
}
POWERS = {"square": 2, "sq": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}
POWERS_AFTER = {"squared": 2, "cubed": 3}
CURRENCIES = {"$": "dollar", "US$": "dollar", "USD": "dollar", "€": "euro", "£": "sterling", "¥": "yuan", "RMB": "yuan"}
RATES = {"mph": "mi", "kph": "km", "kmh": "km", "kmph": "km"}

_CHANGING = """
    a about ago all and approximately arccos arcsin arctan at because but choose cos cosh cot csc cubed divided double exactly
    exp factorial false for fourth from gcd half halves if incorrect infinity is lcm least less ln log max minus mod modulo
    more most multiplied negative no none not of off only or out over pi plus positive quarter quarters root roots sec sin
    sinh some sqrt squared tan tenth tenths than then third thirds times to true twice under where with without wrong
"""
NOT_UNITS = frozenset(_CHANGING.split())
"""Words that change the meaning, or are functions: a text with one of them is not a number with its unit."""
NOT_CHINESE_UNITS = re.compile("[不非无没或和与及大小多少至约以且上下负正除倍余的方根半幂阶乘加减积商错]")
MAX_WORDS = 4
"""A text of more words is a sentence and not a unit."""

CURRENCY = re.compile(r"([+-]?)\s*(US\$|USD|RMB|[$€£\u00a5])\s*(?=[0-9.\\+-])")
CURRENCY_AFTER = re.compile(r"(?<=[0-9])\s*([$€£\u00a5])$")
_POWER = r"\s*\^(?:\{\s*-?[0-9]\s*\}|[0-9])"
TEXT_TAIL = re.compile(
    rf"(?:(?:\\(?:text|textrm|textbf|mathrm|mathbf|mbox)\s*\{{[^{{}}\\]*\}}|\^\\circ)(?:{_POWER})?[\s/]*)+$"
)
_COMMON = r"[cmkd]m|[km]g|mL|ft|feet|inch(?:es)?|miles?|hours?|minutes?|seconds?|days?|years?|dollars?|degrees?"
BARE_TAIL = re.compile(rf"(?<=[0-9}})\s])(?:{_COMMON})(?:{_POWER})?$")
ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
"""Degrees in the argument of such a function are no unit of the value."""
TOKEN = re.compile(
    r"\s+|[A-Za-z]+|[\u4e00-\u9fff]+|[/*.-]|\\cdot|\^(?:\{\s*(-?[0-9])\s*\}|([0-9]))|\^\\circ\s*([CF](?![A-Za-z]))?"
)
_BY_LENGTH = sorted((n for n in [*KNOWN, *SCALES, *POWERS, "每"] if not n.isascii()), key=len, reverse=True)
CHINESE = re.compile("|".join(_BY_LENGTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """`km/h` is Unit(powers=(("h", -1), ("km", 1)), words=frozenset()); `apples` is Unit(powers=(), words={"apple"})."""

    powers: tuple[tuple[str, int], ...]
    words: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A text split into value and unit: `3万元` is Quantity(value="3", scale=10000, unit=yuan)."""

    value: str
    scale: int = 1
    unit: Unit | None = None
    certain: bool = True
    """False where the unit could be a variable: `5m`."""


def quantity(text: str) -> Quantity:
    """The value and the unit of a normalised answer; the whole text and no unit where none is found."""
    if match := CURRENCY.match(text):
        money = Unit(powers=((CURRENCIES[match[2]], 1),), words=frozenset())
        return replace(_measured(match[1] + text[match.end() :]), unit=money, certain=True)
    if (match := CURRENCY_AFTER.search(text)) and match.start():
        money = Unit(powers=((CURRENCIES[match[1]], 1),), words=frozenset())
        return replace(_measured(text[: match.start()]), unit=money, certain=True)
    return _measured(text)


def same_unit(answer: Unit | None, gold: Unit | None) -> bool:
    """Whether the answer's unit agrees with the gold's: they are the same, or one of them is missing."""
    if answer is None or gold is None:
        return True
    return answer.powers == gold.powers and (answer.words <= gold.words or gold.words <= answer.words)


def _measured(text: str) -> Quantity:
    for start in _ends_of_value(text):
        found = _read(text[start:], value=text[:start].rstrip()) if 0 < start < len(text) else None
        if found is not None:
            return found
    return Quantity(value=text)


def _ends_of_value(text: str) -> Iterator[int]:
    """Where the unit may begin: after a plain number, or before units at the end that are in `\\text{}` or well known."""
    plain = next((match for form in FORMS if (match := form.match(text))), None)
    if plain:
        yield plain.end()
    for tail in (TEXT_TAIL, BARE_TAIL):
        if (match := tail.search(text)) and not (match[0].startswith("^") and ANGLE.search(text)):
            yield match.start()


def _read(text: str, *, value: str) -> Quantity | None:
    """The value with this text as its unit; None when the text is no unit."""
    explicit = WRAPPER.search(text) is not None or not text.isascii()
    spaced = text.startswith(" ")
    words = _words(WRAPPER.sub(r" \1 ", text))
    if not words:
        return None
    scale = 1
    while words and words[0] in SCALES:
        scale *= SCALES[str(words.pop(0))]
    powers, unknown = _powers(words)
    if unknown is None or len(unknown) > MAX_WORDS or not all(_may_be_unit(word, explicit, spaced) for word in unknown):
        return None
    named = bool(powers or unknown)
    if not named and (words or scale == 1):
        return None
    unit = Unit(powers=tuple(sorted(powers.items())), words=frozenset(_singular(word.lower()) for word in unknown))
    certain = explicit or spaced or max((len(word) for word in words if isinstance(word, str)), default=2) > 1
    return Quantity(value=value, scale=scale, unit=unit if named else None, certain=certain)


def _powers(words: list[str | int]) -> tuple[dict[str, int], list[str] | None]:
    """({known unit: power}, unknown names); None in place of the names when the words are no unit."""
    powers: dict[str, int] = {}
    unknown: list[str] = []
    last, sign, next_power = "", 1, 1
    for word in words:
        exponent = word if isinstance(word, int) else POWERS_AFTER.get(word) if last else None
        if exponent is not None:
            if not last:
                return powers, None
            powers[last] *= exponent
        elif word == "/":
            sign = -1
        elif word in POWERS:
            next_power = POWERS[str(word)]
        elif word in RATES:
            powers |= {RATES[str(word)]: 1, "h": -1}
        elif last := _known(str(word)):
            powers[last] = powers.get(last, 0) + sign * next_power
            next_power = 1
        else:
            unknown.append(str(word))
    if "Celsius" in powers or "Fahrenheit" in powers:
        powers.pop("degree", None)
    return powers, unknown


def _may_be_unit(word: str, explicit: bool, spaced: bool) -> bool:
    """Whether an unknown word may name what is counted. In `2 xy` none does."""
    named = (explicit or spaced) and (len(word) > 2 or not word.isascii())
    return named and word.lower() not in NOT_UNITS and not NOT_CHINESE_UNITS.search(word)


def _words(text: str) -> list[str | int] | None:
    """Names, "/" and exponents, in order; None when the text has anything else."""
    words: list[str | int] = []
    position = 0
    for match in TOKEN.finditer(text):
        if match.start() != position:
            return None
        position = match.end()
        token = match[0].strip()
        if token.startswith("^\\circ"):
            words.append({"C": "Celsius", "F": "Fahrenheit"}.get(match[3] or "", "degree"))
        elif token.startswith("^"):
            words.append(int(match[1] or match[2]))
        elif token == "per":
            words.append("/")
        elif token and not token.isascii():
            words += _chinese_words(token)
        elif token not in ("", "*", "\\cdot", ".", "-"):
            words.append(token)
    return words if position == len(text) else None


def _chinese_words(text: str) -> list[str]:
    """Known names, the longest first; each text between them is one name."""
    words: list[str] = []
    position = 0
    for match in CHINESE.finditer(text):
        words += [text[position : match.start()], "/" if match[0] == "每" else match[0]]
        position = match.end()
    return [word for word in (*words, text[position:]) if word]


def _known(word: str) -> str:
    """The unit of this name in the singular or plural; "" for none. Names of one letter are case-sensitive."""
    mega = len(word) == 2 and word[0] == "M"
    for form in (word, word.lower() if len(word) > 1 and not mega else word):
        for name in (form, form.removesuffix("s"), form.removesuffix("es")):
            if name in KNOWN and (len(name) > 1 or form == name):
                return KNOWN[name]
    return ""


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word.removesuffix("s")
