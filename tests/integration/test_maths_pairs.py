"""r1ray's verdicts on generated pairs: compared with their construction, and with math-verify's in the same process."""

import maths_pairs
import pytest
from maths_pairs import Agreement, Pair

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
MAX_WRONG, MAX_DIFFERENCE = 0.005, 0.01

COUNTS = [pytest.param(1500, id="share"), pytest.param(5000, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_verdicts_equal_the_construction_of_the_pairs(count: int) -> None:
    made = maths_pairs.pairs(count)
    assert len(made) == count and sum(pair.correct for pair in made) == count // 2
    verdicts = [maths_pairs.ours(pair) for pair in made]
    with_verdicts = list(zip(made, verdicts, strict=True))
    assert not [pair for pair, verdict in with_verdicts if verdict not in ("correct", "incorrect")], "over its limits"
    assert not [pair for pair, verdict in with_verdicts if verdict == "correct" and not pair.correct], "accepted"
    refused = [pair for pair, verdict in with_verdicts if verdict != "correct" and pair.correct]
    assert len(refused) <= MAX_WRONG * count, refused

    theirs = maths_pairs.math_verify()
    found = maths_pairs.agreements(
        made, [verdict == "correct" for verdict in verdicts], [theirs(pair) for pair in made]
    )
    for kind, agreement in found.items():
        if all(agreement.theirs):
            assert agreement.differences <= MAX_DIFFERENCE * len(agreement.pairs), kind
        elif agreement.differences:
            assert kind in maths_pairs.REASONS, f"{kind}: why does math-verify differ?"


def test_pairs_are_reproducible() -> None:
    first = maths_pairs.pairs(200)
    assert first == maths_pairs.pairs(200) == maths_pairs.pairs(400)[:200]
    assert maths_pairs.pairs(200, seed=1) != first


def test_every_reason_names_an_existing_test() -> None:
    tests = (maths_pairs.REPORT.parents[1] / "unit" / "test_math_forms.py").read_text()
    for kind, (reason, test) in maths_pairs.REASONS.items():
        assert kind in maths_pairs.KINDS and reason and f"def {test}(" in tests, kind


def test_table_counts_agreement_with_the_construction() -> None:
    pairs = [Pair(kind="integers", gold="1", answer=a, correct=a == "1") for a in ("1", "2")]
    agreement = Agreement(pairs=pairs, ours=[True, True], theirs=[True, False])
    assert agreement.differences == 1
    assert "| integers | 2 | 100.0 % | 50.0 % | 1 | 0 |" in maths_pairs.table({"integers": agreement})
