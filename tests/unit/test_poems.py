"""The worked example of a plug-in: what its rules count, and that a configuration alone adds it to a run."""

import pytest
from reward_samples import completion, context, problem, value

from r1ray.cli import check_command_line
from r1ray.config import SourceConfig
from r1ray.data.sources import load_source
from r1ray.examples.poems import FORMS, form, rhyme, share_met, syllables
from r1ray.reward.accuracy import accuracy

HAIKU = "Rain on the old roof\nnight comes with its slow soft drum\nI count to seven"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("rain", 1),
        ("the old town", 3),
        ("moved moved added", 4),
        ("times and roses", 4),
        ("a little table", 5),
        ("\\boxed{7}", 2),
        ("it's 42!", 3),
        ("12 + ...", 2),
        ("---", 0),
    ],
)
def test_syllables_are_groups_of_vowels(line: str, count: int) -> None:
    assert syllables(line) == count


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("a bright light", "the long night", True),
        ("in time", "no rhyme", True),
        ("the light", "some light", False),
        ("light", "sea", False),
        ("", "night", False),
        ("7", "8", False),
    ],
)
def test_rhymes_are_different_words_with_the_same_ending(one: str, other: str, alike: bool) -> None:
    assert rhyme(one, other) is rhyme(other, one) is alike


@pytest.mark.parametrize(
    ("name", "poem", "share"),
    [
        ("haiku", HAIKU, 1.0),
        ("haiku", HAIKU.replace("Rain", "Snow"), 0.8),
        ("haiku", "\n\n".join(HAIKU.splitlines()), 1.0),
        ("haiku", "Rain on the old roof", 0.4),
        ("haiku", f"{HAIKU}\nand one line more", 0.8),
        ("haiku", "rain " * 5 + "\n" + "rain " * 5, 0.0),
        ("haiku", "", 0.0),
        ("couplet", "the rain is falling through the night\nand all the windows hold a light", 1.0),
        ("couplet", "the rain is falling through the night\nand all the windows hold a lamp", 0.8),
    ],
)
def test_score_is_the_share_of_requests_that_are_met(name: str, poem: str, share: float) -> None:
    assert share_met(poem, form=FORMS[name], topic="rain") == pytest.approx(share)


def test_poem_is_the_answer_or_the_text_after_the_thinking() -> None:
    asked = problem(verifier="r1ray.examples.poems:VERSE", payload={"form": "haiku", "topic": "rain"})
    responses = [f"<think>5 7 5</think>{HAIKU}", f"<answer>{HAIKU}</answer>", f"<think>{HAIKU}"]
    assert [value(form, response, asked=asked) for response in responses] == [1.0, 1.0, 0.0]
    scores = accuracy(asked, [completion(response) for response in [*responses, "Rain on the old roof"]], context())
    assert [score.correct for score in scores] == [True, True, False, False]
    assert value(form, HAIKU) is None  # a problem that asks for no poem


def test_problems_differ_and_are_limited_in_number() -> None:
    args = {"num_problems": 500}
    items = load_source("poems", SourceConfig(source="r1ray.examples.poems:POEMS", args=args)).items
    assert len({item.messages for item in items}) == 500
    assert {item.payload["form"] for item in items} == {"haiku", "couplet"}
    assert "5, 7, 5" in next(item for item in items if item.payload["form"] == "haiku").messages[0].content
    for wrong, message in ({"num_problems": 501}, "500 poems"), ({**args, "forms": ["sonet"]}, "no form sonet"):
        with pytest.raises(ValueError, match=message):
            load_source("poems", SourceConfig(source="r1ray.examples.poems:POEMS", args=wrong))


def test_configuration_alone_adds_it_to_a_run() -> None:
    (run,) = check_command_line(
        ["data=poems", "reward=poems", "eval=poems", "checkpoint.best_metric=eval/poems/accuracy"]
    )
    assert run.config.reward.components["form"].name == "r1ray.examples.poems:form"
