"""The reward audit of report.html: does the reward still mean what it should?

    reward up, accuracy not   reward/mean rises from the first to the last quarter of the steps, and held-out accuracy does not:
                              over the whole run, or since it was best
    one answer                the same final answer to at least a third of a source's problems, beyond those that share a solution
    one completion                 the same long text to at least a tenth of them
    rewarded though wrong     wrong completions that earn as much as the right ones of their source usually do

A suspicion says where to look, not what is wrong. An answer counts as a group's when half of its completions give it; problems
without a known solution (a program's tests) have one each. So one letter to every multiple choice is suspicious, the right ones
are not.
"""

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, variance
from typing import Any

from r1ray.data.rollouts import read_rollouts
from r1ray.run.charts import histogram
from r1ray.run.console import number
from r1ray.run.sample import sample_card, visible

Line = Mapping[str, Any]
"""Of a rollouts file, with its `step`."""
Rows = Sequence[Mapping[str, Any]]

ENOUGH_GROUPS, MAX_FILES = 64, 5
"""The newest rollouts are read until there are so many groups, or files."""
MIN_GROUPS = 8
ONE_ANSWER, ONE_COMPLETION = 1 / 3, 1 / 10
LONG_TEXT = 80
"""Characters from which on a text is not just its answer."""
WRONG_BUT_PAID = 0.05
MIN_WINDOW = 5
SURE = 4.0
"""Standard errors by which the reward has risen."""
TOP, EXAMPLES = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """One plain sentence with its numbers (not yet escaped for HTML), and completions that show it."""

    what: str
    examples: Sequence[Line] = ()


def audit_section(rows: Rows, files: Mapping[int, Path]) -> str:
    """The page's part on rewards, from a stage's metrics and rollouts files; "" when nothing was scored."""
    if not files:
        return ""
    lines = newest_lines(files)
    found = suspicions(rows, lines)
    groups = len({(line["step"], line["problem"]) for line in lines})
    steps = sorted({line["step"] for line in lines})
    looked_at = f"{len(lines)} completions to {groups} problems (steps {', '.join(map(str, steps))}) and all metrics"
    first = min(files)
    shown = {f"step {first}": read_rollouts(files[first])} | {
        f"step {max(files)}": [line for line in lines if line["step"] == max(files)]
    }
    items = "".join(
        f'<li><span class="wrong">{html.escape(one.what)}</span>{"".join(map(sample_card, one.examples))}</li>'
        for one in found
    )
    verdict = f"<ul>{items}</ul>" if found else '<p class="right">Nothing suspicious.</p>'
    top = "".join(map(sample_card, highest_rewarded(lines)))
    return (
        f'<h2>Reward audit</h2><p class="sub">Of {looked_at}.</p>{verdict}<div class="cards">{_histograms(shown)}</div>'
        f"<h3>Highest rewards</h3>{top}"
    )


def newest_lines(files: Mapping[int, Path]) -> list[Line]:
    lines: list[Line] = []
    for step in sorted(files, reverse=True)[:MAX_FILES]:
        lines += [line | {"step": step} for line in read_rollouts(files[step])]
        if len({(line["step"], line["problem"]) for line in lines}) >= ENOUGH_GROUPS:
            break
    return lines


def suspicions(rows: Rows, lines: Sequence[Line]) -> list[Suspicion]:
    found = [*reward_without_accuracy(rows)]
    by_source: dict[str, list[Line]] = {}
    for line in lines:
        by_source.setdefault(line.get("source") or "", []).append(line)
    for source, theirs in by_source.items():
        found += one_answer(source, theirs) + one_completion(source, theirs) + rewarded_though_wrong(source, theirs)
    return found


def highest_rewarded(lines: Sequence[Line]) -> list[Line]:
    """One completion a problem, no text twice."""
    chosen: list[Line] = []
    for line in sorted((line for line in lines if line["usable"]), key=lambda line: -line["reward"]):
        if all(line["problem"] != c["problem"] and line["completion"] != c["completion"] for c in chosen):
            chosen.append(line)
        if len(chosen) == TOP:
            break
    return chosen


def reward_without_accuracy(rows: Rows) -> list[Suspicion]:
    """The total alone decides; what its parts did stands beside it."""
    sets = [name for name in {name: None for row in rows for name in row} if re.fullmatch(r"eval/.+/accuracy", name)]
    points = {name: [row for row in rows if row.get(name) is not None] for name in sets}
    points = {name: evaluated for name, evaluated in points.items() if len(evaluated) > 1}
    if not points:
        return []
    # From the first evaluation on, and from each set's best.
    whole = {name: evaluated[0] for name, evaluated in points.items()}
    since_best = {name: max(evaluated[:-1], key=lambda row: row[name]) for name, evaluated in points.items()}
    last = {name: evaluated[-1] for name, evaluated in points.items()}
    for begins, limit, words in ((whole, 1.0, "has not risen"), (since_best, -2.0, "has fallen since its best")):
        gains = {name: last[name][name] - begin[name] for name, begin in begins.items()}
        room = {name: limit * _error(begin, last[name], name) for name, begin in begins.items()}
        rose = any(gain > room[name] or (limit < 0 and gain == 0) for name, gain in gains.items())
        begin = max(row["step"] for row in begins.values())
        steps = [row for row in rows if row["step"] > begin and row.get("reward/mean") is not None]
        if rose or not (rise := _rise(steps, "reward/mean")):
            continue
        parts = [
            name for name in {name: None for row in steps for name in row} if re.fullmatch(r"reward/.+/mean", name)
        ]
        moved = ", ".join(f"{part[7:-5]} {_ends(steps, part)}" for part in parts)
        accuracies = ", ".join(
            f"{name[5:-9]} {number(row[name])} → {number(last[name][name])} (± {number(_error(row, last[name], name))})"
            for name, row in begins.items()
        )
        return [
            Suspicion(
                what=f"The reward rises ({number(rise[0])} → {number(rise[1])} since step {begin}; {moved}) but held-out accuracy "
                f"{words}: {accuracies}"
            )
        ]
    return []


def one_answer(source: str, lines: Sequence[Line]) -> list[Suspicion]:
    return _repeated(lines, lambda line: line.get("answer"), share=ONE_ANSWER, what=f"final answer in {source}")


def one_completion(source: str, lines: Sequence[Line]) -> list[Suspicion]:
    def text(line: Line) -> str | None:
        text = " ".join(line["completion"].split())
        return text if len(text) >= LONG_TEXT else None

    return _repeated(lines, text, share=ONE_COMPLETION, what=f"completion, word for word, in {source}")


def rewarded_though_wrong(source: str, lines: Sequence[Line]) -> list[Suspicion]:
    right = [line["reward"] for line in lines if line["usable"] and line["correct"]]
    wrong = [line for line in lines if line["usable"] and line["correct"] is False]
    if not right:
        return []
    bar = median(right)
    paid = sorted((line for line in wrong if line["reward"] >= bar), key=lambda line: -line["reward"])
    if len(paid) < max(3, WRONG_BUT_PAID * len(wrong)):
        return []
    what = f"{len(paid)} of {len(wrong)} wrong completions in {source} earn {number(bar)} or more, as right ones usually do"
    return [Suspicion(what=what, examples=paid[:EXAMPLES])]


def _repeated(lines: Sequence[Line], key: Callable[[Line], str | None], *, share: float, what: str) -> list[Suspicion]:
    """Whether one value of `key` is given to more problems than share a solution."""
    groups: dict[tuple[int, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["step"], line["problem"]), []).append(line)
    given: dict[str, list[Line]] = {}
    for members in groups.values():
        values = Counter(value for line in members if (value := key(line)) is not None)
        for value, count in values.most_common(1):
            if 2 * count >= len(members):
                given.setdefault(value, []).append(next(line for line in members if key(line) == value))
    if not given or len(groups) < MIN_GROUPS:
        return []

    def beyond(value: str) -> int:
        return len(given[value]) - max(_solutions(given[value]).values())

    value = max(given, key=beyond)
    shows = given[value]
    if beyond(value) < share * len(groups):
        return []
    right = fmean(bool(line["correct"]) for line in shows)
    sentence = (
        f"The same {what} is given to {len(shows)} of {len(groups)} problems ({len(shows) / len(groups):.0%}), which have "
        f"{len(_solutions(shows))} different solutions; {right:.0%} of them count as right: {visible(value, limit=100)}"
    )
    return [Suspicion(what=sentence, examples=shows[:EXAMPLES])]


def _solutions(lines: Sequence[Line]) -> Counter[str]:
    return Counter(line["problem"] if line.get("gold") is None else line["gold"] for line in lines)


def _error(row: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float:
    """Standard error of the difference of two accuracies."""
    key = name.replace("/accuracy", "/stderr")
    return math.hypot(row.get(key) or 0.0, other.get(key) or 0.0)


def _windows(rows: Rows, name: str) -> tuple[list[float], list[float]] | None:
    """The first and the last quarter of a metric's values."""
    values = [row[name] for row in rows if row.get(name) is not None]
    size = max(MIN_WINDOW, len(values) // 4)
    return (values[:size], values[-size:]) if len(values) >= 2 * size else None


def _rise(rows: Rows, name: str) -> tuple[float, float] | None:
    """(mean before, mean after) of what has risen by more than its noise (Welch's t)."""
    if (windows := _windows(rows, name)) is None:
        return None
    before, after = windows
    error = math.sqrt((variance(before) + variance(after)) / len(before))
    rise = fmean(after) - fmean(before)
    return (fmean(before), fmean(after)) if rise > SURE * error and rise > 0 else None


def _ends(rows: Rows, name: str) -> str:
    windows = _windows(rows, name)
    return f"{number(fmean(windows[0]))} → {number(fmean(windows[1]))}" if windows else "too few steps"


def _histograms(shown: Mapping[str, Sequence[Line]]) -> str:
    parts = dict.fromkeys(part for lines in shown.values() for line in lines for part in line["components"])
    cards = [histogram("Reward, first and last", {s: [line["reward"] for line in ls] for s, ls in shown.items()})]
    for part in parts:
        values = {
            step: [value for line in lines if (value := line["components"].get(part)) is not None]
            for step, lines in shown.items()
        }
        cards.append(histogram(f"Reward part {part}, first and last", values))
    return "".join(cards)
