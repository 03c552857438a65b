"""Questions whose answer is a short text: exact match and F1 of SQuAD (Rajpurkar et al., arXiv 1606.05250).

Verifier `text_match`: correct when the answer equals one of the golds after normalisation. Reward `text_f1`: the largest F1 over
the golds, from the words that answer and gold share, each counted as often as both have it. `payload` is {"answers": [...]}.

Normalisation: lower case, without punctuation, English articles and repeated white space. Chinese and Japanese characters are a
word each, as in CMRC 2018 (arXiv 1810.07366), so that white space between them does not matter.

Our deviations, where SQuAD's script would pay an incorrect answer:
- marks that belong to a number or a name stay: `3.5` is not `35`, `-5` not `5`, `C++` not `C` (but `1,000` is `1000`);
- a last word that looks like an article is a name: `vitamin A` is not `vitamin`, and `the` is not `a`;
- texts of which nothing is left (`?`) are equal only if they are the same; they share no word with any text;
- articles are removed only where the problem is in English (`Problem.language`).
Punctuation is that of Unicode, and full-width letters are letters (NFKC).
"""

import re
import unicodedata
from collections import Counter

from r1ray.reward.base import ComponentScore, correct_or_incorrect
from r1ray.reward.text import IDEOGRAPHS
from r1ray.types import Problem

MAX_LENGTH = 2000
"""Characters of an answer; a longer one is no short text."""
ARTICLES = frozenset(("a", "an", "the"))
MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011", "-"))
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
BELONGS = re.compile(
    r"(?<=[0-9])[^\w\s](?=[0-9])|(?<!\w)[-.](?=[0-9])|(?<!\w)-(?=\.[0-9])|(?<=[^\W\d_])(?:\+\+|#)(?!\w)"
)
"""Marks inside a number, a sign or decimal point before one, and those of `C++` and `C#`."""
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]+")


def words_of(text: str, *, language: str = "en") -> list[str]:
    """Example: `words_of("The  Eiffel-Tower!")` is ["eiffeltower"], `words_of("长城 2.5")` is ["长", "城", "2.5"]."""
    lowered = THOUSANDS.sub("", _folded(text))
    belongs = {position for match in BELONGS.finditer(lowered) for position in range(*match.span())}
    kept = "".join(c for position, c in enumerate(lowered) if position in belongs or not _is_punctuation(c))
    words = WORD.findall(kept)
    articles = ARTICLES if language == "en" else ()
    return [word for word in words[:-1] if word not in articles] + words[-1:]


def same_text(answer: str, gold: str, *, language: str = "en") -> bool:
    """Whether the two are equal after normalisation."""
    left, right = words_of(answer, language=language), words_of(gold, language=language)
    if not left and not right:
        return bool(answer.strip()) and _folded(answer) == _folded(gold)
    return left == right


def f1(answer: str, gold: str, *, language: str = "en") -> float:
    """2 P R / (P + R) of the words that both have. Example: `f1("the big cat", "cat")` is 2/3."""
    left, right = words_of(answer, language=language), words_of(gold, language=language)
    if not left or not right:
        return float(same_text(answer, gold, language=language))
    return 2 * (Counter(left) & Counter(right)).total() / (len(left) + len(right))


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 if the answer equals one of the problem's after normalisation, else 0."""
    golds = _golds(problem) if len(answer) <= MAX_LENGTH else []
    return correct_or_incorrect(any(same_text(answer, gold, language=problem.language) for gold in golds))


def best_f1(problem: Problem, answer: str) -> float:
    """The largest F1 of an answer over the problem's golds."""
    golds = _golds(problem) if len(answer) <= MAX_LENGTH else []
    return max((f1(answer, gold, language=problem.language) for gold in golds), default=0.0)


def _golds(problem: Problem) -> list[str]:
    return [str(gold) for gold in problem.payload["answers"]]


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).translate(MINUS).lower().split())


def _is_punctuation(character: str) -> bool:
    """SQuAD removes all of string.punctuation, which has symbols too."""
    return character in "$+<=>^`|~" or unicodedata.category(character)[0] == "P"
