"""Our verdicts on generated pairs against their construction, and against math-verify's in the same process."""

import maths_pairs
import pytest
from maths_pairs import MetricAccumulator, Pair

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
MAX_WRONG, MAX_DIFFERENCE = 0.005, 0.01

COUNTS = [pytest.param(1500, id="share"), pytest.param(5000, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_verdicts_are_what_the_pairs_were_made_for(count: int) -> None:
    made = maths_pairs.pairs(count)
    assert len(made) == count and sum(pair.right for pair in made) == count // 2
    verdicts = [maths_pairs.ours(pair) for pair in made]
    judged = list(zip(made, verdicts, strict=True))
    assert not [pair for pair, verdict in judged if verdict not in ("correct", "incorrect")], "over its limits"
    assert not [pair for pair, verdict in judged if verdict == "correct" and not pair.right], "accepted"
    refused = [pair for pair, verdict in judged if verdict != "correct" and pair.right]
    assert len(refused) <= MAX_WRONG * count, refused

    theirs = maths_pairs.math_verify()
    found = maths_pairs.tallies(made, [verdict == "correct" for verdict in verdicts], [theirs(pair) for pair in made])
    for kind, accumulator in found.items():
        if all(accumulator.theirs):
            assert accumulator.differences <= MAX_DIFFERENCE * len(accumulator.pairs), kind
        elif accumulator.differences:
            assert kind in maths_pairs.REASONS, f"{kind}: why does math-verify differ?"


def test_the_pairs_are_always_the_same() -> None:
    first = maths_pairs.pairs(200)
    assert first == maths_pairs.pairs(200) == maths_pairs.pairs(400)[:200]
    assert maths_pairs.pairs(200, seed=1) != first


def test_every_reason_names_a_test_that_exists() -> None:
    tests = (maths_pairs.REPORT.parents[1] / "unit" / "test_math_forms.py").read_text()
    for kind, (reason, test) in maths_pairs.REASONS.items():
        assert kind in maths_pairs.KINDS and reason and f"def {test}(" in tests, kind


def test_the_table_counts_who_agrees_with_the_construction() -> None:
    pairs = [Pair(kind="integers", gold="1", answer=a, right=a == "1") for a in ("1", "2")]
    accumulator = MetricAccumulator(pairs=pairs, ours=[True, True], theirs=[True, False])
    assert accumulator.differences == 1
    assert "| integers | 2 | 100.0 % | 50.0 % | 1 | 0 |" in maths_pairs.table({"integers": accumulator})
