"""Extractors of the final answer of a completion, by name: values of a source's `extract`, which replaces the verifier's own.

    boxed              the content of the last \\boxed{}
    answer             the content of the last <answer>...</answer>
    boxed_in_answer    the content of the last box in the last <answer>...</answer> (Open-Reasoner-Zero)
    answer_line        the last line "Answer: ..."
    gsm8k              the number after the last "####" that has one
    last_number        the last number in the text
    option             the letter of an option, in a box, in <answer> or in an answer line
    labelled_line      the last line "Answer: ...", "答案: ...", "Réponse : ...", "Antwort: ..." in one of ten languages
    stated             what the last sentence that names the answer says it is: "The answer is 42." (`r1ray.reward.prose`)
    stated_option      the letter of an option in such a sentence

These read the text after the last `</think>`. Without that tag they read the whole completion, or nothing when `<think>` was
opened: an answer inside the reasoning does not count (`r1ray.reward.text.after_thinking`). Four follow their projects' rules:

    deepscaler         the last box between the first `</think>` and the next; without the tag there is no answer
    skywork            the same; without the tag the whole completion is read
    dapo               the remaining line after the last "Answer:", in upper or lower case, in the last 300 characters
    oat_r1             the content of the last <answer>, or the box in it; only if the text has "</think> <answer>", with one space

Completions may be adversarial: every extractor takes linear time.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping

from r1ray.reward.choice import chosen
from r1ray.reward.math.extract import answer_line, last_boxed
from r1ray.reward.prose import labelled_line, stated, stated_option
from r1ray.reward.text import after_thinking, last_answer

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
LAST_NUMBER = re.compile(rf"(?:(?<![0-9A-Za-z)}}\]])[-\u2212])?(?:{NUMBER})")
"""A minus after a number, a letter or a parenthesis is a subtraction, no sign."""
HASHES = re.compile(rf"####[ \t]*([-\u2212]?(?:{NUMBER}))(?![0-9/,.]*[0-9/])")

AFTER_ANSWER = re.compile(r"answer\s*:\s*(\S[^\n]*)", re.IGNORECASE)


def boxed_in_answer(text: str) -> str | None:
    """Example: `boxed_in_answer("\\\\boxed{1} <answer> so \\\\boxed{2} </answer>")` is "2"."""
    content = last_answer(text)
    return None if content is None else last_boxed(content)


def gsm8k(text: str) -> str | None:
    """Example: `gsm8k("So 36 pens.\\n#### 1,250")` is "1250"."""
    found = deque(HASHES.finditer(after_thinking(text)), maxlen=1)
    return _plain(found[0][1]) if found else None


def last_number(text: str) -> str | None:
    """Example: `last_number("From 5-3 we get $2.50.")` is "2.50"."""
    found = deque(LAST_NUMBER.finditer(after_thinking(text)), maxlen=1)
    return _plain(found[0][0]) if found else None


def _plain(number: str) -> str:
    return number.replace(",", "").replace("\u2212", "-")


def deepscaler(text: str) -> str | None:
    """Example: `deepscaler("</think> \\\\boxed{1} </think> \\\\boxed{2}")` is "1"."""
    return last_boxed(text.partition("</think>")[2].partition("</think>")[0])


def skywork(text: str) -> str | None:
    """Example: `skywork("<think> \\\\boxed{1}")` is "1"."""
    return deepscaler(text) if "</think>" in text else last_boxed(text)


def dapo(text: str) -> str | None:
    """Example: `dapo("Thus, answer: 34\\n")` is "34"."""
    found = deque(AFTER_ANSWER.finditer(text[-300:]), maxlen=1)
    return found[0][1].strip() if found else None


def oat_r1(text: str) -> str | None:
    """Example: `oat_r1("so</think> <answer> \\\\boxed{2} </answer>")` is "2"."""
    content = last_answer(text) if "</think> <answer>" in text else None
    return last_boxed(content) if content is not None and "\\boxed" in content else content


EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "boxed": lambda text: last_boxed(after_thinking(text)),
    "answer": last_answer,
    "boxed_in_answer": boxed_in_answer,
    "answer_line": lambda text: answer_line(after_thinking(text)),
    "gsm8k": gsm8k,
    "last_number": last_number,
    "option": chosen,
    "labelled_line": labelled_line,
    "stated": stated,
    "stated_option": stated_option,
    "deepscaler": deepscaler,
    "skywork": skywork,
    "dapo": dapo,
    "oat_r1": oat_r1,
}

MARKS: Mapping[str, str] = {
    "answer": "<answer>",
    "boxed_in_answer": "<answer>",
    "answer_line": "Answer:",
    "dapo": "answer:",
    "gsm8k": "####",
    "deepscaler": "</think>",
    "oat_r1": "<answer>",
}
"""{extractor: text that a completion must contain for it to find anything; lower case matches upper case too}. The others accept
several forms, or one that models write without being asked.
"""
