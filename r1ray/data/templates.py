"""Chat messages -> prompt text -> token ids, once, by us. Engines and trainers only ever see the ids.

A template is a function (messages, tokenizer) -> text, named in TEMPLATES or given as `package.module:function`. When the text
ends in an opened `<think>`, that tag already belongs to the completion: it is the problem's prefill, and rewards judge prefill +
completion.

    of plain text, for base models    none, r1_zero, oat_r1, orz, tinyzero
    the tokenizer's chat template     chat, and with a system prompt  logic_rl, open_r1, prime, qwen_math, swe_rl
                                      or with more below the question dapo, deepscaler

Those named after a project say what that project's prompt says, in words of our own. A problem that brings a system message of its
own (Eurus-2-RL-Data does) keeps it instead of the template's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from r1ray.plugin import resolve
from r1ray.types import Ints, Message

Template = Callable[..., str]

OPENED = re.compile(r"<think>\s*\Z")

R1_ZERO = (
    "A conversation between User and Assistant. The Assistant first thinks, then answers: "
    "<think> reasoning </think> <answer> answer </answer>\n"
)
"""What the base model is told: the content of R1-Zero's template (arXiv 2501.12948, table 1) in a few words of our own."""
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
    """Plain text for a base model. Nothing is prefilled: the model has to learn to open `<think>` itself.

    Example: one user message "2 + 2?" becomes `R1_ZERO + "User: 2 + 2?\\nAssistant:"`.
    """
    turns = "".join(
        f"{message.content}\n" if message.role == "system" else f"{message.role.capitalize()}: {message.content}\n"
        for message in messages
    )
    return f"{R1_ZERO}{turns}Assistant:"


def oat_r1(messages: Sequence[Message], tokenizer: Any) -> str:
    """R1-Zero's with `<think>` opened, as Oat-Zero has it (arXiv 2503.20783; there with `rollout.stop: ["</answer>"]`)."""
    return f"{r1_zero(messages, tokenizer)} <think>"


def orz(messages: Sequence[Message], tokenizer: Any) -> str:
    """Open-Reasoner-Zero's (arXiv 2503.24290): as `oat_r1`, and the answer's box is asked for before the question."""
    *before, last = messages
    return oat_r1([*before, replace(last, content=f"{ORZ}\n{last.content}")], tokenizer)


def tinyzero(messages: Sequence[Message], tokenizer: Any) -> str:
    """TinyZero's for base models (its repository): the completion is begun with a sentence, then `<think>` is opened."""
    return f"{r1_zero(messages, tokenizer)} Let me solve this step by step.\n<think>"


def none(messages: Sequence[Message], tokenizer: Any) -> str:
    """The messages' text as it is, one below the other."""
    return "\n".join(message.content for message in messages)


def chat(messages: Sequence[Message], tokenizer: Any, **settings: Any) -> str:
    """The tokenizer's own chat template, up to where the assistant speaks; `settings` are what that template takes."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"this template ({', '.join(sorted(OF_CHAT))}) needs a tokenizer with a chat template, and this one has none; "
            "for a base model use model.template=r1_zero"
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **settings)


def qwen_math(messages: Sequence[Message], tokenizer: Any) -> str:
    """Qwen2.5-Math's (arXiv 2409.12122): reason step by step, the answer in a box. GPG and Oat-Zero train with it."""
    return chat(_instructed(messages, BOXED), tokenizer)


def open_r1(messages: Sequence[Message], tokenizer: Any) -> str:
    """Open-R1's (its repository): the layout of `reward.components.format` in the system prompt, and nothing prefilled.

    The chat templates of R1 and its distillations open `<think>`; Open-R1 edits that away, so that the policy has to do it.
    """
    return OPENED.sub("", chat(_instructed(messages, OPEN_R1), tokenizer))


def logic_rl(messages: Sequence[Message], tokenizer: Any) -> str:
    """Logic-RL's (arXiv 2502.14768): think, then say who is a knight and who a knave; `<think>` is opened."""
    text = chat(_instructed(messages, LOGIC_RL), tokenizer)
    return text if OPENED.search(text) else f"{text}<think>"


def prime(messages: Sequence[Message], tokenizer: Any) -> str:
    """PRIME's (arXiv 2502.01456): seven named actions. Eurus-2-RL-Data brings that prompt along; other data gets this one."""
    return chat(_instructed(messages, PRIME), tokenizer)


def swe_rl(messages: Sequence[Message], tokenizer: Any) -> str:
    """SWE-RL's (arXiv 2502.18449): think, then edits as blocks of SEARCH and REPLACE (there inside <solution>)."""
    return chat(_instructed(messages, SWE_RL), tokenizer)


def dapo(messages: Sequence[Message], tokenizer: Any) -> str:
    """DAPO's (arXiv 2503.14476): the completion ends with a line "Answer: ...", asked for below the question.

    For bare questions (open-r1/DAPO-Math-17k-Processed); those of BytedTsinghua-SIA/DAPO-Math-17k ask themselves: `chat`.
    """
    return chat(_asked(messages, DAPO), tokenizer)


def deepscaler(messages: Sequence[Message], tokenizer: Any) -> str:
    """DeepScaleR's (its repository): reason step by step, the answer in a box, asked for below the question."""
    return chat(_asked(messages, BOXED), tokenizer)


def _instructed(messages: Sequence[Message], system: str) -> Sequence[Message]:
    """With a system message, unless there is one."""
    return messages if messages[0].role == "system" else [Message(role="system", content=system), *messages]


def _asked(messages: Sequence[Message], request: str) -> Sequence[Message]:
    """With more below the last message."""
    *before, last = messages
    return [*before, replace(last, content=f"{last.content}\n\n{request}")]


OF_CHAT: Mapping[str, Template] = {
    "chat": chat,
    "dapo": dapo,
    "deepscaler": deepscaler,
    "logic_rl": logic_rl,
    "open_r1": open_r1,
    "prime": prime,
    "qwen_math": qwen_math,
    "swe_rl": swe_rl,
}
"""Those that need a tokenizer with a chat template."""
TEMPLATES: Mapping[str, Template] = {
    "none": none,
    "oat_r1": oat_r1,
    "orz": orz,
    "r1_zero": r1_zero,
    "tinyzero": tinyzero,
    **OF_CHAT,
}
WORDS: Mapping[str, str] = {
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
"""What each tells the model itself, beside the question and the tokenizer's chat template."""
TELL_TAGS = frozenset(name for name, words in WORDS.items() if "<think>" in words and "<answer>" in words)
"""Those whose own words ask for <think> and <answer>."""


def render(messages: Sequence[Message], template: str, tokenizer: Any, **settings: Any) -> tuple[Ints, str]:
    """(prompt_ids_T, prefill). Exactly one BOS at the start if the tokenizer prepends one by itself, and none elsewhere.

    `settings` are the template's own.
    Whether a template prints the BOS (Llama-3's chat does, r1_zero does not) and whether a question spells it out makes no
    difference: BOS is taken out of the messages, the text is encoded bare, and one is put in front.
    """
    has_bos = prepends_bos(tokenizer)
    if has_bos:
        messages = [Message(role=m.role, content=m.content.replace(tokenizer.bos_token, "")) for m in messages]
    text = resolve(template, TEMPLATES, what="template")(messages, tokenizer, **settings)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    if has_bos:
        start = next((t for t, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))
        ids = [tokenizer.bos_token_id, *ids[start:]]
    opened = OPENED.search(text)
    return np.array(ids, np.int32), opened.group() if opened else ""


def prepends_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer starts a text with BOS. Naming a bos_token is not enough: Qwen and GPT-2 name one or none and
    were trained without."""
    return tokenizer.bos_token_id is not None and tokenizer.encode("x")[:1] == [tokenizer.bos_token_id]
