"""Log-probs at a vocabulary of 152k: ours against the path over full logits, in peak memory and in speed.

    python -m tests.bench.logprobs [--precision bf16] [--tokens 4096] [--quick] [--out FILE]

Ours: `r1ray.model.forward.LogprobHead`, by chunks of tokens; with gradients it also gives the entropy, which the other side does
not. Full logits: hidden states times lm_head, divided by the temperature, log-softmax in float32, gathered at the labels; what
every trainer does that has no such head.
Goals: a quarter of the peak memory; 0.9 of the speed forward (what a reference does), 0.8 forward and backward (what a trainer
does). The head alone is measured (hidden states of Qwen2.5-0.5B's size, random): the rest of a model is the same on both sides.

Peak memory is of the process, above what it held when weights, inputs and libraries were in place, each time in a fresh process;
it includes the gradient of the weight, which both sides need. Speed is measured in one process, both sides in turn.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r1ray.model.forward import LogprobHead
from tests.bench.side_by_side import Comparison, arguments, in_turn, pin, report, seconds

VOCAB_SIZE, HIDDEN_SIZE = 151_936, 896
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCE = {"bf16": 0.05, "fp32": 1e-4}
"""Between the two sides: of log-probs, and of gradients in which the largest entry is 1."""

SIDES = ("ours", "full")


class Inputs(NamedTuple):
    hidden_ME: Tensor
    labels_M: Tensor
    temperature_M: Tensor


class Size(NamedTuple):
    tokens: int
    vocab_size: int
    precision: str


def make(size: Size) -> tuple[LogprobHead, Inputs]:
    """The same on every side and in every process. Weights and hidden states of a size that gives logits of deviation 1."""
    generator = torch.Generator().manual_seed(0)
    dtype = DTYPES[size.precision]
    linear = nn.Linear(HIDDEN_SIZE, size.vocab_size, bias=False, dtype=dtype)
    with torch.no_grad():
        linear.weight.normal_(generator=generator)
        hidden_ME = torch.empty(size.tokens, HIDDEN_SIZE, dtype=dtype).normal_(generator=generator)
    labels_M = torch.randint(size.vocab_size, (size.tokens,), generator=generator)
    inputs = Inputs(hidden_ME.mul_(HIDDEN_SIZE**-0.5).requires_grad_(), labels_M, torch.full((size.tokens,), 0.9))
    return LogprobHead(linear), inputs


def ours(head: LogprobHead, inputs: Inputs) -> Tensor:
    return head(*inputs)[0]


def full(head: LogprobHead, inputs: Inputs) -> Tensor:
    logits_MV = (inputs.hidden_ME @ head.weight.T).float().div_(inputs.temperature_M.unsqueeze(-1))
    return F.log_softmax(logits_MV, -1).gather(-1, inputs.labels_M.unsqueeze(-1)).squeeze(-1)


def forward(side: str, head: LogprobHead, inputs: Inputs) -> None:
    with torch.no_grad():
        {"ours": ours, "full": full}[side](head, inputs)


def forward_backward(side: str, head: LogprobHead, inputs: Inputs) -> None:
    """Gradients are dropped first: they are made anew, as in the first micro-batch of an update."""
    head.weight.grad = inputs.hidden_ME.grad = None
    {"ours": ours, "full": full}[side](head, inputs).mean().backward()


PASSES: dict[str, Callable[[str, LogprobHead, Inputs], None]] = {
    "forward": forward,
    "forward and backward": forward_backward,
}
SPEED_GOALS = {"forward": 0.9, "forward and backward": 0.8}


def peak_bytes(side: str, what: str, size: Size) -> int:
    """Peak memory of one pass in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(sender, side, what, size))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"measuring the memory of {side}, {what}, failed") from None
    finally:
        process.join()


def _measure_peak(pipe: Connection, side: str, what: str, size: Size) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    head, inputs = make(size)
    # Threads, kernels and their buffers are there before the measurement, not in it.
    small = make(Size(tokens=8, vocab_size=1024, precision=size.precision))
    PASSES[what](side, *small)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    PASSES[what](side, head, inputs)
    pipe.send(_status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def check_equal(size: Size) -> str:
    """Raises RuntimeError when the two sides do not compute the same."""
    results = {}
    for side in SIDES:
        head, inputs = make(size)
        logprobs_M = {"ours": ours, "full": full}[side](head, inputs)
        logprobs_M.mean().backward()
        assert head.weight.grad is not None and inputs.hidden_ME.grad is not None
        gradients = (head.weight.grad.float(), inputs.hidden_ME.grad.float())
        results[side] = (logprobs_M.detach(), *(gradient / gradient.abs().max() for gradient in gradients))
    gaps = [float((mine - theirs).abs().max()) for mine, theirs in zip(*results.values(), strict=True)]
    if max(gaps) > TOLERANCE[size.precision]:
        raise RuntimeError(f"the sides do not compute the same: {gaps}")
    return f"log-probs {gaps[0]:.1e}, gradients {gaps[1]:.1e} (weight), {gaps[2]:.1e} (hidden)"


def measure(what: str, size: Size, *, args: Any, setting: dict[str, Any]) -> None:
    """Memory and speed of one pass."""
    repetitions = 2 if args.quick else args.repetitions
    memory = in_turn(
        {side: functools.partial(peak_bytes, side, what, size) for side in SIDES},
        repetitions=1 if args.quick else min(3, repetitions),
        warmups=0,
    )
    report(
        Comparison(
            name=f"log-probs, {what}: peak memory over full logits, {size.precision}",
            unit="MB",
            ours=[value / 1e6 for value in memory["ours"]],
            theirs=[value / 1e6 for value in memory["full"]],
            goal=0.25,
            less_is_better=True,
            setting=setting,
        ),
        out=args.out,
    )
    head, inputs = make(size)

    def rate(side: str) -> float:
        return size.tokens / seconds(lambda: PASSES[what](side, head, inputs))

    speed = in_turn({side: functools.partial(rate, side) for side in SIDES}, repetitions=repetitions)
    report(
        Comparison(
            name=f"log-probs, {what}: speed over full logits, {size.precision}",
            unit="tokens/s",
            ours=speed["ours"],
            theirs=speed["full"],
            goal=SPEED_GOALS[what],
            setting=setting,
        ),
        out=args.out,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--precision", default="bf16", choices=list(DTYPES), help="of weights and hidden states")
    parser.add_argument("--tokens", type=int, default=4096, help="of a row (default 4096)")
    args = parser.parse_args()
    cores = pin(args.cores)
    torch.set_num_threads(args.cores)
    size = Size(512 if args.quick else args.tokens, VOCAB_SIZE, args.precision)
    setting = {
        "size": f"{size.tokens} tokens, hidden {HIDDEN_SIZE}, vocabulary {size.vocab_size}",
        "logits of all tokens in float32": f"{size.tokens * size.vocab_size * 4 / 1e6:.0f} MB",
        "gradient of the weight": f"{HIDDEN_SIZE * size.vocab_size * DTYPES[size.precision].itemsize / 1e6:.0f} MB",
        "the same result": check_equal(Size(256, 8192, args.precision)),
        "cores and threads": f"{cores}, OMP {torch.get_num_threads()}, one process",
        "seed": 0,
    }
    for what in PASSES:
        measure(what, size, args=args, setting=setting)


if __name__ == "__main__":
    main()
