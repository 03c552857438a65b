"""The program in a reply: the last fenced block after the thinking, when it is Python's."""

from r1ray.reward.text import after_thinking

FENCE = "```"
PYTHON = ("", "python", "python3", "py")


def last_program(text: str) -> str | None:
    """Example: `last_program("<think>a</think> ```python\\nprint(1)\\n```")` is "print(1)\\n"."""
    head, closed, _ = after_thinking(text).rpartition(FENCE)
    _, opened, block = head.rpartition(FENCE)
    language, _, program = block.partition("\n")
    return program if opened and closed and language.strip().lower() in PYTHON and program.strip() else None
