r"""Kinds of maths answers that are numbers and expressions: functions (rng, correct) -> (gold, answer); see `maths_pairs`."""

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(rng: Random, options: Sequence[T]) -> T:
    return options[rng.randrange(len(options))]


def one_of(rng: Random, forms: str, **values: object) -> str:
    """One of the forms, which are separated by two spaces or a newline, with its <names> filled in."""
    form = pick(rng, re.split(r"\s{2,}|\n", forms.strip()))
    for name, value in values.items():
        form = form.replace(f"<{name}>", str(value))
    return form.replace("+-", "-").replace("+ -", "- ")


def terminates(value: Fraction) -> bool:
    return 10**12 % value.denominator == 0


def decimal(value: Fraction) -> str:
    """The exact decimal of a fraction that terminates."""
    whole, rest = divmod(int(abs(value) * 10**12), 10**12)
    digits = f"{rest:012d}".rstrip("0")
    return ("-" if value < 0 else "") + (f"{whole}.{digits}" if digits else str(whole))


def frac(value: Fraction, times: int = 1) -> str:
    return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator) * times}}}{{{value.denominator * times}}}"


def number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else frac(value)


def rewritten(rng: Random, value: Fraction) -> str:
    """The same number, perhaps in another form."""
    if value.denominator == 1:
        return str(value)
    f = frac(value)
    return one_of(
        rng,
        "<f>  <d>  <p>/<q>  <g>",
        f=f,
        d=f.replace("frac", "dfrac"),
        p=value.numerator,
        q=value.denominator,
        g=frac(value, 2),
    )


def fraction(rng: Random) -> Fraction:
    while (value := Fraction(rng.randrange(1, 60), rng.randrange(2, 30))).denominator == 1:
        pass
    return value * pick(rng, (1, 1, -1))


def free_of_squares(rng: Random) -> int:
    return pick(rng, (2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19))


def integers(rng: Random, correct: bool) -> tuple[str, str]:
    n = rng.randrange(2, 10 ** rng.randrange(1, 8) + 2) * pick(rng, (1, 1, -1))
    m = n if correct else pick(rng, (n + 1, n - 1, -n, n * 10, n + 10 ** (len(str(abs(n))) - 1)))
    forms = r"""
        <m>  <c>  <b>  <t>  <s>0<a>  <m>.0  <m>.  $<m>$  \(<m>\)  \textbf{<m>}  \mathbf{<m>}  <s> <a>  {<m>}  \left(<m>\right)
    """
    values = {"m": m, "c": f"{m:,}", "b": f"{m:,}".replace(",", "{,}"), "t": f"{m:,}".replace(",", r"\,"), "a": abs(m)}
    answer = one_of(rng, forms + ("  \u2212<a>" if m < 0 else "  +<m>"), s="-" if m < 0 else "", **values)
    return pick(rng, (str(n), f"{n:,}")), answer


def fractions(rng: Random, correct: bool) -> tuple[str, str]:
    value = fraction(rng)
    p, q = value.numerator, value.denominator
    incorrect = [-value, value + 1, Fraction(p + 1, q), Fraction(p, q + 1)] + ([1 / value] if abs(p) != q else [])
    other = value if correct else pick(rng, incorrect)
    forms = r"""
        <f>  <d>  <t>  <p>/<q>  <p> / <q>  <g>  \frac{<p>}{<q>}  \frac{<m>}{-<q>}  <p>\div<q>  \left(\frac{<p>}{<q>}\right)  $<f>$
    """ + ("<x>" if terminates(other) else "")
    f = frac(other)
    values = {
        "f": f,
        "d": f.replace("frac", "dfrac"),
        "t": f.replace("frac", "tfrac"),
        "g": frac(other, rng.randrange(2, 9)),
    }
    answer = one_of(rng, forms, p=other.numerator, q=other.denominator, m=-other.numerator, x=decimal(other), **values)
    return pick(rng, (frac(value), f"{p}/{q}")), answer


def mixed_numbers(rng: Random, correct: bool) -> tuple[str, str]:
    whole, q = rng.randrange(1, 20), rng.randrange(2, 12)
    p = rng.randrange(1, q)
    value = whole + Fraction(p, q)
    if not correct:  # the whole part missing, multiplied or different; another fraction
        incorrect = [Fraction(p, q), value + 1, Fraction(whole * p, q), -value, Fraction(whole * q + p + 1, q)]
        return rf"{whole}\frac{{{p}}}{{{q}}}", number(pick(rng, [w for w in incorrect if w != value]))
    parts = {"w": whole, "p": p, "q": q}
    mixed = one_of(rng, r"<w>\frac{<p>}{<q>}  <w>\dfrac{<p>}{<q>}  <w> <p>/<q>  <w>\ \frac{<p>}{<q>}", **parts)
    plain = one_of(
        rng, r"<f>  <u>/<v>  <w> + \frac{<p>}{<q>}", f=frac(value), u=value.numerator, v=value.denominator, **parts
    )
    return (mixed, plain) if rng.randrange(2) else (plain, mixed)


def decimals(rng: Random, correct: bool) -> tuple[str, str]:
    if rng.randrange(3) == 0:  # one that does not terminate
        while terminates(value := fraction(rng)):
            pass
        digits = rng.randrange(6, 10) if correct else rng.randrange(1, 4)
        rounded = round(abs(value) * 10**digits)
        return frac(value), f"{'-' if value < 0 else ''}{rounded // 10**digits}.{rounded % 10**digits:0{digits}d}"
    value = Fraction(rng.randrange(1, 10**5), 10 ** rng.randrange(1, 5)) * pick(rng, (1, 1, -1))
    step = Fraction(1, 10 ** len(decimal(value).partition(".")[2]))
    other = value if correct else pick(rng, (value + step, value - step, -value, value * 10, value / 10))
    text = decimal(other)
    zeros = text if "." in text else text + "."
    short = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
    return decimal(value), one_of(rng, "<t>  <z>0  <z>000  <f>  $<t>$  <s>", t=text, z=zeros, f=number(other), s=short)


def percent(rng: Random, correct: bool) -> tuple[str, str]:
    value = Fraction(rng.randrange(1, 1000), pick(rng, (1, 1, 2, 4, 10)))
    other = value if correct else pick(rng, (value + 1, value * 10, value / 10, value + Fraction(1, 2)))
    signed = "<p>\\%  <p>%  <p> \\%  $<p>\\%$  <p> percent  <p>\\text{ percent}  <p>\uff05"
    values = {"p": decimal(other), "d": decimal(other / 100), "f": number(other / 100)}
    if rng.randrange(2):
        return decimal(value) + r"\%", one_of(rng, signed + "  <p>  <d>  <f>", **values)
    return pick(rng, (decimal(value / 100), number(value / 100))), one_of(rng, signed, **values)


def scientific(rng: Random, correct: bool) -> tuple[str, str]:
    tenths, power = rng.randrange(11, 100), pick(rng, (-24, -19, -12, -6, -3, 3, 4, 5, 8, 23))
    incorrect = ((tenths + 1, power), (tenths, power + 1), (tenths, -power), (-tenths, power))
    other, shift = (tenths, power) if correct else pick(rng, incorrect)
    forms = "<m>\\times 10^{<e>}  <m> \\cdot 10^{<e>}  <m> \u00d7 10^{<e>}  <n> \\times 10^{<l>}"
    whole = other * 10 ** max(0, shift - 1)
    forms += "  <w>  <c>" if 1 <= shift < 10 else ""
    answer = one_of(rng, forms, m=other / 10, e=shift, n=other, l=shift - 1, w=whole, c=f"{whole:,}")
    return rf"{tenths / 10} \times 10^{{{power}}}", answer


def surds(rng: Random, correct: bool) -> tuple[str, str]:
    a, r, c = rng.randrange(2, 9), free_of_squares(rng), rng.randrange(1, 12)
    b, s = (a, r) if correct else pick(rng, ((a + 1, r), (a, r + 1), (-a, r)))
    gold, forms = pick(
        rng,
        (
            (
                r"<a>\sqrt{<r>}",
                r"<b>\cdot\sqrt{<s>}  \sqrt{<s>} \cdot (<b>)  <b> \sqrt{<s>}" + (r"  \sqrt{<bbs>}" if b > 0 else ""),
            ),
            (r"<c>+<a>\sqrt{<r>}", r"<b>\sqrt{<s>}+<c>  <c> + <b>\sqrt{<s>}"),
            (r"\frac{<a>}{\sqrt{<r>}}", r"\frac{<b>\sqrt{<s>}}{<s>}"),
            (r"\sqrt[3]{<aaar>}", r"<b>\sqrt[3]{<s>}"),
        ),
    )
    values = {"a": a, "r": r, "b": b, "s": s, "c": c, "bbs": b * b * s, "aaar": a**3 * r}
    return one_of(rng, gold, **values), one_of(rng, forms, **values)


def polynomial(coefficients: Sequence[int], name: str) -> list[str]:
    """The terms, highest power first."""
    terms: list[str] = []
    for power, c in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        variable = {0: "", 1: name}.get(power, f"{name}^{power}")
        if c:
            terms.append(f"{c}{variable}" if abs(c) > 1 or not variable else variable if c == 1 else f"-{variable}")
    return terms


def expressions(rng: Random, correct: bool) -> tuple[str, str]:
    a, b = (rng.randrange(1, 10) * pick(rng, (1, -1)) for _ in range(2))
    c, name = rng.randrange(1, 6), pick(rng, ("x", "n", "t", "a"))
    d, e, f = (a, b, c) if correct else pick(rng, ((a + 1, b, c), (a, b, c + 1), (a, b - 1, c)))
    if not correct and {d, e} == {a, b} and f == c:
        e -= 20
    gold, terms = polynomial([c, c * (a + b), c * a * b], name), polynomial([f, f * (d + e), f * d * e], name)
    forms = r"<down>  <up>  <f>(<x>+<d>)(<x>+<e>)  <f>(<x>+<e>)(<x>+<d>)  <f>\left(<x>+<d>\right)\left(<x>+<e>\right)"
    values = {"down": "+".join(terms), "up": "+".join(terms[::-1]), "f": "" if f == 1 else f, "d": d, "e": e, "x": name}
    return "+".join(gold).replace("+-", "-"), one_of(rng, forms, **values)


ANGLES = {  # multiple of pi -> (sine, cosine)
    r"\frac{\pi}{6}": (r"\frac{1}{2}", r"\frac{\sqrt{3}}{2}"),
    r"\frac{\pi}{4}": (r"\frac{\sqrt{2}}{2}", r"\frac{\sqrt{2}}{2}"),
    r"\frac{\pi}{3}": (r"\frac{\sqrt{3}}{2}", r"\frac{1}{2}"),
    r"\frac{2\pi}{3}": (r"\frac{\sqrt{3}}{2}", r"-\frac{1}{2}"),
    r"\frac{5\pi}{6}": (r"\frac{1}{2}", r"-\frac{\sqrt{3}}{2}"),
}


def constants(rng: Random, correct: bool) -> tuple[str, str]:
    """pi, e, logarithms and values of sine and cosine."""
    a, b = rng.randrange(2, 10), rng.randrange(2, 6)
    shape = rng.randrange(5)
    if shape == 0:
        while gcd(a, b) > 1:
            a += 1
        p, q = (a, b) if correct else pick(rng, ((a + 1, b), (a, b + 1), (-a, b)))
        forms = "\\frac{<p>}{<q>}\\pi  <p>\\pi/<q>  \\frac{<p> \\pi}{<q>}  \\frac{<p>\u03c0}{<q>}"
        return rf"\frac{{{a}\pi}}{{{b}}}", one_of(rng, forms, p=p, q=q)
    if shape == 1:
        c, d = (a, b) if correct else pick(rng, ((a + 1, b), (a, b + 1)))
        return rf"\ln {a**b}", one_of(rng, r"<d>\ln <c>  <d>\ln(<c>)  <d> \cdot \ln{<c>}", c=c, d=d)
    if shape == 2:
        return rf"\log_{{{a}}} {a**b}", str(b if correct else pick(rng, (b + 1, -b)))
    if shape == 3:
        return rf"e^{{{a}}} + {b}", one_of(rng, r"<b> + e^{<n>}  e^{<n>}+<b>", b=b, n=a if correct else a + 1)
    angle, which = pick(rng, list(ANGLES)), rng.randrange(2)
    value = ANGLES[angle][which]
    if correct:
        return value, "\\" + ("sin", "cos")[which] + rf"\left({angle}\right)"
    return value, pick(rng, ["-" + value if value[0] != "-" else value[1:], r"\frac{\sqrt{5}}{2}", r"\frac{1}{3}"])


def powers(rng: Random, correct: bool) -> tuple[str, str]:
    a, n = rng.randrange(2, 12), rng.randrange(2, 9)
    m = n if correct else n + pick(rng, (1, -1))
    gold, forms = pick(
        rng,
        (
            ("<an>", "<a>^<m>  <a>^{<m>}"),
            (r"\frac{1}{x^{<n>}}", "x^{-<m>}  1/x^{<m>}  1/x^<m>"),
            ("<a>^{n+<n>}", r"<am> \cdot <a>^n"),
            ("a^{<n>}b", r"b a^<m>  a^<m> \cdot b  b \times a^{<m>}"),
        ),
    )
    values = {"a": a, "n": n, "m": m, "an": a**n, "am": a**m}
    return one_of(rng, gold, **values), one_of(rng, forms, **values)
