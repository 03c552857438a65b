"""The console: a live table on a terminal, otherwise one line per step."""

import io

import pytest
from rich.console import Console

from r1ray.run.console import StepConsole, duration, number

STEP = {
    "solve_rate": 0.3125,
    "reward/mean": 0.4,
    "response_length/mean": 61.24,
    "loss/policy": -2e-5,
    "time/step": 1.9,
    "lr": 1e-4,
}


def printed(*, terminal: bool, steps: int = 3) -> str:
    out = io.StringIO()
    console = StepConsole(
        stage="rl", first_step=0, last_step=10, console=Console(file=out, force_terminal=terminal, width=60)
    )
    console.step(
        0,
        {"eval/countdown/accuracy": 0.23, "eval/countdown/stderr": 0.018, "eval/countdown/pass@4": 0.5, "time/eval": 3},
    )
    for step in range(1, steps + 1):
        console.step(step, STEP)
    console.close()
    return out.getvalue()


def test_one_line_per_step_without_a_terminal() -> None:
    lines = printed(terminal=False).splitlines()
    assert len(lines) == 4
    assert lines[0] == "step 0  eval countdown: accuracy 0.230 ± 0.018  pass@4 0.500"
    assert lines[2].startswith(
        "rl 2/10  solve rate 0.312  reward 0.400  length 61.2  seconds 1.90  loss policy -2.0e-05  left "
    )


def test_an_evaluation_follows_its_step_and_shows_only_what_is_to_see() -> None:
    """The line of the step first: the evaluation is of the model after it."""
    out = io.StringIO()
    console = StepConsole(stage="rl", first_step=1, last_step=2, console=Console(file=out))
    counts = {"eval/a/problems": 15.0, "eval/a/left_out": 0.0, "eval/a/unusable": 0.0}
    console.step(1, STEP | counts | {"eval/a/accuracy": 0.5, "loss/policy": -7.5e-9})
    console.step(2, STEP | counts | {"eval/a/accuracy": 0.5, "eval/a/left_out": 2.0})
    lines = out.getvalue().splitlines()
    assert [line[:6] for line in lines] == ["rl 1/2", "step 1", "rl 2/2", "step 2"]
    assert "  loss policy 0  left" in lines[0] and "  loss policy -2.0e-05  left" in lines[2]
    assert lines[1] == "step 1  eval a: accuracy 0.500" and lines[3].endswith("accuracy 0.500  left_out 2.00")


def test_lines_are_not_wrapped_and_carry_no_control_codes() -> None:
    assert "\x1b" not in printed(terminal=False)


def test_a_terminal_gets_a_table_and_a_bar() -> None:
    text = printed(terminal=True)
    assert "at the start" in text
    assert "solve rate" in text
    assert "3/10" in text
    assert "accuracy 0.230 ± 0.018" in text


def test_the_table_keeps_the_first_and_the_latest_values() -> None:
    console = StepConsole(stage="rl", first_step=1, last_step=10, console=Console(file=io.StringIO()))
    console.step(1, {"solve_rate": 0.1})
    console.step(2, {"solve_rate": 0.9})
    assert (console.first["solve_rate"], console.latest["solve_rate"]) == (0.1, 0.9)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.3125, "0.312"),
        (6.125, "6.12"),
        (61.24, "61.2"),
        (1234.5, "1234"),
        (2e-6, "2.0e-06"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_durations() -> None:
    assert (duration(75), duration(4000)) == ("1:15", "1:06:40")
