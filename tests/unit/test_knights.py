"""Knights and knaves: every puzzle has one solution, splits share no puzzle, and the verifier reads the generator's solutions."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from reward_samples import completion, context, problem

from r1ray.config import SourceConfig
from r1ray.data.generators import knights
from r1ray.data.generators.knights import KINDS, Claim, KnightsArgs, solutions, split_of, structure
from r1ray.data.sources import load_source
from r1ray.reward.accuracy import accuracy

STATEMENT = r"(\w+) is a (knight|knave)"


def generate(**args: Any) -> Iterator[dict[str, Any]]:
    return knights.generate(KnightsArgs(**args))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(generate(split="train", num_problems=210, seed=3, num_people=[2, 8]))


def holds(claim: str, world: dict[str, bool]) -> bool:
    """Whether an English claim is true, parsed independently from its text."""
    truths = [world[name] == (role == "knight") for name, role in re.findall(STATEMENT, claim)]
    shape = re.sub(STATEMENT, "_", claim)
    return {
        "_": lambda p: p,
        "it is not true that _": lambda p: not p,
        "_ and _": lambda p, q: p and q,
        "_ or _": lambda p, q: p or q,
        "if _ then _": lambda p, q: q or not p,
        "_ if and only if _": lambda p, q: p == q,
    }[shape](*truths)


def test_every_puzzle_has_exactly_one_solution(rows):
    for row in rows:
        said = re.findall(r"(\w+) says: ([^.]*)\.", row["question"])
        assert [name for name, _ in said] == row["names"]
        worlds = [dict(zip(row["names"], world, strict=True)) for world in product((True, False), repeat=len(said))]
        (only,) = (world for world in worlds if all(holds(claim, world) == world[name] for name, claim in said))
        assert row["answer"] == knights.answer(list(only), list(only.values()))


def test_every_kind_of_claim_and_both_roles_occur(rows):
    text = " ".join(row["question"] + row["answer"] for row in rows)
    for words in ("it is not true that", " and ", " or ", "says: if ", "if and only if", "(8) ", "knave"):
        assert words in text
    names = {name for row in rows for name in row["names"]}
    assert names == set(knights.NAMES)


def test_no_claim_is_only_about_its_speaker(rows):
    for row in rows:
        assert not re.search(r"(\w+) says: (it is not true that )?\1 is a \w+\.", row["question"])


def test_numbers_of_people_get_equal_shares(rows):
    sizes = [len(row["names"]) for row in rows]
    assert {size: sizes.count(size) for size in sizes} == dict.fromkeys(range(2, 9), 30)
    assert {len(row["names"]) for row in generate(split="train", num_problems=9, num_people=4)} == {4}


def test_solutions_are_complete():
    liar = [Claim(kind="is", parts=((1, True),)), Claim(kind="is", parts=((0, False),))]
    assert solutions(liar).tolist() == []
    each_other = [Claim(kind="is", parts=((1, True),)), Claim(kind="is", parts=((0, True),))]
    assert solutions(each_other).tolist() == [[True, True], [False, False]]
    one = [Claim(kind="or", parts=((0, False), (1, True))), Claim(kind="is", parts=((0, True),))]
    assert solutions(one).tolist() == [[True, True]]


def test_structure_does_not_depend_on_order_and_names():
    claims = [
        Claim(kind="if", parts=((1, True), (2, False))),
        Claim(kind="and", parts=((1, True), (0, True))),
        Claim(kind="not", parts=((0, False),)),
    ]
    place = {0: 2, 1: 0, 2: 1}

    def moved(claim: Claim, *, turned: bool) -> Claim:
        parts = tuple((place[who], knight) for who, knight in claim.parts)
        return Claim(kind=claim.kind, parts=parts[::-1] if turned else parts)

    other_order = [moved(claims[n], turned=KINDS[claims[n].kind].symmetric) for n in (1, 2, 0)]
    assert structure(other_order) == structure(claims)
    assert structure([moved(claims[n], turned=True) for n in (1, 2, 0)]) != structure(claims)
    assert structure([*claims[:2], Claim(kind="not", parts=((0, True),))]) != structure(claims)


def test_splits_are_decided_by_a_fixed_hash():
    found = [
        split_of([Claim(kind=kind, parts=((0, a), (1, b))), Claim(kind=other, parts=((0, True),))])
        for kind, other in product(("and", "or", "if", "iff"), ("is", "not"))
        for a, b in product((True, False), repeat=2)
    ]
    assert [n for n, split in enumerate(found) if split == "test"] == [7, 21, 23, 26, 29]


def claims_of(row: dict) -> list[Claim]:
    """The claims, read back from the question."""
    kinds = {kind.text["en"].format("_", "_"): name for name, kind in KINDS.items()}
    found = []
    for said in re.findall(r"says: ([^.]*)\.", row["question"]):
        parts = [(row["names"].index(name), role == "knight") for name, role in re.findall(STATEMENT, said)]
        found.append(Claim(kind=kinds[re.sub(STATEMENT, "_", said)], parts=tuple(parts)))
    return found


def test_splits_share_no_puzzle_even_under_other_names():
    structures = {"train": set(), "test": set()}
    for split, seed in (("train", 0), ("train", 1), ("test", 0), ("test", 2)):
        for row in generate(split=split, num_problems=200, seed=seed, num_people=[2, 3]):
            assert split_of(claims_of(row)) == split
            structures[split].add(structure(claims_of(row)))
    assert min(map(len, structures.values())) > 50
    assert not structures["train"] & structures["test"]


def test_same_seed_gives_the_same_puzzles():
    first, again, other = (
        [row["id"] for row in generate(split="test", num_problems=20, seed=seed)] for seed in (7, 7, 8)
    )
    assert first == again != other
    assert len({*first, *other}) == 40


def test_chinese_puzzles_equal_english_ones():
    for en, zh in zip(
        generate(split="train", num_problems=30, seed=1),
        generate(split="train", num_problems=30, seed=1, language="zh"),
        strict=True,
    ):
        assert (en["names"], en["answer"]) == (zh["names"], zh["answer"])
        assert zh["question"].count("骑士") + zh["question"].count("骗子") > 4 + len(zh["names"])
        assert (zh["language"], zh["id"] == en["id"]) == ("zh", False)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"split": "dev"}, "'train' or 'test'"),
        ({"language": "de"}, "'en' or 'zh'"),
        ({"num_people": 1}, "from 2 to 8"),
        ({"num_people": [3, 9]}, "from 2 to 8"),
        ({"num_people": [5, 3]}, "lowest, highest"),
        ({"num_people": [2, 3, 4]}, "lowest, highest"),
        ({"num_people": "37"}, "from 2 to 8"),
        ({"num_people": 3.5}, "from 2 to 8"),
        ({"num_problems": "many"}, "num_problems\n.*valid integer"),
    ],
)
def test_invalid_arguments_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        generate(**({"split": "train", "num_problems": 5} | args))


def test_exhausted_split_is_reported(monkeypatch):
    monkeypatch.setattr(knights, "NAMES", ("Ann", "Bob"))
    with pytest.raises(ValueError, match=r"split test has about \d+ puzzles of 2 people, not 500"):
        list(generate(split="test", num_problems=500, num_people=2))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_verifier_reads_the_solutions(language):
    args = {"split": "test", "num_problems": 24, "num_people": [2, 7], "language": language}
    loaded = load_source("mine", SourceConfig(source="knights_and_knaves", args=args))
    assert len(loaded.items) == 24
    for item in loaded.items:
        (gold,) = item.payload["answers"]
        asked = problem(verifier=item.verifier, payload=item.payload)
        swapped = gold.replace("knight", "_").replace("knave", "knight").replace("_", "knave")
        completions = [completion(f"<think>so</think> <answer>{text}</answer>") for text in (gold, swapped, "?")]
        assert [score.value for score in accuracy(asked, completions, context())] == [1.0, 0.0, 0.0]
        assert (item.verifier, item.language) == ("logic", language)
