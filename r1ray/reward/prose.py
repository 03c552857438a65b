"""Final answers that a completion states in words: "The answer is 42.", "答案是 B", "La réponse est (C)".

Extractors (`r1ray.reward.answers`): `stated`, what the last statement says the answer is; `stated_option`, the letter in it; and,
for models that write `答案: 42` on a line of its own, `labelled_line`, the rest of the last such line.
Languages: English, Chinese, Japanese, Korean, French, German, Spanish, Italian, Portuguese, Russian.

Only a plain statement is an answer; where there is any doubt there is none, so that no guess is paid:
- the last sentence that names an answer decides. With "The answer is B. ... The answer is C." it is C;
- a sentence that denies, asks or supposes ("is not B", "If the answer is B", "我不认为答案是 B") states nothing, and no earlier
  statement counts then; likewise when the text takes it back ("Wait", "不对");
- a letter has to stand alone: neither `A man`, `B12` nor `C语言` names an option; and no other option may be named after it, as in
  `A or B` or "B. Option C is 7".

"Since x is not 2, the answer is B" therefore has no answer, but "x is not 2. So the answer is B" has one. Linear in the length.
"""

import re
from collections import deque

from r1ray.reward.math.extract import SPECIAL_TOKEN
from r1ray.reward.text import after_thinking

_S = r"[ \t\u3000]{0,4}"
_COLON = r"[:\uff1a]"
_LABELS = (
    rf"\b(?:answer|correct (?:option|choice)){_S}(?:is\b|{_COLON})",
    rf"\bréponse(?: (?:finale|correcte|exacte))?{_S}(?:est\b|{_COLON})",
    rf"\b(?:antwort|lösung){_S}(?:ist\b|lautet\b|{_COLON})",
    rf"\brespuesta(?: (?:final|correcta))?{_S}(?:es\b|{_COLON})",
    rf"\brisposta(?: (?:finale|corretta|esatta))?{_S}(?:è\b|{_COLON})",
    rf"\bresposta(?: (?:final|correta|certa))?{_S}(?:é\b|{_COLON})",
    rf"\bответ{_S}(?:[\u2014\u2013-]|это\b|{_COLON})",  # noqa: RUF001  Russian
    rf"答案{_S}(?:应?[该為为]?是|[应應]?[为為]|{_COLON})",
    rf"(?:故|应|應|所以|因此|本题|答案)?选择?{_S}{_COLON}?{_S}(?=[(\uff08]?[A-Z](?![A-Za-z]))",
    rf"(?:答え|正解){_S}(?:は|{_COLON})",
    rf"(?:정답|답){_S}(?:은|는|{_COLON})",
)
STATEMENT = re.compile(rf"(?:{'|'.join(_LABELS)}){_S}{_COLON}?", re.IGNORECASE)
NAMED = re.compile(
    r"\b(?:answer|réponse|antwort|lösung|respuesta|risposta|resposta|ответ)\b|答案|答え|正解|정답", re.IGNORECASE
)
END = re.compile(r"[\n。!?！？]|\.(?=\s|$)")  # noqa: RUF001  Chinese punctuation
THEREFORE = re.compile(
    r"\b(?:so|therefore|thus|hence|donc|also|daher|quindi|portanto|поэтому|значит)\b|所以|因此|故|したがって|よって|따라서",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:not|never|no|nor|neither|cannot|if|whether|unless|suppose|doubt|deny|denies|says?|thinks?|thought|claim\w*|mistake\w*|assum\w*|might|may|maybe|perhaps|could|would|probably|wrong|"
    r"incorrect|false|but|however|ne|pas|si|peut-être|mais|nicht|kein\w*|wenn|falls|ob|vielleicht|falsch|aber|quizás|incorrect[ao]|"
    r"pero|non|se|forse|ma|não|talvez|mas|не|нет|если|возможно|но)\b|n['\u2019]t\b|"
    r"[不非没沒未若吗嗎错錯?？]|如果|假[设設如]|可能|是否|也许|ない|ません|もし|아니|않|만약",  # noqa: RUF001  Chinese punctuation
    re.IGNORECASE,
)
DENIAL = re.compile(r"\W*(?:no|non|nein|não|нет|false|wrong|incorrect|falsch)\W*", re.IGNORECASE)
"""An answer to a yes-no question, so no doubt."""
TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|hmm+|sorry|correction|scratch|retract|nope|rather|instead|alternatively)\b|"
    r"\bno,|\bthat(?: is|['\u2019]s) (?:wrong|incorrect|not)|\bmistake|"
    r"不对|不對|等等|更正",
    re.IGNORECASE,
)
_OPEN, _SHUT = r"[\s(\uff08\[{$*_\"'\u201c\\]", r"[)\uff09\]}$*_\"'\u201d]"
_NAME = r"option|choice|letter|opción|opzione|opção|la|le|l['\u2019]option|die|el|a|o|вариант|选项|選項"
OPTION = re.compile(
    rf"{_OPEN}{{0,6}}(?:(?:{_NAME})(?:\s|(?=[A-Z(]))){{0,2}}{_OPEN}{{0,6}}(?:(?:boxed|text|textbf|mathrm|mathbf)\{{{_OPEN}{{0,4}})?"
    rf"([A-Z])(?:选项|選項|项)?({_SHUT}{{0,6}})(.{{0,200}})",
    re.DOTALL,
)
AFTER = re.compile(
    r"\s*(?:$|[,;.!\u3002\uff01\uff0c\uff1b\u3001:\uff1a]|"
    r"(?:because|since|parce|car|weil|da|porque|perché|потому|因[为為]|です|입니다|이다))"
)
ANOTHER = re.compile(r"(?<![A-Za-z0-9'\u2019])(?:[B-H]|A(?! +[a-z]))(?![A-Za-z0-9'\u2019])")
"""An option named after the letter; `A man` has an article."""
LEAD_IN = re.compile(
    r"(?:.*[,;:\uff0c\uff1b\uff1a])?(?:[\s*_#>\"-]|\b(?:the|my|our|we|i|conclude|find|that|final|correct|right|best|la|le|l['\u2019]|bonne|die|der|richtige|endgültige|"
    r"el|il|o|a|правильный|окончательный|верный)\b|最终|最終|正确|正確|本题|的|であり|이|문제의)*",
    re.IGNORECASE | re.DOTALL,
)
"""What a sentence may have before the label: anything up to a comma or colon, then only such words."""


LINE = re.compile(
    rf"^[*_#> \t]{{0,6}}(?:(?:final |correct )?answer|(?:最终|最終|正确)?答案|答え|正解|정답|답|réponse(?: finale)?|"
    rf"(?:endgültige )?antwort|respuesta(?: final)?|risposta(?: finale)?|resposta(?: final)?|"
    rf"(?:окончательный )?ответ)(?:\*\*|__)?{_S}"
    rf"(?:{_COLON}|(?<=答案)[是为為]{_COLON}?|(?<=[え解])は)(?:\*\*|__)?[ \t\u3000]*(\S.*)$",
    re.MULTILINE | re.IGNORECASE,
)


def labelled_line(text: str) -> str | None:
    """Example: `labelled_line("so\\n**Antwort:** 7")` is "7"."""
    lines = deque(LINE.finditer(after_thinking(text)), maxlen=1)
    if not lines:
        return None
    answer = SPECIAL_TOKEN.sub("", lines[0][1]).strip()
    answer = answer.removesuffix("**").rstrip() if answer.count("**") == 1 else answer
    return answer.removesuffix("。") or None


def stated(text: str) -> str | None:
    """Example: `stated("So x = 7/2. The answer is 3.5.")` is "3.5"."""
    found = _statement(text)
    return found[0] if found else None


def stated_option(text: str) -> str | None:
    """Example: `stated_option("Not A. So the answer is (B).")` is "B"."""
    found = _statement(text)
    match = OPTION.match(found[1]) if found else None
    if match is None:
        return None
    letter, shut, rest = match.groups()
    if not AFTER.match(rest) and not (")" in shut and re.match(r"\s+[0-9$\\]", rest)):  # (B) 12 apples
        return None
    later = ANOTHER.finditer(found[1], match.end(2)) if found else ()
    return None if any(option[0] != letter for option in later) else letter


def _statement(text: str) -> tuple[str, str] | None:
    """(what the last statement says, all text from there on); None where it is in doubt."""
    conclusion = SPECIAL_TOKEN.sub("", after_thinking(text))
    found = deque(STATEMENT.finditer(conclusion), maxlen=1)
    if not found:
        return None
    start, end = found[0].span()
    named = deque(NAMED.finditer(conclusion, end), maxlen=1)
    stop = END.search(conclusion, end + 1)
    sentence_end = stop.start() if stop else len(conclusion)
    said = conclusion[end:sentence_end]
    before = deque(END.finditer(conclusion, max(0, start - 1000), start), maxlen=1)
    lead_in = conclusion[before[0].end() if before else max(0, start - 1000) : start]
    therefore = deque(THEREFORE.finditer(lead_in), maxlen=1)
    lead_in = lead_in[therefore[0].end() :] if therefore else lead_in
    asked = stop is not None and stop[0] in "?\uff1f"
    doubted = (
        not LEAD_IN.fullmatch(lead_in) or DOUBT.search(lead_in) or (DOUBT.search(said) and not DENIAL.fullmatch(said))
    )
    if named or asked or doubted or TAKEN_BACK.search(conclusion, sentence_end):
        return None
    answer = said.strip().strip("*").strip()
    return (answer, conclusion[end:]) if re.search(r"\w|[^\x00-\x7f]", answer) else None
