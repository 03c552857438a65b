"""Templates: exactly one BOS, the prefill of a thinking template, plain text for base models."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1ray.data import templates
from r1ray.data.templates import ADDED_TEXT, CHAT_TEMPLATES, R1_ZERO, TEMPLATES, render
from r1ray.reward.logic import roles
from r1ray.reward.text import last_answer
from r1ray.types import Message

BOS_ID = 256
ASK_FOR_TAGS = {name for name, text in ADDED_TEXT.items() if "<think>" in text and "<answer>" in text}
QUESTION = (Message(role="user", content="2 + 2?"),)
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def byte_tokenizer(*, adds_bos: bool, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS_ID)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", chat_template=chat_template)


@pytest.mark.parametrize("template", ["r1_zero", "chat", "none"])
@pytest.mark.parametrize("chat_template", [CHAT, "{{ bos_token }}" + CHAT, "{{ bos_token }}{{ bos_token }}" + CHAT])
@pytest.mark.parametrize("question", ["2 + 2?", "<s>2 + 2?", "2 <s><s> + 2?"])
def test_prompt_has_exactly_one_bos(template: str, chat_template: str, question: str):
    tokenizer = byte_tokenizer(adds_bos=True, chat_template=chat_template)
    ids, _ = render((Message(role="user", content=question),), template, tokenizer)
    assert ids[0] == BOS_ID
    assert (ids == BOS_ID).sum() == 1


@pytest.mark.parametrize("template", ["r1_zero", "chat", "none"])
def test_tokenizer_without_bos_gets_none(template: str):
    ids, _ = render(QUESTION, template, byte_tokenizer(adds_bos=False, chat_template=CHAT))
    assert (ids == BOS_ID).sum() == 0


def test_ids_encode_exactly_the_template():
    tokenizer = byte_tokenizer(adds_bos=True)
    ids, prefill = render(QUESTION, "r1_zero", tokenizer)
    assert tokenizer.decode(ids[1:]) == f"{R1_ZERO}User: 2 + 2?\nAssistant:"
    assert prefill == ""
    assert str(ids.dtype) == "int32"


def test_chat_is_the_template_of_the_tokenizer_up_to_the_assistant():
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=CHAT)
    turns = (Message(role="system", content="Be brief."), *QUESTION)
    assert tokenizer.decode(render(turns, "chat", tokenizer)[0]) == "[system]Be brief.\n[user]2 + 2?\n[assistant]"


def test_r1_zero_shows_each_tag_once_and_keeps_every_turn():
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello"),
        Message(role="user", content="2 + 2?"),
    )
    tokenizer = byte_tokenizer(adds_bos=False)
    text = tokenizer.decode(render(turns, "r1_zero", tokenizer)[0])
    assert all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert text.endswith("Be brief.\nUser: Hi\nAssistant: Hello\nUser: 2 + 2?\nAssistant:")


def test_none_is_the_plain_text():
    tokenizer = byte_tokenizer(adds_bos=False)
    assert tokenizer.decode(render(QUESTION, "none", tokenizer)[0]) == "2 + 2?"


@pytest.mark.parametrize(
    ("opening", "prefill"),
    [("<think>\n", "<think>\n"), ("<think>", "<think>"), ("<think>\n\n</think>\n\n", ""), ("", "")],
)
def test_opened_thinking_becomes_the_prefill(opening: str, prefill: str):
    tokenizer = byte_tokenizer(adds_bos=True, chat_template=f"{{{{ bos_token }}}}{CHAT}{{{{ {opening!r} }}}}")
    assert render(QUESTION, "chat", tokenizer)[1] == prefill


@pytest.mark.parametrize("template", sorted(CHAT_TEMPLATES))
def test_chat_without_a_chat_template_is_refused_with_the_remedy(template: str):
    with pytest.raises(ValueError, match=r"model.template=r1_zero"):
        render(QUESTION, template, byte_tokenizer(adds_bos=False))


def rendered(template: str, *, chat_template: str = CHAT, messages=QUESTION) -> tuple[str, str]:
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=chat_template)
    ids, prefill = render(messages, template, tokenizer)
    return tokenizer.decode(ids), prefill


@pytest.mark.parametrize(
    ("template", "expected", "prefill"),
    [
        ("oat_r1", f"{R1_ZERO}User: 2 + 2?\nAssistant: <think>", "<think>"),
        ("orz", f"{R1_ZERO}User: {templates.ORZ}\n2 + 2?\nAssistant: <think>", "<think>"),
        ("tinyzero", f"{R1_ZERO}User: 2 + 2?\nAssistant: Let me solve this step by step.\n<think>", "<think>"),
        ("qwen_math", f"[system]{templates.BOXED}\n[user]2 + 2?\n[assistant]", ""),
        ("open_r1", f"[system]{templates.OPEN_R1}\n[user]2 + 2?\n[assistant]", ""),
        ("logic_rl", f"[system]{templates.LOGIC_RL}\n[user]2 + 2?\n[assistant]<think>", "<think>"),
        ("prime", f"[system]{templates.PRIME}\n[user]2 + 2?\n[assistant]", ""),
        ("swe_rl", f"[system]{templates.SWE_RL}\n[user]2 + 2?\n[assistant]", ""),
        ("dapo", f"[user]2 + 2?\n\n{templates.DAPO}\n[assistant]", ""),
        ("deepscaler", f"[user]2 + 2?\n\n{templates.BOXED}\n[assistant]", ""),
    ],
)
def test_templates_equal_those_of_the_projects(template: str, expected: str, prefill: str):
    assert rendered(template) == (expected, prefill)


def test_templates_ask_for_the_tags_that_rewards_read():
    assert all("\\boxed{}" in text for text in (templates.BOXED, templates.ORZ))
    assert "Answer:" in templates.DAPO
    for part in ("### ", "<<<<<<< SEARCH\n", "\n=======\n", "\n>>>>>>> REPLACE"):
        assert part in templates.SWE_RL
    for part in ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"):
        assert templates.OPEN_R1.count(part) == 1
    assert roles(last_answer(templates.LOGIC_RL) or "") == {"ann": "knight", "bob": "knave"}


@pytest.mark.parametrize("template", sorted(ASK_FOR_TAGS))
def test_prompts_that_ask_for_tags_contain_them(template: str):
    text, _ = rendered(template)
    assert all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_prompts_contain_the_own_text_of_their_template(template: str):
    text, _ = rendered(template)
    assert all(line in text for line in ADDED_TEXT[template].removesuffix(templates.ORZ).split("\n"))
    assert (templates.ORZ in ADDED_TEXT[template]) == (templates.ORZ in text)


def test_other_templates_do_not_mention_thinking():
    for template in TEMPLATES.keys() - ASK_FOR_TAGS:
        assert "<think>" not in rendered(template)[0]


@pytest.mark.parametrize("template", ["qwen_math", "open_r1", "logic_rl", "prime", "swe_rl"])
def test_system_message_of_a_problem_is_kept(template: str):
    text, _ = rendered(template, messages=(Message(role="system", content="Be brief."), *QUESTION))
    assert text.startswith("[system]Be brief.\n[user]2 + 2?\n[assistant]")


@pytest.mark.parametrize("opening", ["<think>", "<think>\n"])
def test_open_r1_has_no_prefill_even_if_the_chat_template_opens_the_thinking(opening: str):
    text, prefill = rendered("open_r1", chat_template=f"{CHAT}{{{{ {opening!r} }}}}")
    assert text.endswith("[assistant]")
    assert prefill == ""


def test_logic_rl_opens_the_thinking_once():
    text, prefill = rendered("logic_rl", chat_template=f"{CHAT}{{{{ '<think>\\n' }}}}")
    assert text.endswith("[assistant]<think>\n")
    assert prefill == "<think>\n"


def test_own_template_is_an_import_path():
    tokenizer = byte_tokenizer(adds_bos=False)
    ids, _ = render(QUESTION, f"{__name__}:shout", tokenizer)
    assert tokenizer.decode(ids) == "2 + 2?!"


def test_unknown_template_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean r1_zero"):
        render(QUESTION, "r1zero", byte_tokenizer(adds_bos=False))


def shout(messages, tokenizer):
    return messages[0].content + "!"
