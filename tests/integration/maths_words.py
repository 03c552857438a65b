r"""Kinds of maths answers with words: units, money, Chinese, option letters; and broken LaTeX; see `maths_pairs`."""
# ruff: noqa: RUF001  (full-width and Chinese characters are intended)

from fractions import Fraction
from math import gcd
from random import Random

from maths_numbers import decimal, frac, free_of_squares, one_of, pick

UNITS = {
    "cm": "centimeters",
    "m": "meters",
    "km": "kilometers",
    "mm": "millimeters",
    "kg": "kilograms",
    "g": "grams",
    "s": "seconds",
    "L": "liters",
}
LENGTHS = ("cm", "m", "km", "mm")
THINGS = ("apples", "days", "hours", "minutes", "years", "inches", "feet", "miles", "units")
OTHER_THING = {
    "days": "hours",
    "hours": "minutes",
    "feet": "inches",
    "inches": "feet",
    "miles": "feet",
    "minutes": "seconds",
    "apples": "pears",
}


def units(rng: Random, correct: bool) -> tuple[str, str]:
    """Incorrect ones have another value or another unit; no unit is converted."""
    value = Fraction(rng.randrange(2, 2000), pick(rng, (1, 1, 2, 4)))
    other_unit = not correct and bool(rng.randrange(2))
    n = decimal(value if correct or other_unit else value + pick(rng, (1, -1, 10)))
    v, bare = decimal(value), "" if other_unit else "  <n>"
    shape = rng.randrange(4)
    if shape == 0:
        unit = pick(rng, list(UNITS))
        written = pick(rng, [u for u in UNITS if u != unit]) if other_unit else unit
        forms = r"""
            <n>\text{ <u>}  <n> \text{<u>}  <n>\ \text{<u>}  <n>~\mathrm{<u>}  <n> <u>  <n>\,\mathrm{<u>}  <n><u>
            <n> <w>  <n> \text{ <w>}
        """
        return rf"{v}\text{{ {unit}}}", one_of(rng, forms + bare, n=n, u=written, w=UNITS[written])
    if shape == 1:
        unit, power = pick(rng, LENGTHS), pick(rng, (2, 3))
        incorrect = [(unit, 5 - power), *((u, power) for u in LENGTHS if u != unit)]
        written, p = pick(rng, incorrect) if other_unit else (unit, power)
        forms = r"""
            <n>\text{ <u>}^<p>  <n> \text{<u>}^{<p>}  <n>\,\mathrm{<u>}^<p>  <n>\ \mathrm{<u>^<p>}  <n> <u>^<p>  <n> \text{ <s> <w>}
        """
        spoken = {"s": ("square", "cubic")[p - 2], "w": UNITS[written]}
        return rf"{v} \text{{ {unit}}}^{power}", one_of(rng, forms + bare, n=n, u=written, p=p, **spoken)
    if shape == 2:
        unit, other = pick(rng, (("km/h", "m/s"), ("m/s", "km/h")))
        forms = r"<n>\text{ <u>}  <n> <u>" + ("" if other_unit else r"  <n>\text{ <a> / <b>}") + bare
        a, b = unit.split("/")
        return rf"{v}\text{{ {unit}}}", one_of(rng, forms, n=n, u=other if other_unit else unit, a=a, b=b)
    thing = pick(rng, list(OTHER_THING) if other_unit else THINGS)
    if other_unit or rng.randrange(2):
        forms = r"<n> \text{ <t>}  <n> <t>" + bare
        return rf"{v} \text{{ {thing}}}", one_of(rng, forms, n=n, t=OTHER_THING[thing] if other_unit else thing)
    return v, one_of(rng, r"<n> \text{ <t>}  <n> <t>", n=n, t=thing)


def degrees_and_money(rng: Random, correct: bool) -> tuple[str, str]:
    value = rng.randrange(5, 360)
    n = value if correct else pick(rng, (value + 1, value - 1, value * 10))
    if rng.randrange(2):
        forms = r"<n>^\circ  <n>^{\circ}  <n>°  <n> \degree  <n> degrees  <n>\text{ degrees}  <n>^{\circ}.  <n>"
        return pick(rng, (rf"{value}^\circ", str(value))), one_of(rng, forms, n=n)
    cents = f"{rng.randrange(100):02d}"
    if not correct and rng.randrange(3) == 0:
        return rf"\${value}.{cents}", one_of(rng, r"<v>\text{ cents}  <v> euros  <v>%", v=f"{value}.{cents}")
    forms = r"\$<n>.<c>  $<n>.<c>$  \$ <n>.<c>  <n>.<c>\text{ dollars}  <n>.<c> dollars  <n>.<c>"
    return pick(rng, (rf"\${value}.{cents}", f"{value}.{cents}")), one_of(rng, forms, n=n, c=cents)


CHINESE_UNITS = {
    "厘米": "cm",
    "米": "m",
    "千米": "km",
    "公里": "km",
    "千克": "kg",
    "公斤": "kg",
    "克": "g",
    "秒": "s",
    "毫米": "mm",
}
COUNTED = ("个", "人", "只", "元", "岁", "天", "本", "棵", "种")
SAYINGS = {
    "星期一": "星期二",
    "正确": "错误",
    "甲": "乙",
    "骑士": "骗子",
    "不存在": "存在",
    "无解": "有解",
    "直角三角形": "等腰三角形",
}
WIDE = str.maketrans("0123456789.,()-+=%/", "０１２３４５６７８９．，（）－＋＝％／")


def chinese(rng: Random, correct: bool) -> tuple[str, str]:
    """Chinese units and words, full-width digits and punctuation, ten thousands."""
    n, m = rng.randrange(2, 3000), rng.randrange(2, 50)
    k, p = (n, m) if correct else (pick(rng, (n + 1, n - 1, n * 10)), m + 1)
    shape = rng.randrange(8)
    if shape == 0:
        unit = pick(rng, list(CHINESE_UNITS))
        written, bare = unit, "  <k>"
        if not correct and rng.randrange(2):
            written, k, bare = pick(rng, [u for u in CHINESE_UNITS if CHINESE_UNITS[u] != CHINESE_UNITS[unit]]), n, ""
        forms = r"<k><u>  <k>\text{<u>}  <k> <u>  <k>\text{ <e>}" + bare
        return pick(rng, (f"{n}{unit}", rf"{n}\text{{{unit}}}")), one_of(
            rng, forms, k=k, u=written, e=CHINESE_UNITS[written]
        )
    if shape == 1:
        thing = pick(rng, COUNTED)
        return pick(rng, (str(n), f"{n}{thing}")), one_of(rng, r"<k><t>  <k>\text{<t>}  <k> <t>  <k>", k=k, t=thing)
    if shape == 2:
        return str(n), one_of(rng, "<w>  <k>。  ＋<w>  $<k>$。  答案是<k>", k=k, w=str(k).translate(WIDE))
    if shape == 3:
        point, ratio = f"({n}, {m})", rf"\frac{{{n}}}{{{m * n + 1}}}"
        return pick(
            rng,
            (
                (point, f"（{n}，{p}）"),
                (point, f"({n},{p})".translate(WIDE)),
                (ratio, f"{n}/{p * n + 1}".translate(WIDE)),
            ),
        )
    if shape == 4:
        return pick(
            rng,
            (
                (str(n), f"x＝{k}"),
                (f"y={n}", f"y ＝ {k}"),
                (f"-{n}", f"－{k}"),
                (f"{m}\\%", f"{p}％"),
                (str(n), f"x等于{k}"),
            ),
        )
    if shape == 5:
        word = pick(rng, list(SAYINGS))
        return word, one_of(rng, r"<w>  \text{<w>}  <w>。  \textbf{<w>}", w=word if correct else SAYINGS[word])
    if shape == 6:
        return f"{n}, {n + m}", one_of(
            rng, r"<a>，<b>  <a>、<b>  <a>和<b>  <a> 或 <b>  <a>\text{或}<b>  <b>，<a>", a=n, b=n + p
        )
    return str(n * 10000), one_of(rng, r"<k>万  <k>\text{万}  <k>0000元", k=k)


WORDS = tuple("Monday Tuesday even odd yes no true false infinite undefined isosceles Alice Bob blue red".split())  # noqa: SIM905
PHRASES = ("no solution", "infinitely many", "right triangle", "Aunt May", "rational number")


def words(rng: Random, correct: bool) -> tuple[str, str]:
    if rng.randrange(4) == 0:
        letter = pick(rng, "ABCDE")
        other = letter if correct else pick(rng, [c for c in "ABCDE" if c != letter])
        return letter, one_of(rng, r"<c>  (<c>)  \text{<c>}  \textbf{(<c>)}  \text{(<c>)}  \mathrm{<c>}  <c>.", c=other)
    options = pick(rng, (WORDS, PHRASES))
    word = pick(rng, options)
    other = word if correct else pick(rng, [w for w in options if w != word])
    forms = r'<w>  \text{<w>}  \textbf{<w>}  \mathrm{<w>}  <W>  <w>.  \text{ <w> }  \text{<w>.}  "<w>"'
    return pick(rng, (word, rf"\text{{{word}}}")), one_of(rng, forms, w=other, W=other.capitalize())


def malformed(rng: Random, correct: bool) -> tuple[str, str]:
    """Missing braces, commands without a backslash or with two, arguments without braces."""
    p, q, r, a = rng.randrange(1, 10), rng.randrange(2, 10), free_of_squares(rng), rng.randrange(2, 10)
    while gcd(p, q) > 1:
        p = rng.randrange(1, 10)
    shape = rng.randrange(5)
    if shape < 2:
        u, v = (p, q) if correct else pick(rng, ((p + 1, q), (p, q + 1)))
        forms = (
            r"\frac{<u>}{<v>  frac{<u>}{<v>}  \\frac{<u>}{<v>}  \frac {<u>} {<v>}  \frac{<u>} {<v>}  \frac{<u>}{<v>}}"
        )
        if u < 10 and v < 10:
            forms += r"  \frac<u><v>  \frac <u><v>  \frac<u>{<v>}  \frac{<u>}<v>  \frac <u> <v>  frac<u><v>"
        return frac(Fraction(p, q)), one_of(rng, forms, u=u, v=v)
    if shape == 2:
        forms = r"\sqrt{<s>  sqrt{<s>}  sqrt(<s>)  \sqrt(<s>)  \\sqrt{<s>}  √<s>  √(<s>)" + (
            r"  \sqrt<s>  \sqrt <s>" if r < 9 else ""
        )
        return rf"\sqrt{{{r}}}", one_of(rng, forms, s=r if correct else r + 1)
    b = a if correct else a + 1
    if shape == 3:
        return rf"{a}\pi", one_of(rng, r"<b>pi  <b> pi  <b>π  <b>\\pi  <b>*\pi  <b>*pi", b=b)
    forms = r"\frac{\sqrt{<r>}}{<b>  sqrt(<r>)/<b>  \dfrac{\sqrt {<r>}}{<b>}  \sqrt{<r>}/<b>  frac{sqrt{<r>}}{<b>}"
    forms += r"  \frac{\sqrt<r>}{<b>}" if r < 10 else ""
    return rf"\frac{{\sqrt{{{r}}}}}{{{a}}}", one_of(
        rng, forms + (r"  \frac{\sqrt{<r>}} <b>" if b < 10 else ""), r=r, b=b
    )
