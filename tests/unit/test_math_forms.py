"""Maths answers in other forms: typography, units, lists and points, intervals, roots; and near misses of each."""
# ruff: noqa: RUF001  (full-width and Chinese characters are intended)

import pytest

from r1ray.reward.math.compare import NeedsAlgebra, decide
from r1ray.reward.math.monomial import monomial
from r1ray.reward.math.number import latex, number
from r1ray.reward.math.structure import chain, split_name, structure
from r1ray.reward.math.typography import normalise
from r1ray.reward.math.units import quantity


def check(gold: str, correct: tuple[str, ...] = (), incorrect: tuple[str, ...] = ()) -> None:
    """Compares without algebra."""
    verdicts = {answer: decide(normalise(answer), normalise(gold)) for answer in (*correct, *incorrect)}
    assert verdicts == dict.fromkeys(correct, True) | dict.fromkeys(incorrect, False)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (r"\bigl( 1,\ 2 \bigr)", "( 1, 2 )"),
        (r"\left\lbrace 1 \right\rbrace", r"\{ 1 \}"),
        (r"44\,959", "44959"),
        (r"1,\,200", "1, 200"),
        (r"x \leqslant 3", r"x \le 3"),
        (r"\begin{pmatrix} 1 \\ 2 \\3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \\3 \end{pmatrix}"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\{1\} and \{2\}", r"\{1\} and \{2\}"),
        ("{1}{2}", "{1}{2}"),
        ('"right triangle"', "right triangle"),
        ("**7**", "7"),
        ("7.", "7"),
        ("（１，２）", "(1, 2)"),
        ("２５％", "25%"),
        ("3、4。", "3, 4"),
        ("5 percent", "5%"),
        (r"5\text{ per cent}", "5%"),
        (r"x \in (-\infty, +∞)", r"x \in (-\infty,\infty )"),
        ("90°", r"90^\circ"),
        (r"1,2,\dots", r"1,2,\ldots"),
        (r"\{ \}", r"\emptyset"),
        ("4i", "4 i"),
        (r"4\cdot i", "4 i"),
        ("4in", "4in"),
        ("\u0667", "\u0667"),
    ],
)
def test_typography(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac 1 2", r"\frac {1} {2}"),
        (r"\frac1{23}", r"\frac{1}{23}"),
        (r"\frac{\sqrt{5}} 8", r"\frac{\sqrt{5}} {8}"),
        (r"\frac{\frac12}3", r"\frac{\frac{1}{2}}{3}"),
        (r"\frac{1}{2", r"\frac{1}{2}"),
        (r"\frac{\sqrt{3", r"\frac{\sqrt{3}}"),
        (r"\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\{1, 2", r"\{1, 2\}"),
        ("frac{1}{2}", r"\frac{1}{2}"),
        ("frac12", r"\frac{1}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        ("sqrt(2)", r"\sqrt{2}"),
        (r"\sqrt(x+1)", r"\sqrt{x+1}"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("√12", r"\sqrt {12}"),
        ("2pi", r"2\pi"),
        ("pie", "pie"),
        (r"\frac123", r"\frac123"),
        (r"\frac", r"\frac"),
        ("7} 8", "7} 8"),
        ("}{", "}{"),
        ("(1, 2", "(1, 2"),
        ("{" * 4 + "7", "{" * 4 + "7"),
    ],
)
def test_broken_latex_is_repaired_where_it_is_unambiguous(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_mixed_numbers() -> None:
    check("32/3", correct=("10 2/3", r"10\frac{2}{3}", r"\frac{32}{3}"), incorrect=(r"\frac{2}{3}", r"\frac{20}{3}"))
    check(r"-1\frac{1}{2}", correct=("-1.5", "-3/2"), incorrect=("-0.5", "1.5"))
    assert isinstance(decide(r"3\frac{7}{2}", "6.5"), NeedsAlgebra), "it could be a product"
    assert decide(r"15 + \frac{2}{6}", "15 2/6") == NeedsAlgebra(answer=r"15 + \frac{2}{6}", gold=r"\frac{46}{3}")


def test_percentages() -> None:
    check(
        r"50\%",
        correct=("50%", "50", "0.5", r"\frac{1}{2}", "50 percent", "50％"),
        incorrect=("5%", "500%", "5", "0.05"),
    )
    check("0.5", correct=("50%",), incorrect=("0.5%", "5%"))
    check("1", correct=("100%",), incorrect=("1%",))
    check("50", correct=("50%",))
    check(r"\$210", incorrect=("210%",))
    fraction, decimal = number("37.5%"), number("75%")
    assert latex(fraction) is None and latex(decimal) == r"\frac{3}{4}"


def test_powers_of_ten() -> None:
    incorrect = (r"6.0 \times 10^{-23}", r"-6 \times 10^{-24}")
    check(r"6.0 \times 10^{-24}", correct=(r"6 \cdot 10^{-24}", r"60 × 10^{-25}"), incorrect=incorrect)
    check("120000", correct=(r"1.2\times10^5", r"12 \cdot 10^{4}"), incorrect=(r"1.2\times10^{4}",))
    check("10^{-7}", correct=("0.0000001",), incorrect=("10^{-8}", "0.000001"))
    assert number("10^{999}") is None and number("10^{99999}") is None


def test_roots_and_pi() -> None:
    check(
        r"2\sqrt{3}",
        correct=(r"\sqrt{12}", r"\sqrt{3} \cdot 2"),
        incorrect=(r"\sqrt{13}", r"-2\sqrt{3}", r"3\sqrt{2}", "2"),
    )
    half = (r"\frac{-1}{\sqrt{2}}", r"-\sqrt{\frac{1}{2}}", r"-\sqrt{2}/2")
    check(r"-\frac{\sqrt{2}}{2}", correct=half, incorrect=(r"\frac{1}{\sqrt{2}}", r"-\frac{2}{\sqrt{2}}"))
    quarters = (r"\frac{4\pi}{3}", r"\frac{3\pi}{5}", r"\frac{3}{4}")
    check(r"\frac{3\pi}{4}", correct=(r"\frac{3}{4}\pi", r"3\pi/4"), incorrect=quarters)
    check("2", correct=(r"\sqrt{4}",), incorrect=(r"\sqrt{2}", r"2\pi"))
    check("0", correct=(r"0\pi",))


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "2 3", "9" * 400, r"2\cdot", r"\sqrt{2}+1", r"\pi^2", r"\frac{1}{0}", r"\sqrt[3]{2}", r"\sqrt{\pi}"),
        *(r"2\frac{1}{2}\pi", r"\frac{\frac{1}{2}}{3}", r"\sqrt{\frac{1}{0}}", r"\frac{1}{2", "2/3/4"),
    ],
)
def test_other_expressions_with_roots_are_not_products_of_roots(text: str) -> None:
    assert monomial(text) is None


def test_units() -> None:
    square = (
        "12",
        r"12\text{ cm}^2",
        r"12\,\mathrm{cm^2}",
        "12 cm^{2}",
        r"12 \text{ square centimeters}",
        "12平方厘米",
    )
    check(
        r"12 \text{ cm}^2",
        correct=square,
        incorrect=("13", "12 cm", r"12 \text{ cm}^3", r"12\text{ m}^2", "12立方厘米", r"12^\circ"),
    )
    check(
        "60",
        correct=("60 km/h", r"60\text{ km/h}", "60 miles per hour", "60 mph", "60 apples", "60千米/小时"),
        incorrect=("61 km/h",),
    )
    check(
        r"60\text{ km/h}",
        correct=("60 千米/时", "60 kilometers per hour"),
        incorrect=(r"60\text{ m/s}", r"60\text{ km}", "60 mph"),
    )
    check(r"12\pi\text{ cm}", correct=(r"12\pi", r"12\pi cm"), incorrect=(r"12\pi\text{ m}", r"11\pi\text{ cm}"))
    check("5 apples", correct=("5 red apples", "5 apple", "5"), incorrect=("5 pears", "5 kg"))
    check(r"36^\circ", correct=("36", "36°", "36 degrees", "36度"), incorrect=("35°",))
    check(r"36^\circ\text{C}", correct=("36℃", "36"), incorrect=(r"36^\circ F",))
    assert quantity("3万元").scale == 10_000
    check("30000", correct=("3万", "3 万元", r"30\text{ thousand}"), incorrect=("3", "3亿"))
    check("3", incorrect=("3万", r"3\text{ million}", r"3\text{ dozen}", "3 hundred"))


def test_letter_is_a_unit_only_where_the_gold_has_one() -> None:
    check(r"5\text{ m}", correct=("5m", "5 m"), incorrect=("5g",))
    for answer, gold in (("5t", "5"), ("5", "5t"), ("3t", "3h"), ("5x", "5"), ("2 xy", "2")):
        assert decide(answer, gold) == NeedsAlgebra(answer=answer, gold=gold)


@pytest.mark.parametrize(
    "answer",
    [
        *(r"3 \text{ or more}", r"3\text{ and a half}", r"3 \text{ squared}", "3 quarters", r"3 \text{ factorial}"),
        *(
            r"3 \text{ is not the right one here}",
            r"\text{not } 3",
            "3倍",
            "3的平方",
            "3个以上",
            "不是3",
            "大于等于3",
            "负3",
        ),
    ],
)
def test_words_that_change_a_number_are_not_units(answer: str) -> None:
    assert decide(normalise(answer), "3") is not True


def test_money() -> None:
    incorrect = ("18.90 cents", "€18.90", r"\$19.80")
    check(r"\$18.90", correct=("18.9", r"\$ 18.90", "18.90 dollars", "$18.90$", "US$18.90"), incorrect=incorrect)
    check("1250", correct=(r"\$1,250", "¥1250", "1250元"))
    check("-5", correct=(r"-\$5", r"\$-5"), incorrect=(r"\$5",))
    check(r"\$3\text{ million}", correct=("3000000", r"\$3{,}000{,}000"), incorrect=("3",))
    assert decide("-$" * 900 + "5", "5") is not True


def test_chinese() -> None:
    check(
        "12",
        correct=("１２", "答案是12", "答案：12", "最大值为12", "x等于12", "x＝12", "12。"),
        incorrect=("１３", "答案是13"),
    )
    check("3, 5", correct=("3，5", "3、5", "5和3", "3 或 5", r"3\text{或}5"), incorrect=("3，6", "3"))
    check("5个苹果", correct=("5个", "5", "5 个苹果"), incorrect=("5个橘子",))
    check("无解", correct=("无解。", r"\text{无解}"), incorrect=("有解",))
    check("3元/千克", correct=("3元每千克",), incorrect=("3元",))


def test_words() -> None:
    check(
        r"\text{right triangle}",
        correct=("Right triangle", '"right triangle"', r"\textbf{right triangle.}"),
        incorrect=("triangle",),
    )
    check("B", correct=(r"\textbf{(B)}", "(b)"), incorrect=("C", "A, B", "A or B"))
    check("Alice, Bob", correct=("Bob and Alice", r"\text{Bob}, \text{Alice}"), incorrect=("Alice", "Alice and Eve"))


def test_lists_and_sets_are_unordered() -> None:
    correct = (r"\{0.5, 1\}", "1/2, 1", r"\lbrace 1,\ 1/2 \rbrace", r"S = \{\frac{2}{4}, 1\}")
    check(r"\{1, \frac{1}{2}\}", correct=correct, incorrect=(r"\{1\}", r"\{1, 2\}", r"(1, \frac{1}{2})", "1"))
    correct = ("2, 1", "1 and 2", "2 or 1", "x=1 or x=2", "x_1=2; x_2=1", r"1 \text{ and } 2")
    check("1, 2", correct=correct, incorrect=("1", "1, 2, 3", "1, 3"))
    check("1, 1, 2", incorrect=("1, 2", "1, 2, 2"))
    check(r"\{1, 2\}", correct=(r"\{1, 1, 2\}",))
    check(r"\{7\}", correct=("7",))
    check("7", correct=(r"\{7\}",), incorrect=(r"\{7, 8\}", "7, 8", "7 or 8", "(7, 8)"))
    check("1,234", correct=("1234",), incorrect=("1, 234",))
    check(r"\{(1, 2), (3, 4)\}", correct=("(3,4), (1,2)",), incorrect=("(2,1), (3,4)",))
    check(r"1, 2, \ldots", correct=(r"1,2,\dots",), incorrect=("1, 2, 3",))
    check(",".join(map(str, range(200))), correct=(",".join(map(str, range(199, -1, -1))),), incorrect=("1, 2",))


def test_coordinates_are_ordered() -> None:
    incorrect = ("(2, 1)", "2, 1", r"\{1, 2\}", "(1, 2, 3)", "y=1, x=2")
    check("(1, 2)", correct=("(1,2)", "1, 2", "x=1, y=2", "y=2, x=1", "(x, y) = (1, 2)"), incorrect=incorrect)
    check("x=1, y=2", correct=("y=2, x=1", "(1, 2)", "1, 2"), incorrect=("x=2, y=1", "2, 1"))


def test_intervals() -> None:
    incorrect = ("(1, 2)", "[1, 2]", "(1, 2]", "[1, 3)")
    check("[1, 2)", correct=("[1,2)", r"x \in [1, 2)", r"\left[1, \frac{4}{2}\right)"), incorrect=incorrect)
    check(r"(-\infty, 1) \cup (2, 3]", correct=(r"(2, 3] \cup (-∞, 1)",), incorrect=(r"(-\infty, 1] \cup (2, 3]",))
    for other in (r"(-\infty, 1) \cap (2, 3]", "(2, 3]"):
        assert decide(other, r"(-\infty, 1) \cup (2, 3]") is not True


def test_inequalities() -> None:
    check(r"x \le 3", correct=("3 ≥ x", r"x \leqslant 3"), incorrect=("x < 3", r"x \le 4"))
    check("1 < x < 2", correct=("2 > x > 1",), incorrect=(r"1 \le x < 2", "1 < x < 3"))
    check("x < 1 or x > 3", correct=("x > 3, x < 1",), incorrect=("x < 1 or x > 4",))
    for other in (r"x \ge 3", r"3 \le x", r"x \le 3, y \le 3"):
        assert decide(other, r"x \le 3") is not True
    assert decide("3 > x", "2x < 6") == NeedsAlgebra(answer="x < 3", gold="2x < 6")
    assert chain("a = b") is None and chain("1 < x > 2") == (["1", "x", "2"], ["<", ">"])


def test_matrices() -> None:
    def matrix(body: str, kind: str = "pmatrix") -> str:
        return rf"\begin{{{kind}}}{body}\end{{{kind}}}"

    bare = matrix(r"1&2\\3&1/2", "matrix")
    check(
        matrix(r" 1 & 2 \\ 3 & \frac{1}{2} "),
        correct=(matrix(r"1&2\\3&0.5", "bmatrix"), rf"\left({bare}\right)", "A = " + matrix(r"1&2\\3&1/2")),
        incorrect=(matrix(r"1&3\\2&1/2"), matrix(r"1&2\\3&2"), matrix("1&2&3&1/2")),
    )
    assert isinstance(decide(matrix(r"1&2\\3&4", "vmatrix"), matrix(r"1&2\\3&4")), NeedsAlgebra), "a determinant"


def test_names() -> None:
    named = ("x = 3", "f(2) = 3", "a_1=3", r"\angle ABC = 3", "AB = 3", r"\text{Area} = 3")
    check("3", correct=(*named, "the answer is 3", "Answer: 3", r"\approx 3"), incorrect=("x = 4",))
    check("x = 3", correct=("3", "x=3"), incorrect=("y = 3", "4"))
    for answer in (r"x \ne 3", "x > 3", "not: 3"):
        assert decide(answer, "3") is not True
    assert decide("2x+y=3", "y=3-2x") == NeedsAlgebra(answer="2x+y=3", gold="y=3-2x")
    assert split_name("是" * 900 + "3")[0] == ""


def test_only_matching_brackets_form_a_structure() -> None:
    assert structure("(1, 2) + (3, 4)") is None
    assert structure("(1+2)") is None
    assert structure("1,,2") is None


def test_nested_sets_are_matched_in_bounded_time() -> None:
    def nested(depth: int, low: int) -> str:
        half = 2 ** max(0, depth - 1)
        return rf"\{{{nested(depth - 1, low)}, {nested(depth - 1, low + half)}\}}" if depth else str(low)

    assert isinstance(decide(nested(7, 0), nested(7, 1)), NeedsAlgebra)
