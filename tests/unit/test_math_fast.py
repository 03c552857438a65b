"""Maths answers without a parser: extraction, the exact comparison, and answers that are refused before any parser sees them."""

import ast
from pathlib import Path

import pytest

import r1ray.reward
from r1ray.reward.math.compare import MAX_LENGTH, fast_equal, hostile, readable
from r1ray.reward.math.extract import final_answer, last_boxed
from r1ray.reward.math.number import number
from r1ray.reward.math.typography import normalise


def compare(answer: str, gold: str) -> bool | None:
    return fast_equal(normalise(answer), normalise(gold))


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("6", "6"),
        (" 6. ", "6"),
        ("006", "6"),
        ("+6", "6"),
        ("- 6", "-6"),
        ("\u22126", "-6"),
        ("$6$", "6"),
        (r"\(6\)", "6"),
        ("6.0", "6"),
        ("6.", "6"),
        (".5", "0.5"),
        ("1,234", "1234"),
        ("1{,}234", "1234"),
        (r"1\,234", "1234"),
        ("1,234,567.50", "1234567.5"),
        (r"\$1,250", "1250"),
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac{1}{2}", r"\frac12"),
        (r"\tfrac{2}{4}", "1/2"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"\frac{63}{400}", r"\frac{126}{800}"),
        ("0.333333", r"\frac{1}{3}"),
        ("0.3333333", r"\frac{1}{3}"),
        ("50%", "0.5"),
        (r"50\%", r"\frac{1}{2}"),
        (r"50\%", "50"),
        ("50", r"50\%"),
        ("0.5", r"50\%"),
        ("12.5%", "0.125"),
        ("B", "(B)"),
        (r"\text{(B)}", "B"),
        (r"\textbf{b}", "B"),
        ("Monday", r"\text{Monday}"),
        ("no  solution", "No solution"),
        ("星期一", "星期一"),
        (r"x^2 + 1", r"x^2 + 1"),
        (r"\left(1, 2\right)", "(1, 2)"),
        ("9" * 250, "9" * 250),
        ("x=6", "6"),
        (r"6\text{ cm}", "6"),
        (r"1\frac{1}{2}", "1.5"),
        ("\uff17", "7"),
        ("0.012346", r"\frac{1}{81}"),
        ("1e3", "1000"),
    ],
)
def test_equal_answers_are_accepted(answer: str, gold: str):
    assert compare(answer, gold) is True


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("7", "6"),
        ("-6", "6"),
        ("", "6"),
        ("1/3", "0.33"),
        ("0.333", r"\frac{1}{3}"),
        ("1.000001", "1"),
        ("0", "0.0000001"),
        ("0.0000001", "0"),
        ("1234567.1", "1234567.2"),
        (r"50\%", "5"),
        (r"50\%", r"5\%"),
        ("100000000000000000001", "100000000000000000000"),
        ("7=7", "True"),
        ("Tuesday", "Monday"),
        ("C", "B"),
        ("BC", "B"),
        ("7} 8", "7"),
        ("1,23", "123"),
        ("0.1234567", "0.1234568"),
        ("0.000003", r"\frac{1}{300000}"),
        (r"0.5\%", "0.5"),
    ],
)
def test_unequal_answers_are_rejected(answer: str, gold: str):
    assert compare(answer, gold) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        ("1/0", "7"),
        ("\u0667", "7"),
        ("\u00b2", "2"),
        ("9" * 400, "7"),
        ("ab", "ba"),
        (r"\sqrt{2}", "1.4142"),
        (r"3\frac{7}{2}", "6.5"),
        ("nan", "0"),
        ("1_000", "1000"),
        ("0x10", "16"),
    ],
)
def test_answers_that_need_algebra_are_undecided(answer: str, gold: str):
    assert compare(answer, gold) is None


def test_only_ascii_digits_up_to_the_limit_are_numbers():
    assert number("\u0667") is None
    assert number("9" * 301) is None
    assert number("1/0") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{6}", "6"),
        (r"so \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed {6}", "6"),
        (r"$\boxed 8.$", "8"),
        (r"\boxed{5} wait \boxed{6}", "6"),
        (r"\boxed{\boxed{6}}", "6"),
        (r"<think>\boxed{7}</think> \boxed{6}", "6"),
        (r"<think>\boxed{7}</think> I refuse.", None),
        (r"<think>\boxed{7}", None),
        (r"</think>\boxed{7}<think>\boxed{8}", "7"),
        (r"\boxed{5} and \boxed{6", None),
        (r"\boxed{}", ""),
        ("<answer>6</answer>", "6"),
        (r"<answer>it is \boxed{6}</answer>", "6"),
        (r"\boxed{5} <answer>6</answer>", "5"),
        ("Let me see.\nAnswer: 34", "34"),
        ("Answer: 3\nAnswer: 34", "34"),
        ("The Answer: 34", None),
        ("The answer is 6", None),
        ("so $6$", None),
        ("", None),
        (r"\boxed{" * 20_000, None),
        (r"\boxed" * 20_000, None),
    ],
)
def test_final_answer_is_extracted(text: str, answer: str | None):
    assert final_answer(text) == answer


def test_escaped_brace_does_not_close_the_box():
    assert last_boxed(r"\boxed{\left\{ 1 \right\}} and }") == r"\left\{ 1 \right\}"


@pytest.mark.parametrize(
    "answer",
    [
        "7" * 301,
        "10^{10^{10}}",
        "5^{(5^{(5^{(5^5)})} - 4)}",
        "2^{99999}",
        "2^99999",
        "99999!",
        "(10^{9})!",
        "(" * 60 + "7" + ")" * 60,
        "{" * 60 + "7" + "}" * 60,
        "7}",
        "}{",
        "\u0667",
        "\u202e7\u202c",
        "7\u200b",
        "x" * (MAX_LENGTH + 1),
    ],
)
def test_hostile_answers_do_not_reach_the_parser(answer: str):
    assert hostile(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "7",
        "x^2+y^2",
        "e^{-x^2}",
        "2^{3^2}",
        "2^{10}",
        r"12\text{厘米}",
        "100!",
        r"\frac{1}{1+\frac{1}{x^2}}",
        r"\{1,2\}",
    ],
)
def test_honest_answers_reach_the_parser(answer: str):
    assert not hostile(answer)


@pytest.mark.parametrize(
    "gold", ["6", r"\frac{1}{2}", "[0, 1)", "星期一", "x", "6\n", "\\begin{pmatrix}\n1\\\\\n2\n\\end{pmatrix}"]
)
def test_readable_golds_are_accepted(gold: str):
    assert readable(gold)


@pytest.mark.parametrize("gold", ["", " ", "$$", ".", r"\frac{1}{2", "6\0007", "7" * (MAX_LENGTH + 1)])
def test_unreadable_golds_are_refused(gold: str):
    assert not readable(gold)


LONG = [
    *(
        r"\sqrt",
        r"\left(",
        r"\{",
        r"\begin{pmatrix}",
        "&",
        r"\\",
        "~",
        "(",
        ")",
        "}",
        "x=",
        "<",
        r"\cup",
        "cm ",
        "米",
        "是",
        "$",
    ),
    *(
        "1 2/3",
        "frac{",
        "sqrt(",
        "per cent ",
        "and ",
        "1 i",
        "10^{",
        "-$",
        r"^\circ",
        r"\pm",
        "a_",
        "f(",
        "...",
        '"',
        "**",
    ),
    "{",
    "^{1",
    "1!",
    "1",
    r"\text{",
    "1,",
    r"\frac",
    " ",
    r"\boxed ",
    r"\boxed{",
    "Answer: ",
    "<answer>",
    "<think></think>",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", LONG)
def test_extraction_is_linear_in_the_length(part: str):
    """Takes milliseconds if time is linear in the length of the text, hours if it is quadratic."""
    text = (part * MAX_LENGTH)[:MAX_LENGTH]
    for gold in ("7", r"\{1, 2\}", "x < 3", text + "1"):
        assert compare(text, gold) is not True or gold.startswith(text)
    hostile((part * MAX_LENGTH)[:MAX_LENGTH])
    final_answer(part * 300_000)


def test_model_text_is_never_evaluated_as_python():
    """Model text never reaches eval, sympify or parse_expr: the modules that handle it do not call them.

    The driver of assertions compiles those of the dataset, inside the sandbox.
    """
    folder = Path(r1ray.reward.__file__).parent
    forbidden = {"eval", "exec", "sympify", "parse_expr", "literal_eval", "compile", "__import__", "loads"}
    allowed = {"re.compile", "json.loads"}
    found: list[str] = []
    for path in set(folder.rglob("*.py")) - {folder / "code/driver.py"}:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        found += [f"{path.name}: {name}" for name in names - allowed if name.rpartition(".")[2] in forbidden]
    assert not found
