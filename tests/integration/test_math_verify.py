"""math-verify in its child process: correct and incorrect answers, bombs limited in time and memory, a killed child that is
restarted."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import maths_attacks
import numpy as np
import pytest
import ray
from omegaconf import OmegaConf

import r1ray.reward.math
from r1ray.actors.reward import RewardWorker
from r1ray.cli import compose
from r1ray.config import Config
from r1ray.reward.accuracy import accuracy
from r1ray.reward.base import RewardContext
from r1ray.reward.compose import Component, Scorer
from r1ray.reward.math import compare
from r1ray.reward.math.process import MEMORY_BYTES, MathVerifier, VerifierDown
from r1ray.types import Completion, Message, Problem, Score, VersionSpan

pytestmark = pytest.mark.integration

CONTEXT = RewardContext(step=1, seed=0, max_response_length=100)
GOLDEN = Path(__file__).parents[1] / "golden" / "algorithms.json"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    made = MathVerifier()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[MathVerifier]:
    made = MathVerifier(cpu_s=1.0)
    yield made
    made.close()


def group(gold: str | list[str], *texts: str) -> tuple[Problem, list[Completion]]:
    problem = Problem(
        id="p",
        source="s",
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.array([1], np.int32),
        verifier="math",
        payload={"answers": [gold] if isinstance(gold, str) else gold},
    )
    completions = [
        Completion(
            token_ids_T=np.array([1], np.int32),
            rollout_logprobs_T=np.array([0.0], np.float32),
            temperature=1.0,
            text=text,
            finish_reason="stop",
            versions=(VersionSpan(version=0, start=0, end=1),),
        )
        for text in texts
    ]
    return problem, completions


def scores(gold: str | list[str], *texts: str) -> tuple[Score, ...]:
    scorer = Scorer([Component(name="accuracy", weight=1.0, reward=accuracy)], truncated="zero")
    return scorer.score(*group(gold, *texts), CONTEXT)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        ("x=6", "6"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("(1,2)", "1<x<2"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        ("2^{10}", "1024"),
        ("1.414214", r"\sqrt{2}"),
        (r"\sqrt{5+2\sqrt{6}} - \sqrt{2} - \sqrt{3}", "0"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_correct_answers_are_accepted(verifier, answer: str, gold: str):
    assert verifier.verify([gold], answer) == "correct"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x^2+1", "x^2+2x+1"),
        ("x=7", "6"),
        ("7,8", "7"),
        (r"\{0,1,2,3,4,5,6,7\}", "7"),
        ("1<x<2", "(1,2)"),
        (r"\frac{1}{0}-\frac{1}{0}+7", "7"),
        ("().__class__.__base__.__subclasses__()", "7"),
        ("7} \\boxed{8", "8"),
        ("5t", "5"),
        ("e^{-40}", "e^{-41}"),
        (r"\frac{1}{3} \cdot 10^{-20}", r"\frac{1}{4} \cdot 10^{-20}"),
        ("0", "e^{-40}"),
    ],
)
def test_incorrect_answers_are_rejected(verifier, answer: str, gold: str):
    assert verifier.verify([gold], answer) == "incorrect"


def test_answer_may_equal_any_of_several_golds(verifier):
    assert verifier.verify(["y", "2x", r"x^2+2x+1"], "(x+1)^2") == "correct"
    assert [s.correct for s in scores(["6", "six"], r"\boxed{six}", r"\boxed{7}")] == [True, False]


@pytest.mark.parametrize(
    "bomb",
    [
        "10^{10^{10}}",
        "9**9**9",
        "(10^{9})!",
        r"\binom{10^{9}}{5\cdot10^{8}}",
        r"\sum_{n=1}^{10^{12}} \frac{1}{n^{n}}",
        r"\int_0^1 x^{x^{x^{x}}} \sin(x^{100}) dx",
        "(" * 900 + "7" + ")" * 900,
        r"\frac{1}{" * 300 + "7" + "}" * 300,
        r"\sqrt{" * 400 + "7" + "}" * 400,
    ],
)
def test_bomb_times_out_and_the_next_answer_is_verified(hasty: MathVerifier, bomb: str):
    """The child's own timers end it; otherwise the verifier would abandon the child (VerifierDown)."""
    assert hasty.verify(["7"], bomb) in ("incorrect", "timeout", "memory", "crash")
    assert hasty.verify(["x^2+2x+1"], "(x+1)^2") == "correct"


@pytest.mark.parametrize("bomb", [r"\binom{10^{9}}{5\cdot10^{8}}", "10^{10^{9}}-10^{10^{9}}+7"])
def test_bomb_is_scored_as_an_incorrect_completion(bomb: str):
    (score,) = scores("7", f"\\boxed{{{bomb}}}")
    assert score.usable
    assert (score.reward, score.correct) == (0.0, False)
    assert score.statuses["accuracy"] in ("timeout", "memory")


def worker_of(verifier: MathVerifier) -> int:
    child = verifier._child.pid
    (worker,) = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    return int(worker)


def test_memory_and_files_are_bounded(verifier):
    verifier.verify(["y"], "x")
    limits = Path(f"/proc/{worker_of(verifier)}/limits").read_text()
    assert re.search(rf"Max address space +{MEMORY_BYTES} ", limits)
    assert re.search(r"Max file size +0 ", limits)


def test_killed_child_is_restarted(verifier):
    verifier.verify(["y"], "x")
    first = verifier._child.pid
    os.kill(first, signal.SIGKILL)
    assert verifier.verify(["x^2+2x+1"], "(x+1)^2") == "correct"
    assert verifier._child.pid != first


def test_killed_worker_is_replaced_without_restarting_the_child(verifier):
    verifier.verify(["y"], "x")
    child = verifier._child.pid
    os.kill(worker_of(verifier), signal.SIGKILL)
    assert verifier.verify(["x^2+2x+1"], "(x+1)^2") == "correct"
    assert verifier._child.pid == child


def test_comparison_that_got_no_cpu_time_is_repeated(verifier):
    """The wall limit on a busy machine. A comparison that uses up its CPU time is over its limit at once."""
    verifier.verify(["y"], "x")
    os.kill(worker_of(verifier), signal.SIGALRM)
    assert verifier.verify(["x^2+2x+1"], "(x+1)^2") == "correct"


def test_verifier_works_outside_the_main_thread(verifier):
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(verifier.verify(["x^2+2x+1"], "(x+1)^2")))
    thread.start()
    thread.join(60)
    assert verdicts == ["correct"]


def test_child_that_cannot_start_makes_completions_unusable(monkeypatch, caplog):
    """Answers that need no algebra are still scored; the others get no score, not 0. The child is not restarted for each of
    them."""
    broken = MathVerifier()
    broken._command = [sys.executable, "-c", "raise SystemExit('math_verify is not installed')"]
    monkeypatch.setattr(r1ray.reward.math, "verifier", lambda: broken)
    made = scores("z^2", r"\boxed{z^2}", r"\boxed{z z}", r"\boxed{(z)(z)}", r"I do not know.", r"\boxed{7, 8}")
    assert [score.usable for score in made] == [True, False, False, True, True]
    assert [score.statuses["accuracy"] for score in made[1:3]] == ["sandbox_error"] * 2
    assert [score.correct for score in made] == [True, None, None, False, False]
    assert caplog.text.count("VerifierDown") == 1
    monkeypatch.setattr(broken, "_ask", lambda request: pytest.fail("it was retried at once"))
    with pytest.raises(VerifierDown, match="process failed"):
        broken.verify(["7"], "x")
    monkeypatch.undo()
    monkeypatch.setattr(r1ray.reward.math.process, "RETRY_S", 0.0)
    recovered = MathVerifier()
    command, recovered._command = recovered._command, broken._command
    with pytest.raises(VerifierDown):
        recovered.verify(["7"], "x")
    recovered._command = command
    assert recovered.verify(["x^2+2x+1"], "(x+1)^2") == "correct"
    recovered.close()


def test_child_processes_end_with_their_owner():
    code = (
        "from r1ray.reward.math.process import MathVerifier; v = MathVerifier(); v.verify(['7'], 'x+1'); "
        "print(v._child.pid, flush=True); import os; os._exit(1)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_same_pair_is_compared_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        r1ray.reward.math,
        "verifier",
        lambda: type("Counting", (), {"verify": lambda self, golds, answer: asked.append(answer) or "incorrect"})(),
    )
    for score in scores("q^2", *[r"\boxed{q + q}"] * 8):
        assert score.correct is False
    assert asked == ["q + q"]


def test_golden_except_for_deliberate_differences():
    """The golden table was computed with math-verify under antlr 4.13; these are r1ray's deliberate differences."""
    case = next(c for c in json.loads(GOLDEN.read_text())["cases"] if c["id"] == "reward_accuracy_math_verify")
    ours = {
        r"The answer is $6$": 0.0,  # no box, no <answer>, no `Answer:` line
        r"\boxed{5} wait \boxed{6}": 1.0,  # the last box is the answer
        r"<think>\boxed{7}</think> \boxed{6}": 1.0,  # what was thought is not the answer
        r"\boxed{\frac12}": 1.0,  # sound LaTeX for one half
        r"\boxed{\text{B}}": 1.0,  # a letter is compared as text
        r"\boxed{1<x<2}": 1.0,  # the interval (1, 2), in another notation
        "unparseable words": 0.0,  # the gold is text; the completion has no answer
    }
    for pair, expected in zip(case["inputs"]["cases"], case["expected"], strict=True):
        (score,) = scores(pair["gold"], pair["completion"])
        assert score.reward == ours.get(pair["completion"], expected), pair


@pytest.mark.parametrize("name", maths_attacks.ENTRIES)
def test_hostile_answer_gets_the_same_allowed_verdict_twice(name: str):
    assert not maths_attacks.faults(name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_hostile_answers_get_the_same_verdicts_for_an_unprivileged_user():
    # This user may read all files, because the interpreter may be in root's home, but may write none and signal no process.
    become = (
        "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
    )
    command = [*become.split(), sys.executable, maths_attacks.__file__]
    env = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0 and "uid 65534" in done.stdout, done.stdout + done.stderr


def test_equal_text_needs_no_child(monkeypatch):
    monkeypatch.setattr(r1ray.reward.math, "verifier", lambda: pytest.fail("the child was asked"))
    pairs = (("6", "6"), (r"50\%", "0.5"), (r"\frac{1}{2}", "0.5"), ("7", "6"), (r"x^{2}", "x^{2}"))
    verdicts = [compare(answer, (gold,)) for answer, gold in pairs]
    assert verdicts == ["correct", "correct", "correct", "incorrect", "correct"]


def test_verifier_works_in_a_ray_actor_with_threads():
    """Libraries that need SIGALRM score everything 0 there without an error."""
    cfg = Config.model_validate(OmegaConf.to_container(compose(), resolve=True))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        worker = ray.remote(RewardWorker).options(num_cpus=0, max_concurrency=2).remote(index=3, cfg=cfg)
        assert ray.get(worker.ping.remote(), timeout=60) == 3
        problem, completions = group("x^2+2x+1", r"\boxed{(x+1)^2}", r"\boxed{x}", r"\boxed{\binom{10^9}{5\cdot10^8}}")
        made = ray.get([worker.score.remote(problem, completions, CONTEXT) for _ in range(2)], timeout=120)
        for group_scores in made:
            assert [s.correct for s in group_scores] == [True, False, False]
            assert all(s.usable for s in group_scores)
    finally:
        ray.shutdown()
