"""Comparison of two expressions with sympy, in the child process; loaded there by its path, imports nothing of r1ray.

Trees (`expression`) are built into sympy and compared by their values: at several points with 40 digits, where both are expressions
of the same letters. Two short expressions that agree there are equal. What is no expression (matrices, sets, integrals) math-verify
reads and compares.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

Tree = list[Any]

DIGITS = 40
AGREE = 1e-25
"""Relative difference of equal values, which are computed with DIGITS digits."""
NOTHING = 1e-60
"""Differences of numbers below are rounding errors of zero."""
ROUNDED_PLACES, ROUNDED = 6, 1e-4
"""A decimal with at least so many places may be rounded: half a unit of its last one, and this relative difference, are allowed."""
POINTS = ((7, 5), (11, 6), (4, 7), (17, 9), (25, 12), (5, 13), (29, 14), (9, 11), (41, 13), (23, 17), (8, 15), (37, 19))
NUM_POINTS, MIN_POINTS = 7, 4
CLEARLY, FLOAT_AGREE, EXACT = 1e-3, 1e-4, 1e-12
"""For math-verify's objects: above CLEARLY they differ; FLOAT_AGREE is enough if one is a decimal, else EXACT."""


class Undecided(Exception):
    """The values cannot be computed."""


class Algebra:
    """sympy and math-verify, imported; `warm_up` builds the tables that all forks then share."""

    def __init__(self) -> None:
        self._sympy: Any = importlib.import_module("sympy")
        self._library: Any = importlib.import_module("math_verify")
        self._parser: Any = importlib.import_module("latex2sympy2_extended.latex2sympy2")
        self._complex: Any = importlib.import_module("math_verify.grader").should_treat_as_complex
        logging.disable(logging.CRITICAL)
        # A capital is another variable than the small letter.
        self._config = self._parser.ConversionConfig(lowercase_symbols=False)
        self._read: dict[str, Any] = {}

    def equal(self, gold: dict[str, Any], answer: dict[str, Any]) -> bool:
        """Each is {"text", "tree": None where the text is no expression, "sides": trees of an equation or inequality, "sign"}."""
        if gold["tree"] and answer["tree"]:
            return self.equal_trees(gold["tree"], answer["tree"])
        if gold["tree"] and answer["sides"] and answer["sign"] == "=":
            left, right = answer["sides"]
            return self.equal_trees(gold["tree"], right) and (_is_label(left) or self.equal_trees(gold["tree"], left))
        if gold.get("sides") and answer.get("sides"):
            return self._equal_relations(gold, answer)
        if gold["ambiguous"] or answer["ambiguous"]:
            return False
        return self._equal_objects(gold["text"], answer["text"])

    def equal_trees(self, gold: Tree, answer: Tree) -> bool:
        g, a = self._built(gold), self._built(answer)
        places = [number for tree in (gold, answer) if (number := _places(tree)) is not None]
        if not g.free_symbols and not a.free_symbols:
            return self._equal_numbers(g, a, min(places) if places else None)
        names = sorted(g.free_symbols | a.free_symbols, key=str)
        try:
            values = self._values((g, a), names, positive=self._needs_positive(gold))
        except Undecided:
            return bool(self._sympy.simplify(g - a) == 0)
        return all(_agree(here, there) for here, there in values)

    def _equal_relations(self, gold: dict[str, Any], answer: dict[str, Any]) -> bool:
        """One is the other times a constant, in an inequality a positive one, or a negative one with the sign reversed."""
        sympy = self._sympy
        sides = [[self._built(tree) for tree in relation["sides"]] for relation in (gold, answer)]
        g, a = (left - right for left, right in sides)
        names = sorted(g.free_symbols | a.free_symbols, key=str)
        if not names:
            return False
        if gold["sign"] == "=" == answer["sign"]:
            if self._constant_ratio(g, a, names, gold) is not None:
                return True
            g, a = (sympy.fraction(sympy.together(side))[0] for side in (g, a))
            return bool(g.free_symbols) and self._constant_ratio(g, a, names, gold) is not None
        ratio = self._constant_ratio(g, a, names, gold)
        if ratio is None or abs(ratio.imag) > AGREE:
            return False
        reverse = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
        wanted = answer["sign"] if ratio.real > 0 else reverse.get(answer["sign"])
        return gold["sign"] == wanted

    def _constant_ratio(self, g: Any, a: Any, names: Sequence[Any], gold: dict[str, Any]) -> complex | None:
        positive = any(self._needs_positive(tree) for tree in gold["sides"])
        try:
            values = self._values((g, a), names, positive=positive)
        except Undecided:
            return None
        if any(_tiny(here) != _tiny(there) for here, there in values):
            return None
        ratios = [there / here for here, there in values if not _tiny(here)]
        if len(ratios) < MIN_POINTS or not all(_agree(ratio, ratios[0]) for ratio in ratios):
            return None
        return complex(ratios[0])

    def _values(self, sides: Sequence[Any], names: Sequence[Any], *, positive: bool) -> list[list[Any]]:
        """The values of the sides at several points. A letter is positive where a root or a logarithm of letters needs it."""
        mpmath = importlib.import_module("mpmath")
        found: list[list[Any]] = []
        for shift in range(NUM_POINTS):
            point = {}
            for index, name in enumerate(names):
                over, under = POINTS[(shift * 5 + index * 7 + index * shift) % len(POINTS)]
                sign = 1 if positive or (shift >> (index % 3)) % 2 == 0 else -1
                point[name] = self._sympy.Rational(sign * (over + 13 * (index // len(POINTS))), under)
            values = [self._number(side.subs(point)) for side in sides]
            if all(mpmath.isfinite(value) for value in values):
                found.append(values)
        if len(found) < MIN_POINTS:
            raise Undecided
        return found

    def _number(self, expression: Any) -> Any:
        """Its value as a complex number of DIGITS digits."""
        mpmath = importlib.import_module("mpmath")
        mpmath.mp.dps = DIGITS
        value = expression.doit().evalf(DIGITS)
        if value.has(self._sympy.nan, self._sympy.zoo, self._sympy.oo, -self._sympy.oo):
            return mpmath.mpc("nan")
        real, imaginary = value.as_real_imag()
        if not (real.is_Number and imaginary.is_Number):
            raise Undecided
        return mpmath.mpc(real._to_mpmath(mpmath.mp.prec), imaginary._to_mpmath(mpmath.mp.prec))

    def _equal_numbers(self, g: Any, a: Any, places: int | None) -> bool:
        sympy = self._sympy
        infinite = (sympy.oo, -sympy.oo, sympy.zoo, sympy.nan)
        if g.has(*infinite) or a.has(*infinite):
            return bool(g == a and not g.has(sympy.nan, sympy.zoo))
        if g == a:
            return True
        try:
            difference, size = (abs(self._number(side)) for side in (g - a, g))
        except Undecided:
            return False
        if size != size or difference != difference:
            return False
        if difference <= AGREE * size:
            return True
        if size < NOTHING and difference < NOTHING:
            return bool(sympy.simplify(g - a) == 0)
        if places is None or places < ROUNDED_PLACES:
            return False
        return bool(difference <= min(0.5 * 10.0**-places, ROUNDED * size))

    def _needs_positive(self, tree: Tree) -> bool:
        """Whether a letter is below a root, in a logarithm, or has an exponent with letters."""
        return _rooted(self._built(tree, real=True), self._sympy)

    def _built(self, tree: Tree, *, real: bool = False) -> Any:
        sympy = self._sympy
        kind = tree[0]
        if kind == "num":
            return sympy.Rational(tree[1])
        if kind == "sym":
            return sympy.Symbol(tree[1], real=True if real else None)
        if kind == "const":
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[tree[1]]
        if kind in ("sum", "prod"):
            variable, first, last, term = (self._built(["sym", tree[1]]), *(self._built(part) for part in tree[2:]))
            made = (sympy.Sum if kind == "sum" else sympy.Product)(term, (variable, first, last)).doit()
            return made.simplify() if made.has(sympy.Piecewise) else made
        arguments = [self._built(part, real=real) for part in tree[(2 if kind == "fn" else 1) :]]
        if kind == "fn":
            return self._applied(tree[1], arguments)
        return {"+": sympy.Add, "*": sympy.Mul, "^": sympy.Pow}[kind](*arguments)

    def _applied(self, name: str, arguments: list[Any]) -> Any:
        sympy = self._sympy
        functions: dict[str, Callable[..., Any]] = {
            **{"ln": sympy.log, "log": sympy.log, "abs": sympy.Abs, "floor": sympy.floor, "ceil": sympy.ceiling},
            **{
                "max": sympy.Max,
                "min": sympy.Min,
                "mod": sympy.Mod,
                "factorial": sympy.factorial,
                "factorial2": sympy.factorial2,
                "binomial": sympy.binomial,
            },
            **{
                f"{arc}{trig}": getattr(sympy, f"a{trig}")
                for arc in ("a", "arc")
                for trig in ("sin", "cos", "tan", "cot", "sec", "csc")
            },
            **{
                f"{arc}{trig}": getattr(sympy, f"a{trig}")
                for arc in ("a", "ar", "arc")
                for trig in ("sinh", "cosh", "tanh")
            },
            **{
                trig: getattr(sympy, trig)
                for trig in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
            },
        }
        if name in ("gcd", "lcm"):
            made = getattr(sympy, name)(arguments)
            return abs(made) if made.is_number else made
        return functions[name](*arguments) if name in functions else sympy.Function(name)(*arguments)

    def _equal_objects(self, gold: str, answer: str) -> bool:
        g, a = self._object(gold), self._object(answer)
        if g is None or a is None or self._differ(g, a):
            return False
        # verify is not symmetric: the gold comes first
        return bool(self._library.verify(g, a, timeout_seconds=None)) and self._same_size(g, a)

    def _object(self, text: str) -> Any:
        """math-verify's object for a text; None where it reads none."""
        if text not in self._read:
            try:
                self._read[text] = self._parser.latex2sympy(
                    text, is_real=not self._complex(text), normalization_config=None, conversion_config=self._config
                )
            except MemoryError:
                raise
            except Exception:
                self._read[text] = None
        return self._read[text]

    def _differ(self, g: Any, a: Any) -> bool:
        """Whether one is a name or an equation and the other is not, or two functions clearly differ at one point."""
        sympy = self._sympy
        if isinstance(g, sympy.Symbol) or isinstance(a, sympy.Symbol):
            return g != a
        if isinstance(a, sympy.core.relational.Relational) and not isinstance(
            g, sympy.core.relational.Relational | sympy.Set
        ):
            return True
        if not all(isinstance(side, sympy.Expr) for side in (g, a)):
            return False
        names = sorted(g.free_symbols | a.free_symbols, key=str)
        point = {name: sympy.Rational(7 + 4 * index, 5 + index) for index, name in enumerate(names)}
        try:
            here, there = (complex(side.subs(point).evalf(15)) for side in (g, a))
        except (ArithmeticError, TypeError, ValueError):
            return False
        return abs(here - there) > CLEARLY * (abs(here) + abs(there))

    def _same_size(self, g: Any, a: Any) -> bool:
        """math-verify takes numbers with a tiny difference as equal, also when the numbers are tiny: 10^{-20}, 10^{-21}."""
        if not all(isinstance(side, self._sympy.Expr) and side.is_number for side in (g, a)):
            return True
        try:
            difference, size = (abs(complex(side.evalf(30))) for side in (g - a, g))
        except (ArithmeticError, TypeError, ValueError):
            return bool(g == a)
        limit = FLOAT_AGREE if any(side.has(self._sympy.Float) for side in (g, a)) else EXACT
        return difference <= limit * size or difference < NOTHING


def _rooted(expression: Any, sympy: Any) -> bool:
    for part in sympy.preorder_traversal(expression):
        if isinstance(part, sympy.log) and part.free_symbols:
            return True
        if isinstance(part, sympy.Pow) and part.base.free_symbols and not part.exp.is_integer:
            return True
    return False


def _is_label(tree: Tree) -> bool:
    """Whether a tree only names a quantity, like `a+b` or `P(A)`: it has letters, and no number but in exponents."""
    if tree[0] == "sym":
        return True
    children: list[Any] = tree[1:2] if tree[0] == "^" else tree[1:]
    parts: list[Tree] = [part for part in children if isinstance(part, list) and part != ["num", "-1", None]]
    return bool(parts) and all(_is_label(part) for part in parts)


def _places(tree: Tree) -> int | None:
    """The least number of decimal places of the decimals in a tree; None where there are none."""
    if tree[0] == "num":
        return tree[2]
    children: list[Tree] = [part for part in tree[1:] if isinstance(part, list)]
    found = [places for part in children if (places := _places(part)) is not None]
    return min(found, default=None)


def _agree(a: Any, b: Any) -> bool:
    return abs(a - b) <= AGREE * max(abs(a), abs(b)) or (_tiny(a) and _tiny(b))


def _tiny(value: Any) -> bool:
    return abs(value) < 1e-30
