r"""The grammar of expressions in answers: normalised text -> a tree of lists, which `algebra` in the child turns into sympy.

    ["num", "3/2", decimals]   ["sym", "x_1"]   ["const", "pi" | "e" | "i" | "inf"]   ["+", a, b]   ["*", a, b]   ["^", a, b]
    ["fn", name, argument, ...]   ["sum" | "prod", variable, first, last, term]

It refuses what can be read in two ways, so that no wrong answer is read as the right one: two numbers side by side, words,
`3\frac{7}{2}`. Letters next to each other are a product. Time is linear in the length, and the depth is limited.
"""

from fractions import Fraction

from r1ray.reward.math.number import number
from r1ray.reward.math.style import FUNCTIONS
from r1ray.reward.math.symbols import (
    ACCENTS,
    ATOMS,
    CLOSING,
    ENDS,
    FUNCTION_OF,
    GREEK,
    RELATION,
    TRIGONOMETRIC,
    Ambiguous,
    Tree,
    Unsupported,
    negated,
    tokens_of,
    whole,
)

__all__ = ["Ambiguous", "Tree", "Unsupported", "parse"]

MAX_DEPTH = 60


def parse(text: str) -> Tree:
    r"""Example: `parse(r"2x")` is ["*", ["num", "2", None], ["sym", "x"]].

    Raises Ambiguous or Unsupported.
    """
    if plain := number(text):
        return ["num", str(plain.value / 100 if plain.percent else plain.value), plain.decimals]
    tokens = tokens_of(text)
    parser = _Parser(["{", *tokens, "}"] if r"\choose" in tokens else tokens)
    try:
        tree = parser.ratio()
    except RecursionError as error:
        raise Ambiguous("it nests too deep") from error
    if RELATION.fullmatch(parser.peek()):
        raise Unsupported("a relation")
    if parser.peek():
        raise Ambiguous(f"{parser.peek()} does not belong to an expression")
    return tree


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._position, self._depth = [*tokens, ""], 0, 0
        self._bound: list[str] = []
        """Variables of the sums around the current position: an `i` among them is not the imaginary unit."""

    def peek(self) -> str:
        return self._tokens[self._position]

    def _next(self) -> str:
        token = self._tokens[self._position]
        if not token:
            raise Ambiguous("the text ends too early")
        self._position += 1
        return token

    def _took(self, *tokens: str) -> bool:
        found = self.peek() in tokens and bool(self.peek())
        self._position += found
        return found

    def ratio(self) -> Tree:
        left = self.sum()
        if self._took(":"):
            return ["*", left, ["^", self.sum(), whole(-1)]]
        return left

    def sum(self) -> Tree:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Ambiguous("it nests too deep")
        found: Tree = self._product()
        while self.peek() in ("+", "-"):
            negative = self._next() == "-"
            term = self._product()
            found = ["+", found, negated(term) if negative else term]
        self._depth -= 1
        return found

    def _product(self) -> Tree:
        found: Tree = self._signed()
        while True:
            if self._took(r"\cdot", r"\times", "*"):
                found = ["*", found, self._signed()]
            elif self._took("/", r"\div"):
                found = ["*", found, ["^", self._signed(), whole(-1)]]
            elif self._took(r"\bmod", r"\mod"):
                found = ["fn", "mod", found, self._signed()]
            else:
                return found

    def _signed(self) -> Tree:
        negative = False
        while self.peek() in ("-", "+"):
            negative ^= self._next() == "-"
        found = self._factors(functions=True)
        return negated(found) if negative else found

    def _factors(self, *, functions: bool) -> Tree:
        """Factors without an operator between them."""
        first = self.peek()
        found: Tree = self._power()
        if first[:1].isdigit() and self.peek() == r"\frac":
            return self._mixed(found)
        while self._starts_factor(functions):
            if self.peek()[0].isdigit() or self.peek()[0] == ".":
                raise Ambiguous("a number after a factor")
            found = ["*", found, self._power()]
        return found

    def _mixed(self, integer: Tree) -> Tree:
        """`2\\frac{1}{3}`: a sum, if the fraction is proper and nothing follows; a product only where it cannot be a sum."""
        fraction = self._power()
        proper = fraction[0] == "*" and all(side[0] == "num" for side in (fraction[1], fraction[2][1]))
        if not proper:
            found: Tree = ["*", integer, fraction]
            while self._starts_factor(True) and not self.peek()[0].isdigit():
                found = ["*", found, self._power()]
            return found
        over, under = Fraction(fraction[1][1]), Fraction(fraction[2][1][1])
        if integer[0] != "num" or not 0 < over < under or self._starts_factor(True):
            raise Ambiguous("a mixed number or a product")
        return ["+", integer, fraction]

    def _starts_factor(self, functions: bool) -> bool:
        token = self.peek()
        if not token or token in ENDS:
            return False
        if token[0] == "\\" and token[1:] in FUNCTIONS:
            return functions
        if token in (r"\sum", r"\prod"):
            return functions
        return (
            token[0].isalnum() or token in ("(", "[", "{", ".") or token in ACCENTS or token in GREEK or token in ATOMS
        )

    def _power(self) -> Tree:
        base = self._postfix(self._atom())
        if self._took("^"):
            if self._took(r"\circ"):
                return base if self.peek() not in ("C", "F") else self._refuse("a temperature")
            exponent = self._argument()
            if base[0] == "sym" and self._took("_"):  # x^2_i
                base = ["sym", f"{base[1]}_{self._index()}"]
            base = self._postfix(["^", base, exponent])
        return base

    def _refuse(self, why: str) -> Tree:
        raise Ambiguous(why)

    def _postfix(self, tree: Tree) -> Tree:
        while self._took("!"):
            double = self._took("!")
            if double and self.peek() == "!":
                raise Ambiguous("three factorial signs")
            tree = ["fn", "factorial2" if double else "factorial", tree]
        return tree

    def _argument(self) -> Tree:
        """What follows `^`: braces, a sign and an atom, or one atom."""
        if self._took("-"):
            return negated(self._argument())
        if self.peek() in (r"\prime", "'", "*", "T", r"\top", r"\complement"):
            raise Unsupported("a superscript that is no power")
        if self.peek() == "{":
            return self._group("{")
        return self._atom()

    def _group(self, opening: str) -> Tree:
        if self._next() != opening:
            raise Ambiguous(f"{opening} is missing")
        found = self.ratio()
        if self.peek() == ",":
            raise Unsupported("a tuple")
        if not self._took(CLOSING[opening]):
            raise Ambiguous("a bracket is not closed")
        return found

    def _atom(self) -> Tree:
        token = self.peek()
        if token in ("{", "(", "["):
            if token == "{" and self._tokens[self._position + 1 :].count(r"\choose"):
                return self._choose()
            return self._group(token)
        if token in FUNCTION_OF:
            return ["fn", FUNCTION_OF[token], self._group(token)]
        token = self._next()
        if token[0].isdigit() or token[0] == ".":
            return self._number(token)
        if token == "f" and self.peek() == "(":
            return ["fn", "f", *self._several()]
        if token.isalpha() and token.isascii():
            return self._symbol(token) if len(token) == 1 else self._refuse("a word")
        if token in GREEK:
            return self._symbol(token)
        if token in ACCENTS:
            return self._symbol(token.replace(r"\variable", "") + self._raw())
        if token in (r"\angle", r"\triangle"):
            return self._symbol(token + self._points())
        return self._command(token)

    def _command(self, token: str) -> Tree:
        name = token[1:]
        if token == r"\pi":
            return ["const", "pi"]
        if token == r"\infty":
            return ["const", "inf"]
        if token in (r"\imath",):
            return ["const", "i"]
        if token == r"\frac":
            over = self._braces_or_digit()
            return ["*", over, ["^", self._braces_or_digit(), whole(-1)]]
        if token == r"\binom":
            over = self._braces_or_digit()
            return ["fn", "binomial", over, self._braces_or_digit()]
        if token == r"\sqrt":
            return self._root()
        if token in (r"\sum", r"\prod"):
            return self._series(name)
        if token == r"\operatorname":
            return self._function("".join(self._raw()))
        if name in FUNCTIONS:
            return self._function(name)
        if token == r"\text":
            raise Ambiguous("words")
        raise Unsupported(f"{token} is not of this grammar")

    def _number(self, token: str) -> Tree:
        digits, _, decimals = token.partition(".")
        if token.count(".") > 1 or not (digits or decimals):
            raise Ambiguous("no number")
        if self._took("%"):
            return ["num", str(Fraction(token.rstrip(".")) / 100), None]
        return ["num", str(Fraction(token.rstrip("."))), len(decimals) or None]

    def _symbol(self, name: str) -> Tree:
        indexed = False
        while self.peek() in ("_", "'"):
            if self._took("'"):
                name += "'"
            else:
                self._next()
                name += f"_{self._index()}"
                indexed = True
        if name in ("e", "i") and not indexed and name not in self._bound:
            return ["const", name]
        return ["sym", name]

    def _index(self) -> str:
        return self._raw() if self.peek() == "{" else self._next()

    def _raw(self) -> str:
        """The text in braces, or the next token."""
        if not self._took("{"):
            return self._next()
        depth, parts = 1, list[str]()
        while True:
            token = self._next()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "".join(parts)
            parts.append(token)

    def _points(self) -> str:
        points = ""
        while self.peek().isalpha() and self.peek().isupper():
            points += self._next()
        return points

    def _braces_or_digit(self) -> Tree:
        if self.peek() == "{":
            return self._group("{")
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            raise Ambiguous("an argument of several digits")
        return self._atom()

    def _root(self) -> Tree:
        degree = whole(2)
        if self.peek() == "[":
            degree = self._group("[")
        return ["^", self._braces_or_digit(), ["^", degree, whole(-1)]]

    def _choose(self) -> Tree:
        self._next()
        over = self.sum()
        if not self._took(r"\choose"):
            raise Unsupported("a group with choose")
        under = self.sum()
        if not self._took("}"):
            raise Ambiguous("a bracket is not closed")
        return ["fn", "binomial", over, under]

    def _function(self, name: str) -> Tree:
        """A function with its argument, in brackets or the factors that follow."""
        if name in ("gcd", "lcm", "max", "min") or name not in FUNCTIONS:
            return ["fn", name, *self._several()]
        base = None
        if name == "log" and self._took("_"):
            base = self._argument()
        power = self._argument() if self._took("^") else None
        argument = self._function_argument(name)
        if power == negated(whole(1)) and name in TRIGONOMETRIC:
            name, power = f"arc{name}", None
        if name in ("log", "lg"):
            found = ["fn", "log", argument, base or whole(10)]
        elif name == "exp":
            found = ["^", ["const", "e"], argument]
        else:
            found = ["fn", name, argument]
        if power is None and self.peek() == "^":
            self._next()
            power = self._argument()
        return found if power is None else ["^", found, power]

    def _function_argument(self, name: str) -> Tree:
        if self.peek() in ("(", "[", "{"):
            opening = self.peek()
            found = self._group(opening)
            return self._in_radians(found, name)
        start = self._position
        found = self._factors(functions=False) if self.peek() != "-" else self._signed()
        if self.peek() in ("/", r"\div"):
            if name not in TRIGONOMETRIC or r"\pi" not in self._tokens[start : self._position]:
                raise Ambiguous("a quotient after a function")
            self._next()
            found = ["*", found, ["^", self._power(), whole(-1)]]
        return self._in_radians(found, name)

    def _in_radians(self, argument: Tree, name: str) -> Tree:
        """Degrees are a factor only in the argument of a function; elsewhere they are a unit."""
        before = self._tokens[max(0, self._position - 3) : self._position]
        degrees = name in TRIGONOMETRIC and r"\circ" in before
        return ["*", argument, ["*", ["const", "pi"], ["num", "1/180", None]]] if degrees else argument

    def _several(self) -> list[Tree]:
        """Arguments in round brackets or set braces."""
        opening = self._next()
        if opening == "{" and self.peek() == "(":  # f{(x)}, as sympy prints it
            found = self._several()
            return found if self._took("}") else [self._refuse("a bracket is not closed")]
        if opening not in ("(", r"\{"):
            raise Unsupported("a function without brackets")
        found = [self.ratio()]
        while self._took(","):
            found.append(self.ratio())
        if not self._took(CLOSING[opening]):
            raise Ambiguous("a bracket is not closed")
        return found

    def _series(self, name: str) -> Tree:
        r"""`\sum_{i=1}^{n} term`."""
        last = self._argument() if self._took("^") else None
        if not (self._took("_") and self._took("{")):
            raise Unsupported("a sum without limits")
        variable = self._next()
        if not (len(variable) == 1 and variable.isalpha() and self._took("=")):
            raise Unsupported("a sum over a condition")
        first = self.sum()
        if not self._took("}"):
            raise Unsupported("a sum over a condition")
        if last is None:
            if not self._took("^"):
                raise Unsupported("a sum without an upper limit")
            last = self._argument()
        self._bound.append(variable)
        term = self._product()
        self._bound.pop()
        return [name, variable, first, last, term]
