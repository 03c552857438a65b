"""Answers stated in words, in several languages: what is read, and that no guess is."""

# ruff: noqa: RUF001  Chinese punctuation
import pytest

from r1ray.reward.prose import labelled_line, stated, stated_option

OPTIONS = {
    "B": (
        "We conclude that the answer is B.", "In short, the answer is B.",
        "The answer is B.", "The correct answer is (B) 12 apples.", "So the answer is: **B**", "Answer: B", "the answer is B",
        r"The answer is \boxed{B}.", "The answer is option B, because 2 > 1.", "The correct option is B",
        "Since x is not 2, A fails. Therefore the answer is B.", "The answer is A. No: 2 > 1. The answer is B.",
        'The answer is "B".', "答案是B。", "答案为 B", "答案：(B)", "故选B", "所以应选择 B。", "答案是B选项。",
        "因为x不是2，所以答案是B。", "La réponse est B.", "La bonne réponse est la B.", "Réponse : (B)", "Die Antwort ist B.",
        "Die richtige Antwort lautet: B", "La respuesta es B.", "La respuesta correcta es la opción B.", "La risposta è B.",
        "A resposta correta é a B.", "Ответ: B", "Ответ — B.", "答えはBです。", "正解は B", "정답은 B입니다.", "정답: B",
    ),
    None: (
        "I doubt that the answer is B", "My friend says the answer is B.", "A common mistake: the answer is B.",
        "The answer is B; rather C.", "The answer is (B) minus 1.", "The answer is (B) -> C.", "The answer is B. Final: C",
        "The answer is B.\n\nC", "Answer: B\nScratch that.",
        "The answer is not B.", "The answer isn't B.", "The answer is B? Hm.", "Is the answer B?",
        "If the answer is B, then x = 2.", "The answer is B, and also C.",
        "The answer is B, or maybe C", "The answer is B; also (C).",
        "The answer is B or C.", "The answer is B and C.", "The answer is A, B.",
        "The answer is A. B. C.", "The answer is (A) (B).", "I do not think the answer is B.",
        "The answer is B, which is wrong.", "The answer is B. Wait, A fits.", "The answer is A man.", "The answer is B12.",
        "The answer is B-flat.", "The answer is b", "The answer is B. The answer is not C.", "B", "Option B is good.",
        "It might be that the answer is B.", "The answer is B. But the answer could be C.",
        'The answer is "B" is what they say.', "The answer is neither A nor B.", "答案不是B。", "我不认为答案是B。",
        "如果答案是B，那么x=2。", "答案是B吗？", "答案是B或C", "答案是B和C。", "不选B", "答案是C语言", "答案是B是错的。",
        "答案是B。不对，再算。", "La réponse n'est pas B.", "Die Antwort ist nicht B.", "Die Antwort ist B oder C.",
        "La respuesta no es B.", "Si la respuesta es B, x = 2.", "La risposta non è B.", "A resposta não é B.", "Ответ: не B",
        "答えはBではない。", "答えはBではありません。", "정답은 B가 아닙니다.", "The answer is A/B", "The answer is B&C",
        "The answer is (B) or (C).", "The answer is (B) is false.", "<think>The answer is B.</think> Done.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("letter", OPTIONS)
def test_letter_of_a_plain_statement_is_read_and_no_other(letter: str | None) -> None:
    assert {text: stated_option(text) for text in OPTIONS[letter]} == dict.fromkeys(OPTIONS[letter], letter)


def test_stated_answer_is_the_rest_of_its_sentence() -> None:
    read = {
        "So x = 7/2. The answer is 3.5.": "3.5",
        "The answer is 3. Hence the answer is 4": "4",
        "答案是 42。": "42",
        "La réponse est : 7": "7",
        "The answer is no.": "no",
        "The answer is $\\frac{1}{2}$.": "$\\frac{1}{2}$",
        "The answer is 5<|im_end|>": "5",
    }
    assert {text: stated(text) for text in read} == read
    for text in (
        "The answer is not 5.",
        "Is the answer 5?",
        "If the answer is 5, x = 2",
        "The answer is 5. Wait.",
        "The answer is .",
    ):
        assert stated(text) is None, text


def test_labelled_line_needs_the_label_at_its_beginning() -> None:
    lines = (
        "答案：42。", "答案是42", "最终答案: 42", "Réponse : 42", "**Antwort:** 42", "Respuesta: 42", "Risposta finale: 42",
        "Ответ: 42", "答えは42", "정답: 42", "> Final answer: 42<|im_end|>", "Answer: 41\nAnswer: 42",
    )  # fmt: skip
    assert {line: labelled_line(f"so\n{line}\n") for line in lines} == dict.fromkeys(lines, "42")
    for text in ("My answer: 42", "答案不是42", "Answer 42", "Answer:", "<think>Answer: 42</think>", "The Antwort: 42"):
        assert labelled_line(text) is None, text
