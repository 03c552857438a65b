"""The reward audit of report.html: does the reward still measure what it should?

    reward up, accuracy not     reward/mean rises from the first to the last quarter of the steps and held-out accuracy does not,
                                over the whole run or since it was best
    one answer                  the same final answer to at least a third of the problems of a source, after leaving out those for
                                which it may be correct: those with the most frequent gold answer among the problems given it
    one completion              the same long text to at least a tenth of them, counted in the same way
    nothing to learn from       equal rewards in every group of the last steps
    truncated                   a large share of the completions of the last steps is cut at the length limit
    rewarded though incorrect   incorrect completions that earn as much as correct ones of their source usually do

A finding says where to look, not what is broken. An answer counts for a group if half of its completions give it. A problem
without a gold answer (a program with tests) counts as having one that differs from all others. Example: the answer B to every
multiple-choice question is a finding; the answer B only where B is correct is none.
"""

import html
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, variance
from typing import Any

from r1ray.data.rollouts import read_rollouts
from r1ray.run.card import completion_card, visible
from r1ray.run.charts import histogram
from r1ray.run.console import number
from r1ray.run.levels import CONDITIONS, STEPS
from r1ray.run.loggers import Rows, matching

Line = Mapping[str, Any]
"""A line of a rollouts file with its `step`."""

ENOUGH_GROUPS, MAX_FILES = 64, 5
"""The newest rollouts are read up to this many groups or files."""
MIN_GROUPS = 8
ONE_ANSWER, ONE_COMPLETION = 1 / 3, 1 / 10
"""Shares of the problems."""
LONG_TEXT = 80
"""Characters; a shorter text is hardly more than its answer."""
REWARDED = 0.05
"""Share of the incorrect completions."""
MIN_WINDOW = 5
MIN_RISE = 4.0
"""Standard errors by which the reward must have risen."""
TOP, EXAMPLES = 4, 2
"""Completions shown for the highest rewards, and for each finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence with its numbers (not yet escaped for HTML), and completions that show it."""

    what: str
    examples: Sequence[Line] = ()


def audit_section(rows: Rows, files: Mapping[int, Path]) -> str:
    """HTML of the audit, from the metrics and rollouts files of a stage; "" if there are no rollouts."""
    if not files:
        return ""
    lines = newest_lines(files)
    found = findings(rows, lines)
    groups = len({(line["step"], line["problem"]) for line in lines})
    steps = sorted({line["step"] for line in lines})
    looked_at = f"{len(lines)} completions of {groups} problems (steps {', '.join(map(str, steps))}) and all metrics"
    first = min(files)
    shown = {f"step {first}": read_rollouts(files[first])} | {
        f"step {max(files)}": [line for line in lines if line["step"] == max(files)]
    }
    items = "".join(
        f'<li><span class="wrong">{html.escape(one.what)}</span>{"".join(map(completion_card, one.examples))}</li>'
        for one in found
    )
    verdict = f"<ul>{items}</ul>" if found else '<p class="right">No findings.</p>'
    top = "".join(map(completion_card, highest_rewarded(lines)))
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


def findings(rows: Rows, lines: Sequence[Line]) -> list[Finding]:
    found = reward_without_accuracy(rows) + levels(rows)
    by_source: dict[str, list[Line]] = {}
    for line in lines:
        by_source.setdefault(line.get("source") or "", []).append(line)
    for source, own in by_source.items():
        found += one_answer(source, own) + one_completion(source, own) + rewarded_though_incorrect(source, own)
    return found


def highest_rewarded(lines: Sequence[Line]) -> list[Line]:
    """At most one completion per problem, and no text twice."""
    chosen: list[Line] = []
    for line in sorted((line for line in lines if line["usable"]), key=lambda line: -line["reward"]):
        if all(line["problem"] != c["problem"] and line["completion"] != c["completion"] for c in chosen):
            chosen.append(line)
        if len(chosen) == TOP:
            break
    return chosen


def reward_without_accuracy(rows: Rows) -> list[Finding]:
    """Only the total reward decides; the changes of its components are reported with it."""
    sets = [match[0] for match in matching(rows, "eval/.+/accuracy")]
    points = {name: [row for row in rows if row.get(name) is not None] for name in sets}
    points = {name: evaluated for name, evaluated in points.items() if len(evaluated) > 1}
    if not points:
        return []
    # Compared with the first evaluation, and with the best one of each set.
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
        components = matching(steps, "reward/(.+)/mean")
        moved = ", ".join(f"{match[1]} {_ends(steps, match[0])}" for match in components)
        accuracies = ", ".join(
            f"{name[5:-9]} {number(row[name])} → {number(last[name][name])} (± {number(_error(row, last[name], name))})"
            for name, row in begins.items()
        )
        return [
            Finding(
                what=f"The reward rises ({number(rise[0])} → {number(rise[1])} since step {begin}; {moved}) but held-out accuracy "
                f"{words}: {accuracies}"
            )
        ]
    return []


def levels(rows: Rows) -> list[Finding]:
    """Alarms about a level (`r1ray.run.levels`) that are active at the last step, or would be, had the run more steps."""
    trained = [row for row in rows if row.get("groups/generated")][-STEPS:]
    texts = {name: [condition(row) for row in trained] for name, condition in CONDITIONS.items()}
    what = f"In the last {len(trained)} steps" if len(trained) > 1 else "In the only step"
    return [
        Finding(what=f"{what} {text}")
        for found in texts.values()
        if all(found) and (text := found[-1] if found else None)
    ]


def one_answer(source: str, lines: Sequence[Line]) -> list[Finding]:
    return _repeated(lines, lambda line: line.get("answer"), share=ONE_ANSWER, what=f"final answer in {source}")


def one_completion(source: str, lines: Sequence[Line]) -> list[Finding]:
    def text(line: Line) -> str | None:
        text = " ".join(line["completion"].split())
        return text if len(text) >= LONG_TEXT else None

    return _repeated(lines, text, share=ONE_COMPLETION, what=f"completion, word for word, in {source}")


def rewarded_though_incorrect(source: str, lines: Sequence[Line]) -> list[Finding]:
    correct = [line["reward"] for line in lines if line["usable"] and line["correct"]]
    incorrect = [line for line in lines if line["usable"] and line["correct"] is False]
    if not correct:
        return []
    min_reward = median(correct)
    rewarded = sorted((line for line in incorrect if line["reward"] >= min_reward), key=lambda line: -line["reward"])
    if len(rewarded) < max(3, REWARDED * len(incorrect)):
        return []
    amount = f"{len(rewarded)} of {len(incorrect)} incorrect completions"
    what = f"{amount} in {source} earn {number(min_reward)} or more, like correct ones"
    return [Finding(what=what, examples=rewarded[:EXAMPLES])]


def _repeated(lines: Sequence[Line], key: Callable[[Line], str | None], *, share: float, what: str) -> list[Finding]:
    """A finding if one value of `key` is given to at least `share` of all problems.

    Of the problems with the same value, those with the most frequent gold answer among them are not counted.
    """
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
    correct = fmean(bool(line["correct"]) for line in shows)
    sentence = (
        f"The same {what} is given to {len(shows)} of {len(groups)} problems ({len(shows) / len(groups):.0%}), which have "
        f"{len(_solutions(shows))} different solutions; {correct:.0%} of them count as correct: {visible(value, limit=100)}"
    )
    return [Finding(what=sentence, examples=shows[:EXAMPLES])]


def _solutions(lines: Sequence[Line]) -> Counter[str]:
    return Counter(line["problem"] if line.get("gold") is None else line["gold"] for line in lines)


def _error(row: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float:
    """Standard error of the difference of two accuracies."""
    key = name.replace("/accuracy", "/stderr")
    return math.hypot(row.get(key) or 0.0, other.get(key) or 0.0)


def _windows(rows: Rows, name: str) -> tuple[list[float], list[float]] | None:
    """The first and the last quarter of the values of a metric; None if there are too few."""
    values = [row[name] for row in rows if row.get(name) is not None]
    size = max(MIN_WINDOW, len(values) // 4)
    return (values[:size], values[-size:]) if len(values) >= 2 * size else None


def _rise(rows: Rows, name: str) -> tuple[float, float] | None:
    """(mean before, mean after) if the metric rose by more than its noise (Welch's t); else None."""
    if (windows := _windows(rows, name)) is None:
        return None
    before, after = windows
    error = math.sqrt((variance(before) + variance(after)) / len(before))
    rise = fmean(after) - fmean(before)
    return (fmean(before), fmean(after)) if rise > MIN_RISE * error and rise > 0 else None


def _ends(rows: Rows, name: str) -> str:
    windows = _windows(rows, name)
    return f"{number(fmean(windows[0]))} → {number(fmean(windows[1]))}" if windows else "too few steps"


def _histograms(shown: Mapping[str, Sequence[Line]]) -> str:
    components = dict.fromkeys(name for lines in shown.values() for line in lines for name in line["components"])
    cards = [histogram("Reward, first and last", {s: [line["reward"] for line in ls] for s, ls in shown.items()})]
    for name in components:
        values = {
            step: [value for line in lines if (value := line["components"].get(name)) is not None]
            for step, lines in shown.items()
        }
        cards.append(histogram(f"Reward component {name}, first and last", values))
    return "".join(cards)
