"""Which part of a reply is its answer. Linear in the length of the text, whatever it holds."""


def after_thinking(text: str) -> str:
    """What stands after the last `</think>`; the whole text when no thinking was opened or closed.

    An answer counts only outside the reasoning: a reply that opens `<think>` (again) and never closes it has none there.
    """
    tail = text.rpartition("</think>")[2]
    return tail.partition("<think>")[0]


def last_answer(text: str) -> str | None:
    """The content of the last `<answer>...</answer>` after the thinking, or None.

    Example: `last_answer("<think>5?</think> <answer> 7 </answer>")` is "7".
    """
    head, closed, _ = after_thinking(text).rpartition("</answer>")
    _, opened, content = head.rpartition("<answer>")
    return content.strip() if opened and closed else None
