"""Chat messages -> prompt text -> token ids, rendered once, here. Engines and trainers only get the ids.

A template is a function (messages, tokenizer) -> text, named in TEMPLATES or given as `package.module:function`. When the text
ends in an opened `<think>`, that tag already belongs to the completion: it is the problem's prefill, and rewards score prefill +
completion.

    plain text, for base models            none, r1_zero, oat_r1, orz, tinyzero
    the tokenizer's chat template          chat
      with a system prompt                 logic_rl, open_r1, prime, qwen_math, swe_rl
      with a request below the question    dapo, deepscaler

Templates named after a project have the content of that project's prompt in our own words. A problem with its own system message
(as in Eurus-2-RL-Data) keeps that one instead of the template's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from r1ray.plugin import resolve
from r1ray.types import Ints, Message

Template = Callable[..., str]

BASE = "base"
"""The name of the base model's chat template in an exported model, whose default is the training prompt."""
OPENED = re.compile(r"<think>\s*\Z")
MARKED = re.compile("\ue010([0-9]+)\ue011")
"""A control token in a message: its number, between characters for private use."""
LITERAL = re.compile("\ue010[0-9]+\ue011")
"""The same characters in a question, which are marked too."""

R1_ZERO = (
    "A conversation between User and Assistant. The Assistant first thinks, then answers: "
    "<think> reasoning </think> <answer> answer </answer>\n"
)
"""The content of R1-Zero's template (arXiv 2501.12948, table 1) in a few words of our own."""
BOXED = "Reason step by step, and put the final answer within \\boxed{}."
ORZ = "Put the result in a \\boxed{} inside <answer> </answer>; nothing else is read. The problem:"
DAPO = "Work it out step by step. The last line must read\nAnswer: RESULT\nwith the result alone in place of RESULT."
OPEN_R1 = (
    "You are a helpful assistant. Think the question through in your mind before you answer it. Reply in this layout, and write "
    "nothing else:\n<think>\nyour reasoning\n</think>\n<answer>\nyour answer\n</answer>"
)
LOGIC_RL = (
    "You are a helpful assistant. First think inside <think> </think>, then answer inside <answer> </answer>. You are given a "
    "puzzle: once you have a conclusion, say in the answer of everybody who they are, as in <answer> (1) Ann is a knight "
    "(2) Bob is a knave </answer>."
)
PRIME = (
    "Solve hard problems by actions, each under its name in square brackets, in any order and as often as they help: [ASSESS] what "
    "is known and what is asked, [ADVANCE] a step towards the solution, [VERIFY] the steps so far, [SIMPLIFY] a part into smaller "
    "ones, [SYNTHESIZE] what was found, [PIVOT] to another way when this one fails. End with [OUTPUT] and the answer "
    "within \\boxed{}."
)
SWE_RL = (
    "You are given an issue and files of the repository it is about. Think it through inside <think> </think>, then give inside "
    "<answer> </answer> the edits that resolve it. Each edit stands below the line `### path/of/the/file`:\n"
    "<<<<<<< SEARCH\nwhole lines of the file as they are\n=======\nthe lines that replace them\n>>>>>>> REPLACE"
)


def r1_zero(messages: Sequence[Message], tokenizer: Any) -> str:
    """Plain text for a base model. Nothing is prefilled: the model must learn to open `<think>` itself.

    Example: one user message "2 + 2?" becomes `R1_ZERO + "User: 2 + 2?\\nAssistant:"`.
    """
    turns = "".join(
        f"{message.content}\n" if message.role == "system" else f"{message.role.capitalize()}: {message.content}\n"
        for message in messages
    )
    return f"{R1_ZERO}{turns}Assistant:"


def oat_r1(messages: Sequence[Message], tokenizer: Any) -> str:
    """R1-Zero's template with `<think>` opened (Oat-Zero, arXiv 2503.20783, with `rollout.stop: ["</answer>"]`)."""
    return f"{r1_zero(messages, tokenizer)} <think>"


def orz(messages: Sequence[Message], tokenizer: Any) -> str:
    """Open-Reasoner-Zero's (arXiv 2503.24290): `oat_r1` with a request for a boxed answer before the question."""
    *before, last = messages
    return oat_r1([*before, replace(last, content=f"{ORZ}\n{last.content}")], tokenizer)


def tinyzero(messages: Sequence[Message], tokenizer: Any) -> str:
    """TinyZero's for base models (its repository): the completion starts with a given sentence, then `<think>` is opened."""
    return f"{r1_zero(messages, tokenizer)} Let me solve this step by step.\n<think>"


def none(messages: Sequence[Message], tokenizer: Any) -> str:
    """The text of the messages, one per line, without any template."""
    return "\n".join(message.content for message in messages)


def chat(messages: Sequence[Message], tokenizer: Any, **settings: Any) -> str:
    """The base model's chat template with the generation prompt; `settings` are arguments of that template."""
    template = base_chat_template(tokenizer)
    if not template:
        raise ValueError(
            f"this template ({', '.join(sorted(CHAT_TEMPLATES))}) needs a tokenizer with a chat template, and this one has none; "
            "for a base model use model.template=r1_zero"
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, add_generation_prompt=True, **settings
    )


def base_chat_template(tokenizer: Any) -> str | None:
    """The chat template with which the model was released; a model that r1ray exported has it under the name `base`."""
    known: str | dict[str, str] | None = tokenizer.chat_template
    return known.get(BASE, known.get("default")) if isinstance(known, dict) else known


def qwen_math(messages: Sequence[Message], tokenizer: Any) -> str:
    """Qwen2.5-Math's (arXiv 2409.12122): reason step by step, the answer in a box. GPG and Oat-Zero train with it."""
    return chat(_with_system(messages, BOXED), tokenizer)


def open_r1(messages: Sequence[Message], tokenizer: Any) -> str:
    """Open-R1's (its repository): the layout of `reward.components.format` in the system prompt, and no prefill.

    The chat templates of R1 and its distillations open `<think>`; Open-R1 removes that, so that the policy must open it.
    """
    return OPENED.sub("", chat(_with_system(messages, OPEN_R1), tokenizer))


def logic_rl(messages: Sequence[Message], tokenizer: Any) -> str:
    """Logic-RL's (arXiv 2502.14768): think, then name each person's role; `<think>` is opened."""
    text = chat(_with_system(messages, LOGIC_RL), tokenizer)
    return text if OPENED.search(text) else f"{text}<think>"


def prime(messages: Sequence[Message], tokenizer: Any) -> str:
    """PRIME's (arXiv 2502.01456): seven named actions. Eurus-2-RL-Data contains that prompt; other data gets this one."""
    return chat(_with_system(messages, PRIME), tokenizer)


def swe_rl(messages: Sequence[Message], tokenizer: Any) -> str:
    """SWE-RL's (arXiv 2502.18449): think, then edits as blocks of SEARCH and REPLACE (there inside <solution>)."""
    return chat(_with_system(messages, SWE_RL), tokenizer)


def dapo(messages: Sequence[Message], tokenizer: Any) -> str:
    """DAPO's (arXiv 2503.14476): a request below the question to end with a line "Answer: ...".

    For bare questions (open-r1/DAPO-Math-17k-Processed). Questions of BytedTsinghua-SIA/DAPO-Math-17k contain the request: use
    `chat`.
    """
    return chat(_with_request(messages, DAPO), tokenizer)


def deepscaler(messages: Sequence[Message], tokenizer: Any) -> str:
    """DeepScaleR's (its repository): a request below the question to reason step by step and box the answer."""
    return chat(_with_request(messages, BOXED), tokenizer)


def _with_system(messages: Sequence[Message], system: str) -> Sequence[Message]:
    """The messages after a system message, unless they have one."""
    return messages if messages[0].role == "system" else [Message(role="system", content=system), *messages]


def _with_request(messages: Sequence[Message], request: str) -> Sequence[Message]:
    """The messages, the last one with `request` below its text."""
    *before, last = messages
    return [*before, replace(last, content=f"{last.content}\n\n{request}")]


CHAT_TEMPLATES: Mapping[str, Template] = {
    "chat": chat,
    "dapo": dapo,
    "deepscaler": deepscaler,
    "logic_rl": logic_rl,
    "open_r1": open_r1,
    "prime": prime,
    "qwen_math": qwen_math,
    "swe_rl": swe_rl,
}
"""Templates that need a tokenizer with a chat template."""
TEMPLATES: Mapping[str, Template] = {
    "none": none,
    "oat_r1": oat_r1,
    "orz": orz,
    "r1_zero": r1_zero,
    "tinyzero": tinyzero,
    **CHAT_TEMPLATES,
}
ADDED_TEXT: Mapping[str, str] = {
    "none": "",
    "oat_r1": R1_ZERO,
    "orz": R1_ZERO + ORZ,
    "r1_zero": R1_ZERO,
    "tinyzero": R1_ZERO,
    "chat": "",
    "dapo": DAPO,
    "deepscaler": BOXED,
    "logic_rl": LOGIC_RL,
    "open_r1": OPEN_R1,
    "prime": PRIME,
    "qwen_math": BOXED,
    "swe_rl": SWE_RL,
}
"""{template: the text that it adds to the question and to the tokenizer's chat template}."""


def render(messages: Sequence[Message], template: str, tokenizer: Any, **settings: Any) -> tuple[Ints, str]:
    """(prompt_ids_T, prefill). The ids have exactly one BOS, at the start, if the tokenizer prepends one by itself, else none.

    `settings` are arguments of the template. It makes no difference whether a template prints the BOS (Llama-3's chat does, r1_zero
    does not) or a question contains it: BOS is removed from the messages, the text is encoded without special tokens, and one BOS
    is prepended. A control token written out in a message (`<|im_end|>`) is encoded as the characters that it consists of: only
    the template begins and ends turns. With the template `none` the messages are the prompt, whose control tokens count.
    """
    has_bos = prepends_bos(tokenizer)
    if has_bos:
        messages = [Message(role=m.role, content=m.content.replace(tokenizer.bos_token, "")) for m in messages]
    plain = [] if template == "none" else control_tokens_in(messages, tokenizer)
    if plain:
        plain += sorted({found for message in messages for found in LITERAL.findall(message.content)})
        messages = [replace(message, content=_marked(message.content, plain)) for message in messages]
    text = resolve(template, TEMPLATES, what="template")(messages, tokenizer, **settings)
    ids: list[int] = []
    for n, piece in enumerate(MARKED.split(text) if plain else [text]):
        # A marked token is one piece of two: the number between two texts of the template and the messages.
        piece, literal = (plain[int(piece)], {"split_special_tokens": True}) if n % 2 else (piece, {})
        ids += tokenizer.encode(piece, add_special_tokens=False, **literal) if piece else ()
    if has_bos:
        start = next((t for t, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))
        ids = [tokenizer.bos_token_id, *ids[start:]]
    opened = OPENED.search(text)
    return np.array(ids, np.int32), opened.group() if opened else ""


def control_tokens_in(messages: Sequence[Message], tokenizer: Any) -> list[str]:
    """The tokenizer's control tokens that messages contain as text, the longest first."""
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = [token for token in special if token.strip() and any(token in message.content for message in messages)]
    return sorted(found, key=lambda token: (-len(token), token))


def _marked(text: str, tokens: Sequence[str]) -> str:
    """The text with a mark and its number in place of each token."""
    found = re.compile("|".join(map(re.escape, tokens)))
    return found.sub(lambda match: f"\ue010{tokens.index(match[0])}\ue011", text)


def prepends_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer starts a text with BOS. Having a bos_token is not enough: GPT-2 has one, and neither it nor Qwen was
    trained with BOS."""
    return tokenizer.bos_token_id is not None and tokenizer.encode("x")[:1] == [tokenizer.bos_token_id]
