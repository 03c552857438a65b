"""One-line faults that the tests must catch: each is applied to a copy of the package, and a test has to fail.

python tests/mutants.py                 # all; exit code 1 when a mutant survives
python tests/mutants.py "BOS twice"     # those whose name contains the words
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    file: str
    line: str
    """Must occur exactly once in the file."""
    fault: str
    tests: str
    """Arguments of pytest: files and -k expressions."""


MUTANTS = (
    Mutant(
        "labels shifted by one",
        "r1ray/model/forward.py",
        "source_M=torch.tensor(target_M - 1 - shard.rank * size",
        "source_M=torch.tensor(target_M - shard.rank * size",
        "tests/unit/test_forward.py",
    ),
    Mutant(
        "positions counted from a rank's slice",
        "r1ray/model/forward.py",
        "torch.tensor(shard.slice_of(row.positions_L), dtype",
        "torch.tensor(np.arange(size), dtype",
        "tests/unit/test_sequence_shard.py",
    ),
    Mutant(
        "shared rows split unevenly",
        "r1ray/model/sequence_parallel.py",
        "own = x_L[self.rank * size : (self.rank + 1) * size]",
        "own = np.array_split(x_L, self.size)[self.rank]",
        "tests/unit/test_sequence_shard.py",
    ),
    Mutant(
        "shared rows counted once per rank",
        "r1ray/model/accumulator.py",
        "value / self._ranks_per_row",
        "value",
        "tests/integration/test_sequence_parallel.py -k critic",
    ),
    Mutant(
        "prompt tokens in the mask",
        "r1ray/data/samples.py",
        "mask_T[num_prompt:] = 1",
        "mask_T[1:] = 1",
        "tests/unit/test_samples.py",
    ),
    Mutant(
        "EOS missing from the mask",
        "r1ray/data/samples.py",
        "mask_T[num_prompt:] = 1",
        "mask_T[num_prompt:-1] = 1",
        "tests/unit/test_samples.py",
    ),
    Mutant(
        "EOS added to a truncated completion",
        "r1ray/engine/vllm.py",
        "token_ids = list(completion.token_ids)",
        "token_ids = list(completion.token_ids)[:-1] + self._stop_ids[:1]",
        "tests/integration/test_engine.py",
    ),
    Mutant(
        "temperature not applied",
        "r1ray/model/forward.py",
        ".float().div_(temperature_C.unsqueeze(-1))",
        ".float()",
        "tests/unit/test_forward.py",
    ),
    Mutant(
        "two groups swapped",
        "r1ray/collect/selection.py",
        "return sorted([*accepted, *backfilled])",
        "return sorted([*accepted, *backfilled], reverse=True)",
        "tests/unit/test_collect.py",
    ),
    Mutant(
        "advantage of sample i on i + 1",
        "r1ray/algo/policy.py",
        "zip(samples, advantages_N, strict=True)",
        "zip(samples, np.roll(advantages_N, 1), strict=True)",
        "tests/unit/test_grpo.py",
    ),
    Mutant(
        "an unusable completion in the baseline",
        "r1ray/algo/policy.py",
        "        if sample.usable:",
        "        if True:",
        "tests/unit/test_algo_contract.py",
    ),
    Mutant(
        "a masked completion in PRIME's baseline of process rewards",
        "r1ray/algo/returns.py",
        "size = len(means_G)",
        "size = len(rewards)",
        "tests/unit/test_returns.py",
    ),
    Mutant(
        "learning-rate schedule counts frozen steps",
        "r1ray/stages/rl.py",
        "(cfg.steps - algo.frozen_steps) * cfg.algo.num_minibatches",
        "cfg.steps * cfg.algo.num_minibatches",
        "tests/unit/test_auxiliary_objectives.py",
    ),
    Mutant(
        "CISPO's weight with a gradient",
        "r1ray/algo/cispo.py",
        "ops.ratio(row.logprobs_L.detach() - row.old_logprobs_L)",
        "ops.ratio(row.logprobs_L - row.old_logprobs_L)",
        "tests/unit/test_algorithms.py",
    ),
    Mutant(
        "sequence ratio includes packed neighbours",
        "r1ray/algo/ops.py",
        "index_L = segment_L.long()",
        "index_L = segment_L.long() * 0",
        "tests/unit/test_algo_contract.py",
    ),
    Mutant(
        "reference log-probs of the wrong row after packing",
        "r1ray/data/pack.py",
        "out[row.sample_L[start]] = np.asarray",
        "out[row.sample_L[start] - 1] = np.asarray",
        "tests/unit/test_pack.py",
    ),
    Mutant(
        "attention across packed neighbours",
        "r1ray/model/forward.py",
        "lengths = np.bincount(row.segment_L).tolist()",
        "lengths = [len(row.segment_L)]",
        "tests/unit/test_forward.py",
    ),
    Mutant(
        "positions not reset",
        "r1ray/data/pack.py",
        "np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])",
        "np.arange(lengths.sum(), dtype=np.int32)",
        "tests/unit/test_pack.py",
    ),
    Mutant(
        "mean of micro-batch means",
        "r1ray/actors/trainer.py",
        "term: (torch.tensor(row.weights_L[term], device=device) * loss_L).sum()",
        "term: (torch.tensor(row.mask_L / max(1, row.mask_L.sum()), device=device) * loss_L).sum()",
        "tests/integration/test_trainer.py",
    ),
    Mutant(
        "one rank's loss doubled",
        "r1ray/model/deepspeed.py",
        "loss * self._world_size, scale_wrt_gas=False",
        "loss * (self._world_size + dist.get_rank()), scale_wrt_gas=False",
        "tests/integration/test_trainer.py",
    ),
    Mutant(
        "engine keeps stale weights",
        "r1ray/engine/vllm.py",
        'self._engine.collective_rpc("finish_weight_update")',
        "pass",
        "tests/integration/test_sync.py",
    ),
    Mutant(
        "BOS twice",
        "r1ray/data/templates.py",
        "ids = [tokenizer.bos_token_id, *ids[start:]]",
        "ids = [tokenizer.bos_token_id, *ids]",
        "tests/unit/test_templates.py",
    ),
    Mutant(
        "one seed for all G",
        "r1ray/collect/retries.py",
        "entry.attempt, k) for k",
        "entry.attempt, 0) for k",
        "tests/unit/test_collect.py",
    ),
    Mutant(
        "metrics after the filter",
        "r1ray/run/metrics.py",
        "metrics = group_metrics(collected.generated, version=version)",
        "metrics = group_metrics(collected.kept, version=version)",
        "tests/unit/test_metrics.py",
    ),
    Mutant(
        "evaluation set in training",
        "r1ray/data/prompts.py",
        "if held_out.intersection(item.keys):",
        "if held_out.intersection(()):",
        "tests/unit/test_prompts.py",
    ),
    Mutant(
        "judge failure scored 0",
        "r1ray/reward/judge/__init__.py",
        "        return FAILED",
        "        return ComponentScore(value=0.0)",
        "tests/unit/test_judge.py",
    ),
    Mutant(
        "completion closes the tags of the judge prompt",
        "r1ray/reward/judge/prompts.py",
        "{sanitize(fields[match[1]])}",
        "{fields[match[1]]}",
        "tests/unit/test_judge.py",
    ),
    Mutant(
        "verdict accepted anywhere in the last line",
        "r1ray/reward/judge/prompts.py",
        "pattern.fullmatch(line",
        "pattern.search(line",
        "tests/unit/test_judge.py",
    ),
    Mutant(
        "different unit accepted",
        "r1ray/reward/math/units.py",
        "return answer.powers == gold.powers and (",
        "return (",
        "tests/unit/test_math_forms.py",
    ),
    Mutant(
        "open and closed intervals equal",
        "r1ray/reward/math/compare.py",
        "return False if brackets_or_shapes else self._whole(answer, gold)",
        "return self._in_order(answer, gold)",
        "tests/unit/test_math_forms.py",
    ),
    Mutant(
        "tiny numbers equal",
        "r1ray/reward/math/algebra.py",
        "if difference <= AGREE * size:",
        "if difference <= 1e-12:",
        "tests/integration/test_math_verify.py -k incorrect_answers",
    ),
    Mutant(
        "numbers side by side are one",
        "r1ray/reward/math/symbols.py",
        'raise Ambiguous("two numbers side by side")',
        "space = False",
        "tests/integration/test_graded_rows.py -k near_misses",
    ),
    Mutant(
        "clock times equal as quotients",
        "r1ray/reward/math/compare.py",
        "if answer_time and gold_time:",
        "if answer_time and gold_time and answer_time == gold_time:",
        "tests/integration/test_graded_rows.py -k near_misses",
    ),
    Mutant(
        "0 without a math-verify child",
        "r1ray/reward/math/__init__.py",
        'return ComponentScore(value=None, status="sandbox_error")',
        'return ComponentScore(value=0.0, status="wrong_answer", correct=False)',
        "tests/integration/test_math_verify.py -k cannot_start",
    ),
    Mutant(
        "adapters merged without their scale",
        "r1ray/model/lora.py",
        "add(change, alpha=adapter.scale)",
        "add(change)",
        "tests/unit/test_adapters.py",
    ),
    Mutant(
        "weights trained next to their adapters",
        "r1ray/model/lora.py",
        "lm.requires_grad_(False)",
        "lm.requires_grad_(True)",
        "tests/unit/test_adapters.py",
    ),
    Mutant(
        "k3 of the swapped policies",
        "r1ray/algo/ops.py",
        "return (z_L.exp() - z_L - 1).clamp",
        "return ((-z_L).exp() + z_L - 1).clamp",
        "tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "the lower clip has the width of the upper",
        "r1ray/algo/ops.py",
        "ratio_L.clamp(1 - clip_low, 1 + clip_high)",
        "ratio_L.clamp(1 - clip_high, 1 + clip_high)",
        "tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "dual clip for positive advantages",
        "r1ray/algo/ops.py",
        ".where(advantages_L < 0, -math.inf)",
        ".where(advantages_L > 0, -math.inf)",
        "tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "std of a group without its ddof",
        "r1ray/algo/ops.py",
        "r_G.std(ddof=std_ddof)",
        "r_G.std()",
        "tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "mean over sequences divides by the limit",
        "r1ray/algo/ops.py",
        '"seq_mean_token_mean": num_sequences * tokens,',
        '"seq_mean_token_mean": num_sequences * max_length,',
        "tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "importance weights above the cap are kept",
        "r1ray/algo/ops.py",
        "weight_L.where(~above_L, cap if truncates else 0.0).where",
        "weight_L.where",
        "tests/unit/test_ops.py tests/unit/test_policy.py",
    ),
    Mutant(
        "the value after the last token is its own",
        "r1ray/algo/returns.py",
        "advantages_T[t], next_value = advantage, value",
        "advantages_T[t], next_value = advantage, 0.0",
        "tests/unit/test_returns.py",
    ),
    Mutant(
        "leave-one-out baseline includes the one",
        "r1ray/algo/returns.py",
        "r_G - (r_G.sum() - r_G) / (len(r_G) - 1)",
        "r_G - r_G.sum() / len(r_G)",
        "tests/unit/test_returns.py tests/unit/test_golden.py",
    ),
    Mutant(
        "the KL coefficient falls when KL is high",
        "r1ray/algo/controllers.py",
        "coef * (1 + error * num_samples / horizon)",
        "coef * (1 - error * num_samples / horizon)",
        "tests/unit/test_policy.py tests/unit/test_ops.py tests/unit/test_golden.py",
    ),
    Mutant(
        "every epoch has the same order",
        "r1ray/data/stream.py",
        "(self.seed, zlib.crc32(name.encode()), epoch)",
        "(self.seed, zlib.crc32(name.encode()))",
        "tests/unit/test_stream.py",
    ),
    Mutant(
        "the stream's draws restart on resume",
        "r1ray/data/stream.py",
        "point = np.random.default_rng((self.seed, self._draws)).random()",
        "point = np.random.default_rng((self.seed, sum(self._taken.values()) % 2)).random()",
        "tests/unit/test_stream.py",
    ),
    Mutant(
        "a regeneration repeats its seeds",
        "r1ray/collect/retries.py",
        "epoch, entry.attempt, k) for k",
        "epoch, 0, k) for k",
        "tests/unit/test_collect.py",
    ),
    Mutant(
        "the rejected groups that finished first fill a step",
        "r1ray/collect/selection.py",
        "backfilled = sorted(self.rejected)",
        "backfilled = list(self.rejected)",
        "tests/unit/test_collect.py",
    ),
    Mutant(
        "an aborted completion is usable",
        "r1ray/reward/compose.py",
        'usable=completion.finish_reason != "abort"\n            and SUM',
        "usable=True\n            and SUM",
        "tests/unit/test_compose.py",
    ),
    Mutant(
        "a failed component of weight 0 makes a completion unusable",
        "r1ray/reward/compose.py",
        "            if component.weight_at(step) or component.name == problem.accuracy\n",
        "            if component\n",
        "tests/unit/test_compose.py",
    ),
    Mutant(
        "a truncated completion keeps its reward",
        "r1ray/reward/compose.py",
        'cut = completion.truncated and self._truncated == "zero"',
        "cut = False",
        "tests/unit/test_compose.py",
    ),
    Mutant(
        "answers inside the reasoning count",
        "r1ray/reward/text.py",
        'tail = text.rpartition("</think>")[2]',
        "tail = text",
        "tests/unit/test_answers.py",
    ),
    Mutant(
        "overlong punishment begins at the limit",
        "r1ray/reward/overlong.py",
        "(limit - cache - len(completion.token_ids_T)) / cache",
        "(limit - len(completion.token_ids_T)) / cache",
        "tests/unit/test_shaping.py tests/unit/test_golden_rewards.py",
    ),
    Mutant(
        "engines share a rank",
        "r1ray/sync/layout.py",
        "return 1 + engine * workers",
        "return 1 + engine",
        "tests/unit/test_layout.py",
    ),
    Mutant(
        "the last bucket is not sent",
        "r1ray/sync/buckets.py",
        "yield from self._cut(end, self.num_bytes)",
        "yield from self._cut(end, self.num_bytes - ALIGNMENT)",
        "tests/unit/test_buckets.py",
    ),
    Mutant(
        "tensors are not aligned",
        "r1ray/sync/buckets.py",
        "start += _aligned(num_bytes)",
        "start += num_bytes",
        "tests/unit/test_buckets.py",
    ),
    Mutant(
        "the checksum ignores positions",
        "r1ray/sync/buckets.py",
        "(torch.arange(len(words), dtype=torch.int64, device=words.device) * 2 + 1) * _signed(_MIX)",
        "torch.ones(len(words), dtype=torch.int64, device=words.device)",
        "tests/unit/test_buckets.py",
    ),
    Mutant(
        "nan log-probs of a canary agree",
        "r1ray/sync/canary.py",
        "float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))",
        "float(np.nan_to_num(gap).max(initial=0.0))",
        "tests/unit/test_canary.py",
    ),
    Mutant(
        "a changed file of a checkpoint is whole",
        "r1ray/run/seal.py",
        'found != entries[name].get("sha256")',
        "found is None",
        "tests/unit/test_checkpoint.py",
    ),
    Mutant(
        "the best checkpoint is pruned",
        "r1ray/run/checkpoint.py",
        "(*known[-self.keep :], *([best] if best else []))",
        "known[-self.keep :]",
        "tests/unit/test_checkpoint.py tests/unit/test_checkpoint_links.py",
    ),
    Mutant(
        "the worst checkpoint is the best",
        "r1ray/run/checkpoint.py",
        "return max(scored, key=",
        "return min(scored, key=",
        "tests/unit/test_checkpoint.py tests/unit/test_checkpoint_links.py",
    ),
    Mutant(
        "a checkpoint that was sealed and not renamed is lost",
        "r1ray/run/checkpoint.py",
        "            if find_damage(temporary) is None:\n",
        "            if False:\n",
        "tests/unit/test_checkpoint.py",
    ),
)


def is_caught(mutant: Mutant, copy: Path) -> bool:
    """Whether the tests fail with the fault; restores the copy afterwards."""
    path = copy / mutant.file
    source = path.read_text()
    if source.count(mutant.line) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.file} contains {source.count(mutant.line)} times: {mutant.line}")
    path.write_text(source.replace(mutant.line, mutant.fault))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    finally:
        path.write_text(source)
    # 1 is "tests failed"; anything else (nothing collected, a usage error) proves nothing.
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.returncode == 1


def main(words: str) -> int:
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "r1ray"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", "*.egg-info")
        shutil.copytree(REPO, copy, ignore=ignored)
        for mutant in MUTANTS:
            if words in mutant.name:
                caught = is_caught(mutant, copy)
                survivors += not caught
                print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.name:52} {mutant.tests}", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
