"""Answers that are words: Monday, (B), no solution, 星期一. They are compared as text, in upper or lower case."""

import re

from r1ray.reward.math.typography import WRAPPER

OPTIONS = "ABCD"
"""Letters of options also without parentheses; `e` is a number."""
ARTICLE = re.compile(r"(?:an?|the) +(?=\S{3})")
SHORT_WORDS = frozenset("odd all any one two add egg ace age art ash elm oak ivy arc end and".split())  # noqa: SIM905
VOWEL_INSIDE = re.compile("[^aeiou][aeiou]|[aeiou][^aeiou]+[aeiouy]", re.IGNORECASE)
VOWEL_AFTER_FIRST = re.compile("(?<=.)[aeiouy]", re.IGNORECASE)
"""What an English word has, of three letters and of more, and a product like `abc` or a figure like `ABCD` does not."""


def same_words(answer: str, gold: str) -> bool | None:
    """Whether two texts are the same words; None where the gold is no text of words."""
    wrapped = WRAPPER.search(gold) is not None
    words = WRAPPER.sub(r"\1", gold)
    if not _is_word(words, wrapped=wrapped):
        return None
    return _as_word(WRAPPER.sub(r"\1", answer)) == _as_word(words)


def _as_word(text: str) -> str:
    return ARTICLE.sub("", " ".join(text.casefold().strip("() .").split()), count=1)


def _is_word(text: str, *, wrapped: bool) -> bool:
    """Whether a text has no mathematics. `ab` may be a product, and so may `abc`."""
    letters = re.sub("[ '\u2019,-]", "", text.strip("() "))
    if not letters.isalpha():
        return False
    if len(letters) == 1 and letters.isascii():
        return letters in OPTIONS or (letters.isupper() and (text.startswith("(") or wrapped))
    if not letters.isascii():
        return True
    longest = max(re.findall("[A-Za-z]+", text), key=len)
    if len(longest) > 3:
        return VOWEL_AFTER_FIRST.search(longest) is not None
    return len(longest) == 3 and (longest.lower() in SHORT_WORDS or VOWEL_INSIDE.search(longest) is not None)
