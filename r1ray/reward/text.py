"""Which part of a completion is what. Linear in the length of the text, whatever it holds."""

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef"
"""Chinese characters and kana, for the inside of a character class: they are written without spaces between words."""


def after_thinking(text: str) -> str:
    """What stands after the last `</think>`; the whole text when no thinking was opened or closed.

    An answer counts only outside the reasoning: a completion that opens `<think>` (again) and never closes it has none there.
    """
    tail = text.rpartition("</think>")[2]
    return tail.partition("<think>")[0]


def thinking(text: str) -> str:
    """The reasoning: what stands before the last `</think>`; the whole text when no thinking was closed."""
    before, closed, _ = text.rpartition("</think>")
    return (before if closed else text).replace("<think>", " ")


def without(text: str, opening: str, closing: str) -> str:
    """The text with a space for everything between an opening and the closing that follows it, both included.

    Example: `without("so $x$ is", "$", "$")` is "so   is".
    """
    kept: list[str] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:  # nor for any later one: looking again would take for ever
            break
        kept += [text[position:start], " "]
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def last_answer(text: str) -> str | None:
    """The content of the last `<answer>...</answer>` after the thinking, or None.

    Example: `last_answer("<think>5?</think> <answer> 7 </answer>")` is "7".
    """
    head, closed, _ = after_thinking(text).rpartition("</answer>")
    _, opened, content = head.rpartition("<answer>")
    return content.strip() if opened and closed else None
