"""Log-probs with a vocabulary of 152k: r1ray against full logits, in peak memory and speed.

    python -m tests.bench.logprobs [--precision bf16] [--tokens 4096] [--quick] [--out FILE]

Ours: `r1ray.model.forward.LogprobHead`, in chunks of tokens; with gradients it also returns the entropy, which the other side does
not. Full logits: hidden states times lm_head, divided by the temperature, log-softmax in float32, gathered at the labels, as in
trainers without such a head.
Goals: a quarter of the peak memory; 0.9 of the speed forward (the work of a reference), 0.8 forward and backward (the work of a
trainer). Only the head is measured, on random hidden states of Qwen2.5-0.5B's size: the other layers are the same on both sides.

Peak memory is that of the process, above what it used after weights, inputs and libraries were loaded, each time in a fresh
process. It includes the gradient of the weight, which both sides need. Speed is measured in one process, alternating between the
sides.
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
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, report, seconds

VOCAB_SIZE, HIDDEN_SIZE = 151_936, 896
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCE = {"bf16": 0.05, "fp32": 1e-4}
"""Largest difference between the sides: of log-probs, and of gradients scaled so that the largest entry is 1."""

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
    """The same inputs on every side and in every process, scaled so that logits have a standard deviation of 1."""
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
    """Gradients are dropped first, so they are allocated in the pass, as in the first micro-batch of an update."""
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
    # Start threads and allocate the buffers of kernels before the measurement.
    small = make(Size(tokens=8, vocab_size=1024, precision=size.precision))
    PASSES[what](side, *small)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    PASSES[what](side, head, inputs)
    pipe.send(_status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def check_equal(size: Size) -> str:
    """Raises RuntimeError when the two sides compute different results."""
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
        raise RuntimeError(f"the sides compute different results: {gaps}")
    return f"log-probs {gaps[0]:.1e}, gradients {gaps[1]:.1e} (weight), {gaps[2]:.1e} (hidden)"


def measure(what: str, size: Size, *, args: Any, setting: dict[str, Any]) -> None:
    """Memory and speed of one pass."""
    repetitions = 2 if args.quick else args.repetitions
    memory = alternate(
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

    speed = alternate({side: functools.partial(rate, side) for side in SIDES}, repetitions=repetitions)
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
    parser.add_argument(
        "--precision", default="bf16", choices=list(DTYPES), help="precision of weights and hidden states"
    )
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a row (default 4096)")
    args = parser.parse_args()
    cores = pin(args.cores)
    torch.set_num_threads(args.cores)
    size = Size(512 if args.quick else args.tokens, VOCAB_SIZE, args.precision)
    setting = {
        "size": f"{size.tokens} tokens, hidden {HIDDEN_SIZE}, vocabulary {size.vocab_size}",
        "logits of all tokens in float32": f"{size.tokens * size.vocab_size * 4 / 1e6:.0f} MB",
        "gradient of the weight": f"{HIDDEN_SIZE * size.vocab_size * DTYPES[size.precision].itemsize / 1e6:.0f} MB",
        "largest differences": check_equal(Size(256, 8192, args.precision)),
        "cores and threads": f"{cores}, OMP {torch.get_num_threads()}, one process",
        "seed": 0,
    }
    for what in PASSES:
        measure(what, size, args=args, setting=setting)


if __name__ == "__main__":
    main()
