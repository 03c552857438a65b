"""Metrics of an evaluation as pure functions of correctness: avg@k, pass@k, maj@k, standard errors. P problems, K completions."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from r1ray.reward.math.compare import fast_equal
from r1ray.reward.math.typography import normalise


def avg_at_k(correct_PK: Sequence[Sequence[bool]] | np.ndarray) -> float:
    """Mean over problems of the mean over completions: the expected score of a completion (pass@1 in arXiv 2501.12948, 3)."""
    return float(np.mean([np.mean(correct_K) for correct_K in correct_PK]))


def pass_at_k(num_completions: int, num_correct: int, k: int) -> float:
    """Probability that one of k completions out of n is correct: 1 - C(n-c, k) / C(n, k) (Chen et al., arXiv 2107.03374, eq. 1).

    Example: `pass_at_k(10, 3, 5)` is 11 / 12.

    Raises:
        ValueError: k is larger than the number of completions; the estimate does not exist.
    """
    if not 1 <= k <= num_completions:
        raise ValueError(
            f"pass@{k} needs at least {k} completions a problem, there are {num_completions}; raise eval.num_samples"
        )
    return 1.0 - math.comb(num_completions - num_correct, k) / math.comb(num_completions, k)


def same_answer(first: str, second: str) -> bool:
    """Equal as text or as numbers, by the cheap comparison alone."""
    return fast_equal(normalise(first), normalise(second)) is True


def maj_at_k(
    answers_K: Sequence[str | None],
    correct_K: Sequence[bool],
    *,
    same: Callable[[str, str], bool] = same_answer,
) -> float:
    """1 if the most frequent answer is correct, else 0 (maj@k, cons@k of arXiv 2501.12948).

    Correct answers are one class, because the verifier found each equal to the gold answer; incorrect ones are compared with the
    first answer of each class. A completion without an answer does not vote. Of equally large classes the one seen first wins
    (papers do not specify ties).

    Example: `maj_at_k(["1/2", "3", "0.5", "3", None], [True, False, True, False, False])` is 1.
    """
    voted = voted_for(answers_K, correct_K, same=same)
    return 0.0 if voted is None else float(correct_K[voted])


def voted_for(
    answers_K: Sequence[str | None], correct_K: Sequence[bool], *, same: Callable[[str, str], bool] = same_answer
) -> int | None:
    """Index of the first completion with the winning answer of `maj_at_k`; None where no completion has an answer."""
    classes = _classes(answers_K, correct_K, same)
    return max(classes, key=len)[0] if classes else None


def expected_maj_at_k(
    answers_K: Sequence[str | None],
    correct_K: Sequence[bool],
    k: int,
    *,
    same: Callable[[str, str], bool] = same_answer,
) -> float:
    """Expected maj@k of k completions drawn without replacement; classes that tie win with equal probability.

    Exact, by counting: j of the k drawn are correct, and t other classes also have j. No evaluation reports it: papers report a
    vote over all completions.

    Example: three of the answers A, A, B and C (A is correct) give `(1 + 1 + 1/3 + 1/3) / 4`.

    Raises:
        ValueError: k is larger than the number of completions.
    """
    if not 1 <= k <= len(answers_K):
        raise ValueError(
            f"maj@{k} needs at least {k} completions a problem, there are {len(answers_K)}; raise eval.num_samples"
        )
    classes = _classes(answers_K, correct_K, same)
    correct = sum(len(members) for members in classes if correct_K[members[0]])
    others = [len(members) for members in classes if not correct_K[members[0]]]
    silent = sum(answer is None for answer in answers_K)
    won = sum(
        math.comb(correct, votes) * ways / (1 + ties)
        for votes in range(1, min(correct, k) + 1)
        for ties, ways in enumerate(_ways(others, silent, drawn=k - votes, most=votes))
    )
    return won / math.comb(len(answers_K), k)


def standard_error(scores_P: Sequence[float] | np.ndarray) -> float:
    """Standard error of a mean over problems: sample deviation / sqrt(P). `scores_P` has one number per problem, because
    completions to one problem are not independent (clustered standard error); nan with a single problem."""
    if len(scores_P) < 2:
        return float("nan")
    return float(np.std(scores_P, ddof=1) / math.sqrt(len(scores_P)))


def _same_class(
    answers_K: Sequence[str | None],
    correct_K: Sequence[bool],
    first: int,
    second: int,
    same: Callable[[str, str], bool],
) -> bool:
    a, b = answers_K[first], answers_K[second]
    assert a is not None and b is not None
    return bool(correct_K[first]) == bool(correct_K[second]) and (bool(correct_K[first]) or same(a, b))


def _classes(
    answers_K: Sequence[str | None], correct_K: Sequence[bool], same: Callable[[str, str], bool]
) -> list[list[int]]:
    """Indices of the completions that have an answer, grouped by answer."""
    classes: list[list[int]] = []
    for index, answer in enumerate(answers_K):
        if answer is not None:
            members = next((c for c in classes if _same_class(answers_K, correct_K, c[0], index, same)), None)
            if members is None:
                classes.append([index])
            else:
                members.append(index)
    return classes


def _ways(classes: Sequence[int], silent: int, *, drawn: int, most: int) -> list[int]:
    """[ties] -> number of ways to draw `drawn` completions from classes of these sizes and from the `silent` ones without an
    answer, at most `most` from each class and exactly `most` from `ties` of them."""
    ways = {(n, 0): math.comb(silent, n) for n in range(min(silent, drawn) + 1)}
    for size in classes:
        before, ways = ways, dict[tuple[int, int], int]()
        for (sofar, ties), count in before.items():
            for n in range(min(size, most, drawn - sofar) + 1):
                key = sofar + n, ties + (n == most)
                ways[key] = ways.get(key, 0) + count * math.comb(size, n)
    return [ways.get((drawn, ties), 0) for ties in range(len(classes) + 1)]
