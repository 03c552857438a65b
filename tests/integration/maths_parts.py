r"""Kinds of maths answers with several elements: sets, points, intervals, matrices, equations; see `maths_pairs`."""

from collections.abc import Sequence
from fractions import Fraction
from random import Random

from maths_numbers import fraction, free_of_squares, number, one_of, pick, rewritten


def distinct(rng: Random, count: int) -> list[Fraction]:
    values: dict[Fraction, None] = {}
    while len(values) < count:
        values[fraction(rng) if rng.randrange(4) == 0 else Fraction(rng.randrange(-30, 31))] = None
    return list(values)


def shuffled(rng: Random, values: Sequence[Fraction]) -> list[Fraction]:
    values = list(values)
    rng.shuffle(values)
    return values


def spoiled(rng: Random, values: list[Fraction]) -> list[Fraction]:
    """One element missing, added, negated or different."""
    i, extra = rng.randrange(len(values)), Fraction(rng.randrange(31, 60))
    shape = rng.randrange(4)
    if shape == 0 and len(values) > 2:
        return values[:i] + values[i + 1 :]
    if shape == 1:
        return [*values, extra]
    other = -values[i] if shape == 2 and -values[i] not in values else extra
    return [*values[:i], other, *values[i + 1 :]]


def listed(rng: Random, values: Sequence[Fraction]) -> str:
    return pick(rng, (",", ", ", r",\ ")).join(rewritten(rng, v) for v in values)


def sets(rng: Random, correct: bool) -> tuple[str, str]:
    values = distinct(rng, rng.randrange(2, 6))
    text = listed(rng, shuffled(rng, values) if correct else spoiled(rng, values))
    forms = r"\{<t>\}  \left\{<t>\right\}  \left\{ <t> \right\}  \lbrace <t> \rbrace  <t>  S = \{<t>\}"
    return rf"\{{{', '.join(map(number, values))}\}}", one_of(rng, forms, t=text)


def tuples(rng: Random, correct: bool) -> tuple[str, str]:
    """Points. Swapped coordinates are a different point."""
    values = distinct(rng, rng.randrange(2, 5))
    text = listed(rng, values if correct else pick(rng, (values[1:] + values[:1], spoiled(rng, values))))
    forms = r"(<t>)  \left(<t>\right)  \left( <t> \right)  \bigl(<t>\bigr)  \big( <t> \big)"
    return f"({', '.join(map(number, values))})", one_of(rng, forms, t=text)


def interval(low: str, high: str, open_low: bool, open_high: bool) -> str:
    return f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"


def sized(text: str) -> str:
    for bracket, size in zip("([)]", (r"\left(", r"\left[", r"\right)", r"\right]"), strict=True):
        text = text.replace(bracket, size)
    return text


def intervals(rng: Random, correct: bool) -> tuple[str, str]:
    low, high = sorted(distinct(rng, 2))
    opens, ends = [bool(rng.randrange(2)) for _ in range(2)], [number(low), number(high)]
    unbounded = rng.randrange(3)
    if unbounded < 2:
        ends[unbounded], opens[unbounded] = (r"-\infty", r"\infty")[unbounded], True
    gold = interval(*ends, *opens)
    if not correct:
        i = 1 - unbounded if unbounded < 2 else rng.randrange(2)  # an end point that is a number
        if rng.randrange(2):
            opens[i] = not opens[i]
        else:
            ends[i] = number((low - 1, high + 1)[i])
    text = interval(*ends, *opens)
    others = {
        "s": sized(text),
        "p": text.replace(r", \infty", r", +\infty"),
        "c": text.replace(", ", ","),
        "u": text.replace(r"\infty", "\u221e"),
    }
    return gold, one_of(rng, r"<t>  <s>  <p>  x \in <t>  <c>  <u>", t=text, **others)


def unions(rng: Random, correct: bool) -> tuple[str, str]:
    a, b, c, d = map(number, sorted(distinct(rng, 4)))
    opens = [bool(rng.randrange(2)) for _ in range(4)]
    gold = one_of(rng, r"<i> \cup <j>", i=interval(a, b, *opens[:2]), j=interval(c, d, *opens[2:]))
    forms = r"<i> \cup <j>  <j> \cup <i>  <i>\cup<j>  x \in <i> \cup <j>"
    if not correct and rng.randrange(3) == 0:
        forms = r"<i>  <j>  <i> \cap <j>"
    elif not correct:
        i = rng.randrange(4)
        opens[i] = not opens[i]
    return gold, one_of(rng, forms, i=interval(a, b, *opens[:2]), j=interval(c, d, *opens[2:]))


def matrix(rows: Sequence[Sequence[str]], environment: str) -> str:
    return rf"\begin{{{environment}}}" + r" \\ ".join(" & ".join(row) for row in rows) + rf"\end{{{environment}}}"


def matrices(rng: Random, correct: bool) -> tuple[str, str]:
    height, width = pick(rng, ((2, 2), (2, 2), (3, 3), (2, 1), (3, 1), (2, 3)))
    values = distinct(rng, height * width)
    rows = [values[i * width : (i + 1) * width] for i in range(height)]
    gold = matrix([[number(v) for v in row] for row in rows], "pmatrix")
    if not correct:
        changed = [list(row) for row in rows]
        changed[rng.randrange(height)][rng.randrange(width)] += pick(rng, (1, -1))
        rows = pick(rng, ([list(column) for column in zip(*rows, strict=True)], changed, rows[::-1]))
    written = [[rewritten(rng, v) for v in row] for row in rows]
    text = matrix(written, pick(rng, ("pmatrix", "bmatrix")))
    close, plain = text.replace(" & ", "&").replace(r" \\ ", r"\\"), matrix(written, "matrix")
    return gold, one_of(rng, r"<t>  <c>  \left(<m>\right)  A = <t>", t=text, c=close, m=plain)


def equations(rng: Random, correct: bool) -> tuple[str, str]:
    value = distinct(rng, 1)[0]
    name = pick(rng, ("x", "y", "n", "a", "k", "m"))
    other = value if correct else pick(rng, [w for w in (value + 1, -value, value * 2) if w != value])
    shape, values = rng.randrange(4), {"x": name, "v": rewritten(rng, other)}
    if shape == 0:
        return number(value), one_of(rng, "<x>=<v>  <x> = <v>  $<x>=<v>$  f(2) = <v>  <x>_1=<v>", **values)
    if shape == 1:
        return f"{name}={number(value)}", values["v"]
    if shape == 2:
        if not correct and rng.randrange(2):
            return f"{name}={number(value)}", f"z = {number(value)}"
        return f"{name}={number(value)}", one_of(rng, "<x> = <v>  <x>=<v>", **values)
    a, b = rng.randrange(2, 9), rng.randrange(1, 9)
    c, d = (a, b) if correct else pick(rng, ((a + 1, b), (a, -b), (-a, b), (a, b + 1)))
    forms = "y=<c>x+<d>  <c>x+<d>  y = <d>+<c>x  <c>x+<d>-y=0  y+<C>x+<D>=0  <c>x+<d>=y"
    return f"y={a}x+{b}", one_of(rng, forms, c=c, d=d, C=-c, D=-d)


def inequalities(rng: Random, correct: bool) -> tuple[str, str]:
    low, high = sorted(distinct(rng, 2))
    strict = bool(rng.randrange(2))
    less, more, other = ("<", ">", r"\le") if strict else (r"\le", r"\ge", "<")
    same = less if strict else pick(rng, (r"\leq", r"\leqslant", r"\le", "\u2264"))
    turned = more if strict else pick(rng, (r"\geq", r"\ge", "\u2265"))
    values = {
        "x": pick(rng, ("x", "a", "n", "k")),
        "l": number(low),
        "h": number(high),
        "H": rewritten(rng, high),
        "L": rewritten(rng, low),
    }
    values |= {
        "lt": less,
        "gt": more,
        "ot": other,
        "le": same,
        "ge": turned,
        "h1": number(high + 1),
        "l1": number(low - 1),
    }
    if rng.randrange(2):
        forms = "<x> <le> <H>  <H> <ge> <x>" if correct else "<x> <gt> <h>  <x> <lt> <h1>  <x> <ot> <h>  <h> <lt> <x>"
        return one_of(rng, "<x> <lt> <h>", **values), one_of(rng, forms, **values)
    forms = "<L> <le> <x> <le> <H>  <H> <ge> <x> <ge> <L>"
    if not correct:
        forms = "<l> <ot> <x> <lt> <h>  <l> <lt> <x> <lt> <h1>  <l1> <lt> <x> <lt> <h>"
    return one_of(rng, "<l> <lt> <x> <lt> <h>", **values), one_of(rng, forms, **values)


def multiple_values(rng: Random, correct: bool) -> tuple[str, str]:
    values = distinct(rng, rng.randrange(2, 4))
    texts = [rewritten(rng, v) for v in (shuffled(rng, values) if correct else spoiled(rng, values))]
    joined = {
        "c": ", ".join(texts),
        "t": ",".join(texts),
        "s": r",\ ".join(texts),
        "q": r",\quad ".join(texts),
        "k": "; ".join(texts),
    }
    forms = r"<c>  <t>  <s>  <k>  <q>  <a> \text{ and } <z>  <a> and <z>"
    if len(texts) == 2:
        forms += r"  <a> \text{ or } <z>  <a> or <z>  x=<a> or x=<z>  x_1=<a>, x_2=<z>  x=<a> \text{ or } x=<z>"
    return ", ".join(map(number, values)), one_of(rng, forms, a=", ".join(texts[:-1]), z=texts[-1], **joined)


def plus_minus(rng: Random, correct: bool) -> tuple[str, str]:
    a, r = rng.randrange(1, 10), free_of_squares(rng)
    b, s = (a, r) if correct else pick(rng, ((a + 1, r), (a, r + 1), (-a, r)))
    forms = r"<b>+<r>, <b>-<r>  <b> - <r>, <b> + <r>  <b> \pm <r>  <b>\pm<r>  x = <b> \pm <r>"
    return rf"{a} \pm \sqrt{{{r}}}", one_of(rng, forms, b=b, r=rf"\sqrt{{{s}}}")


def complex_numbers(rng: Random, correct: bool) -> tuple[str, str]:
    a, b = rng.randrange(1, 20) * pick(rng, (1, -1)), rng.randrange(2, 20) * pick(rng, (1, -1))
    c, d = (a, b) if correct else pick(rng, ((-a, b), (a, -b), (a + 1, b), (b, a) if a != b else (a, b + 1)))
    gold = one_of(rng, "<a>+<b>i", a=a, b=b)
    return gold, one_of(rng, r"<c>+<d>i  <d>i+<c>  <c> + <d> i  <c>+<d>\cdot i  z = <c>+<d>i", c=c, d=d)
