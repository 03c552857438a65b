"""The trainer against a reference that is written here: one unpadded sequence at a time, full logits, float64, no r1ray.

What is compared is the whole way from scored groups to the gradient: samples, advantages, minibatches, weights, packing, forward,
loss, sharding. Ranks are plain processes that are started once.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from ranks import Ranks
from transformers import AutoModelForCausalLM, Qwen2Config

from r1ray.actors.annotate import sample_logprobs
from r1ray.actors.reference import ReferenceWorker
from r1ray.actors.trainer import TrainerWorker
from r1ray.algo.base import LossOutput
from r1ray.algo.grpo import Grpo
from r1ray.algo.sft import Sft
from r1ray.config import AlgoConfig, ReferenceConfig, TrainerConfig
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples
from r1ray.types import Completion, Group, Problem, Score, VersionSpan

pytestmark = pytest.mark.integration

CONF = Path(__file__).parents[2] / "conf"
VOCAB, TEMPERATURE, EOS = 61, 0.6, 1
CLIP, BETA, EPS = 0.2, 0.05, 1e-4
MINIBATCHES = 4


# --- the reference: plain data in, loss and gradients out. Nothing of r1ray below this line ...


@dataclass
class Reply:
    """What the reference knows of one reply."""

    group: str
    prompt: list
    ids: list
    reward: float
    trained: bool = True
    """False: masked, its reward still counts in the baseline."""
    usable: bool = True


REPLIES = [
    Reply("a", [5], [EOS], 1.0),  # a prompt of one token and a reply of one token
    Reply("a", [5], [7, 8, 9, 7, EOS], 0.0),
    Reply("a", [5], [11, EOS], 0.5),
    Reply("b", [5, 6, 7, 8, 9], list(range(10, 40)), 1.0),  # cut at the limit: no EOS
    Reply("b", [5, 6, 7, 8, 9], [20, 21, EOS], 0.0),
    Reply("b", [5, 6, 7, 8, 9], list(range(40, 60)), 0.0, trained=False),  # cut at the limit and masked
    Reply("b", [5, 6, 7, 8, 9], [30, 31, 32, EOS], 1.0),
    Reply("c", [9, 9, 12], [33, EOS], 0.2),
    Reply("c", [9, 9, 12], [34] * 12 + [EOS], 0.9),
    Reply("c", [9, 9, 12], [35, 36, EOS], 7.0, usable=False),
    Reply("c", [9, 9, 12], [37, 38, 39, 40, 41, EOS], 0.4),
]


def reference_advantages(replies):
    out = [0.0] * len(replies)
    for name in {reply.group for reply in replies}:
        members = [i for i, reply in enumerate(replies) if reply.group == name and reply.usable]
        rewards = np.array([replies[i].reward for i in members])
        for i in members:
            out[i] = float((replies[i].reward - rewards.mean()) / (rewards.std(ddof=1) + EPS))
    return out


def reply_logprobs(model, reply):
    """log pi(token | all before it) for each token of the reply, at the sampling temperature."""
    ids = torch.tensor([reply.prompt + reply.ids])
    log = (model(ids).logits[0] / TEMPERATURE).log_softmax(-1)
    first = len(reply.prompt)
    return torch.stack([log[first + t - 1, reply.ids[t]] for t in range(len(reply.ids))])


def reference_loss(model, replies, advantages, old, ref):
    """Mean over replies of the mean over tokens of -min(rho A, clip(rho) A) + beta k3."""
    losses = []
    for reply, advantage, old_T, ref_T in zip(replies, advantages, old, ref, strict=True):
        new = reply_logprobs(model, reply)
        rho = torch.exp(new - old_T)
        objective = torch.minimum(rho * advantage, torch.clamp(rho, 1 - CLIP, 1 + CLIP) * advantage)
        k3 = torch.exp(ref_T - new) - (ref_T - new) - 1
        losses.append((-objective + BETA * k3).mean())
    return torch.stack(losses).mean()


def float64_model(path, weights=None):
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").double()
    if weights is not None:
        missing, unexpected = model.load_state_dict({k: torch.tensor(v).double() for k, v in weights.items()}, False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}
    return model


def reference_gradients(model):
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


# --- ... and r1ray from here on.


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tied policy, one near it as the reference (its KL is far from the clamp of k3), and an untied one."""
    from tiny_models import make_tokenizer, move_weights

    folder = tmp_path_factory.mktemp("models")
    for name in ("policy", "reference", "untied"):
        config = Qwen2Config(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.2,
            tie_word_embeddings=name != "untied",
            eos_token_id=EOS,
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        if name == "reference":
            move_weights(model, seed=1, scale=0.02)
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return SimpleNamespace(**{name: str(folder / name) for name in ("policy", "reference", "untied")})


@pytest.fixture(scope="module")
def ranks():
    groups = {world_size: Ranks(world_size) for world_size in (1, 2)}
    yield groups
    for group in groups.values():
        group.close()


def config(**trainer):
    """The parts of a Config that trainer and reference read."""
    defaults = yaml.safe_load((CONF / "trainer/default.yaml").read_text())
    quiet = {"lr": 1e-3, "logprob_gap_limit": math.inf, "timeout_s": 60}
    reference = yaml.safe_load((CONF / "reference/default.yaml").read_text())
    return SimpleNamespace(
        trainer=TrainerConfig(**defaults | quiet | trainer),
        reference=ReferenceConfig(**reference | {"zero_stage": 3 if trainer.get("zero_stage") == 3 else 0}),
        model=SimpleNamespace(facts=None),
        device="cpu",
        seed=0,
    )


def grpo(**overrides):
    defaults = yaml.safe_load((CONF / "algo/grpo.yaml").read_text())
    ours = {"adv_eps": EPS, "clip_low": CLIP, "clip_high": CLIP, "kl_coef": BETA, "minibatches": MINIBATCHES}
    return Grpo(cfg=AlgoConfig(**defaults | ours | overrides), max_response_length=32)


def groups_of(replies, *, rollout_logprob=-1.0):
    out = []
    for name in dict.fromkeys(reply.group for reply in replies):
        members = [reply for reply in replies if reply.group == name]
        problem = Problem(
            id=name, source="s", messages=(), prompt_ids_T=np.int32(members[0].prompt), verifier="v", payload={}
        )
        completions = tuple(
            Completion(
                token_ids_T=np.int32(reply.ids),
                rollout_logprobs_T=np.full(len(reply.ids), rollout_logprob, np.float32),
                temperature=TEMPERATURE,
                text="",
                finish="stop" if reply.trained else "length",
                versions=(VersionSpan(version=0, start=0, end=len(reply.ids)),),
            )
            for reply in members
        )
        scores = tuple(
            Score(reward=r.reward, correct=None, parts={}, statuses={}, usable=r.usable, seconds=0.0) for r in members
        )
        out.append(Group(problem=problem, completions=completions, scores=scores))
    return out


class Together:
    """A worker of each rank as one group, seen from inside every rank."""

    def __init__(self, worker, rank, world_size):
        self.worker, self.rank, self.world_size = worker, rank, world_size

    def __len__(self):
        return self.world_size

    def logprobs(self, batch):
        out = [None] * self.world_size
        dist.all_gather_object(out, self.worker.logprobs(batch.rows[self.rank]))
        return out


def make_trainer(rank, world_size, port, cfg, path, algorithm):
    return TrainerWorker(
        rank=rank,
        world_size=world_size,
        master_addr="127.0.0.1",
        master_port=port,
        cfg=cfg,
        model_path=path,
        algorithm=algorithm,
        total_updates=100,
    )


def annotated(trainer, reference_path, rank, world_size, port, cfg, algorithm, replies, max_tokens):
    """Scored groups -> samples with old and reference log-probs and advantages, as the loop makes them."""
    samples = to_samples(groups_of(replies), truncated="mask")
    reference = ReferenceWorker(
        rank=rank, world_size=world_size, master_addr="127.0.0.1", master_port=port, cfg=cfg, model_path=reference_path
    )
    for name, worker in (("old_logprobs_T", trainer), ("ref_logprobs_T", reference)):
        column = sample_logprobs(samples, Together(worker, rank, world_size), max_tokens=max_tokens)
        samples = [replace(sample, **{name: column[i]}) for i, sample in enumerate(samples)]
    return algorithm.advantages(samples, {})


def weights_of(trainer):
    return {name: weight.float().numpy().copy() for name, weight in trainer._engine.weights()}


def capture_gradients(trainer):
    """The whole gradients that the next update steps with, in a dict that fills then."""
    from deepspeed.utils import safe_get_full_grad

    grads, step = {}, trainer._engine.step

    def recording_step(**kwargs):
        for name, p in trainer._lm.named_parameters():
            grad = p.grad if trainer._cfg.trainer.zero_stage == 0 else safe_get_full_grad(p)
            grads[name] = grad.float().numpy().copy()
        return step(**kwargs)

    trainer._engine.step = recording_step
    return grads


def run_pass(rank, world_size, port, cfg, policy, reference, algorithm, replies, max_tokens):
    """One loop pass. For each update: which replies, weights before, metrics, gradients."""
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = annotated(trainer, reference, rank, world_size, port, cfg, algorithm, replies, max_tokens)
    grads, updates = capture_gradients(trainer), []
    for part in algorithm.minibatches(samples, {}, np.random.default_rng(0)):
        batch = pack(part, weights=algorithm.weights(part, {}), num_ranks=world_size, max_tokens=max_tokens)
        before = weights_of(trainer)
        metrics = trainer.update(batch.rows[rank])
        chosen = [(sample.group_id.split("@")[0], sample.index) for sample in part]
        updates.append({"chosen": chosen, "weights": before, "metrics": metrics, "grads": dict(grads)})
    return updates


def check_pass(updates, models, replies):
    """Every update of rank 0 against the reference at the same weights."""
    first = float64_model(models.policy)
    other = float64_model(models.reference)
    advantages = reference_advantages(replies)
    of_group = {name: [i for i, r in enumerate(replies) if r.group == name] for name in {r.group for r in replies}}
    for update in updates:
        chosen = [of_group[name][k] for name, k in update["chosen"]]
        with torch.no_grad():
            old = [reply_logprobs(first, replies[i]) for i in chosen]
            ref = [reply_logprobs(other, replies[i]) for i in chosen]
        model = float64_model(models.policy, update["weights"])
        loss = reference_loss(model, [replies[i] for i in chosen], [advantages[i] for i in chosen], old, ref)
        loss.backward()
        metrics = update["metrics"]
        assert metrics["loss/policy"] + metrics["loss/kl"] == pytest.approx(loss.item(), abs=1e-5)
        wanted = reference_gradients(model)
        assert update["grads"].keys() == wanted.keys()
        for name, grad in update["grads"].items():
            scale = max(1.0, np.abs(wanted[name]).max())
            np.testing.assert_allclose(grad / scale, wanted[name] / scale, atol=1e-5, rtol=0, err_msg=name)
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in wanted.values()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert metrics["updates_skipped"] == 0


@pytest.mark.parametrize(
    ("world_size", "max_tokens", "trainer"),
    [
        (1, 1, {}),  # every sequence in a row of its own
        (1, 40, {}),
        (1, 10_000, {}),  # everything in one row
        (1, 40, {"activation_checkpointing": True}),
        (2, 1, {}),
        (2, 40, {}),
        (2, 40, {"zero_stage": 1}),
        (2, 40, {"zero_stage": 2}),
        (2, 40, {"zero_stage": 2, "cpu_offload": True}),
        (2, 40, {"zero_stage": 3}),
        (2, 1, {"zero_stage": 3, "activation_checkpointing": True}),
        (2, 10_000, {"zero_stage": 3}),
    ],
    ids=str,
)
def test_loss_and_gradients_equal_the_reference(ranks, models, world_size, max_tokens, trainer):
    args = (config(**trainer), models.policy, models.reference, grpo(), REPLIES, max_tokens)
    results = ranks[world_size].run(run_pass, *args)
    assert [len(updates) for updates in results] == [MINIBATCHES] * world_size
    trained = [reply for update in results[0] for reply in update["chosen"]]
    assert len(trained) == len(set(trained)) == len(REPLIES) - 2
    check_pass(results[0], models, REPLIES)
    for mine, theirs in zip(results[0], results[-1], strict=True):
        assert mine["metrics"] == theirs["metrics"]


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_fewer_sequences_than_ranks(ranks, models, zero_stage):
    replies = [replace(REPLIES[3], group="b"), replace(REPLIES[5], group="b")]  # one is masked, one is left
    algorithm = grpo(minibatches=1)
    args = (config(zero_stage=zero_stage), models.policy, models.reference, algorithm, replies, 64)
    updates = ranks[2].run(run_pass, *args)[0]
    assert [update["chosen"] for update in updates] == [[("b", 0)]]
    check_pass(updates, models, replies)


def test_the_first_update_has_ratio_one_nothing_clipped_and_no_kl(ranks, models):
    args = (config(zero_stage=2), models.policy, models.policy, grpo(), REPLIES, 40)
    metrics = ranks[2].run(run_pass, *args)[0][0]["metrics"]
    assert metrics["ratio/max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_ref"] == pytest.approx(0.0, abs=1e-9)


class PoisonedLoss(Grpo):
    """A loss that is fine, and on tokens of advantage 1000 is nan (`poison="loss"`) or has a nan gradient (`poison="gradient"`)."""

    poison = "none"

    def loss(self, row):
        out = super().loss(replace(row, advantages_L=row.advantages_L.clamp(max=1.0)))
        bad_L = (row.advantages_L > 100).float()
        if self.poison == "loss":
            extra_L = torch.where(bad_L > 0, torch.nan, 0.0)
        else:
            zero_L = row.logprobs_L - row.logprobs_L.detach()
            extra_L = bad_L * torch.where(bad_L > 0, zero_L, 1.0).abs().sqrt()
        return LossOutput(terms={**out.terms, "policy": out.terms["policy"] + extra_L}, metrics=out.metrics)


class NanLoss(PoisonedLoss):
    poison = "loss"


class NanGradient(PoisonedLoss):
    poison = "gradient"


def run_poisoned(rank, world_size, port, cfg, policy, algorithm_class):
    """Update, poisoned update (one token of one rank), update: metrics of all three and how far each moved the weights."""
    algorithm = algorithm_class(cfg=grpo(minibatches=1, kl_coef=0.0).cfg, max_response_length=32)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = algorithm.advantages(to_samples(groups_of(REPLIES), truncated="mask"), {})
    samples = algorithm.minibatches(samples, {}, np.random.default_rng(0))[0]
    out = []
    for poisoned in (False, True, False):
        batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
        rows = list(batch.rows[rank])
        if poisoned and rank == world_size - 1:
            rows[0] = replace(rows[0], advantages_L=np.where(rows[0].mask_L > 0, np.float32(1000), np.float32(0)))
        before = weights_of(trainer)
        metrics = trainer.update(rows)
        after = weights_of(trainer)
        moved = max((np.abs(after[name] - before[name]).max() for name in before if before[name].size), default=0.0)
        finite = all(np.isfinite(weight).all() for weight in after.values())
        out.append((metrics["updates_skipped"], float(moved), finite))
    return out


@pytest.mark.parametrize(
    "trainer",
    [
        {"zero_stage": 0},
        {"zero_stage": 1},
        {"zero_stage": 2},
        {"zero_stage": 3},
        {"zero_stage": 1, "precision": "bf16"},
        {"zero_stage": 2, "precision": "bf16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("algorithm", [NanLoss, NanGradient])
def test_a_nan_on_one_rank_makes_all_ranks_skip_the_update(ranks, models, trainer, algorithm):
    results = ranks[2].run(run_poisoned, config(**trainer), models.policy, algorithm)
    for rank, updates in enumerate(results):
        assert [skipped for skipped, _, _ in updates] == [0, 1, 0]
        assert all(finite for _, _, finite in updates)
        moved = [moved for _, moved, _ in updates]
        assert moved[1] == 0
        if rank == 0 or trainer["zero_stage"] < 3:
            assert moved[0] > 0
            assert moved[2] > 0


def run_gap(rank, world_size, port, cfg, policy):
    algorithm = grpo(minibatches=1, kl_coef=0.0)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = algorithm.advantages(to_samples(groups_of(REPLIES), truncated="mask"), {})
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    before = weights_of(trainer)
    metrics = trainer.update(batch.rows[rank])
    return metrics, all((before[name] == weight).all() for name, weight in weights_of(trainer).items())


def test_an_update_whose_engine_log_probs_are_off_is_not_made(ranks, models):
    for metrics, unchanged in ranks[2].run(run_gap, config(logprob_gap_limit=None), models.policy):
        assert metrics["logprob_gap/max"] > 0.1
        assert metrics["updates_skipped"] == 1
        assert unchanged


def run_updates(rank, world_size, port, cfg, policy, num, *, load=None, save=None):
    """`num` updates, saving before the last; metrics of the last and the weights after it."""
    algorithm = grpo(minibatches=1, kl_coef=0.0)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    if load:
        trainer.load(load)
    samples = algorithm.advantages(to_samples(groups_of(REPLIES), truncated="mask"), {})
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    metrics = {}
    for k in range(num):
        if save and k == num - 1:
            trainer.save(save)
        metrics = trainer.update(batch.rows[rank])
    return metrics, weights_of(trainer)


def run_and_save(rank, world_size, port, cfg, policy, path):
    return run_updates(rank, world_size, port, cfg, policy, 3, save=path)


def load_and_run(rank, world_size, port, cfg, policy, path):
    return run_updates(rank, world_size, port, cfg, policy, 1, load=path)


@pytest.mark.parametrize(
    "trainer", [{"zero_stage": 0}, {"zero_stage": 2, "precision": "bf16"}, {"zero_stage": 3}], ids=str
)
def test_a_loaded_trainer_makes_the_same_next_update(ranks, models, tmp_path, trainer):
    cfg = config(**trainer, lr_schedule="cosine", warmup_updates=2)
    saved = ranks[2].run(run_and_save, cfg, models.policy, str(tmp_path))
    # Another start: what counts is what was saved.
    loaded = ranks[2].run(load_and_run, cfg, models.reference, str(tmp_path))
    for (metrics, weights), (again, weights_again) in zip(saved, loaded, strict=True):
        assert metrics == again
        for name, weight in weights.items():
            np.testing.assert_array_equal(weight, weights_again[name])


def test_trainer_state_of_another_layout_is_refused(ranks, models, tmp_path):
    ranks[2].run(run_and_save, config(zero_stage=1), models.policy, str(tmp_path))
    with pytest.raises(
        RuntimeError, match=r"holds trainer state of .*'zero_stage': 1.* this run has .*'zero_stage': 3"
    ):
        ranks[2].run(load_and_run, config(zero_stage=3), models.policy, str(tmp_path))
    with pytest.raises(RuntimeError, match="'num_workers': 2"):
        ranks[1].run(load_and_run, config(zero_stage=1), models.policy, str(tmp_path))


@pytest.mark.parametrize(
    "trainer",
    [
        {"precision": "bf16_autocast"},
        {"precision": "bf16_autocast", "zero_stage": 3, "activation_checkpointing": True},
        {"precision": "bf16", "zero_stage": 1},
        {"precision": "bf16", "zero_stage": 2, "activation_checkpointing": True},
        {"precision": "bf16", "zero_stage": 3},
    ],
    ids=str,
)
def test_lower_precisions_follow_float32(ranks, models, trainer):
    """The fourth update, which builds on three before, sees nearly the same loss, gradient and distribution."""
    exact, _ = ranks[2].run(run_updates, config(), models.policy, 4)[0]
    close, _ = ranks[2].run(run_updates, config(**trainer), models.policy, 4)[0]
    assert close["loss/policy"] == pytest.approx(exact["loss/policy"], abs=0.01)
    assert close["kl_rollout"] == pytest.approx(exact["kl_rollout"], rel=0.02)
    assert close["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.05)


def run_export(rank, world_size, port, cfg, policy, path, sequences):
    trainer = make_trainer(rank, world_size, port, cfg, policy, grpo(minibatches=1, kl_coef=0.0))
    trainer.export_hf(path)
    return trainer.score(sequences), trainer.weight_metadata(), {n: w.shape for n, w in weights_of(trainer).items()}


@pytest.mark.parametrize("zero_stage", [1, 3])
@pytest.mark.parametrize("name", ["policy", "untied"])
def test_an_exported_model_is_the_model(ranks, models, tmp_path, zero_stage, name):
    from transformers import AutoTokenizer, GenerationConfig

    sequences = [np.int32([5, 9, 12, 1]), np.int32([30, 31])]
    source = getattr(models, name)
    args = (config(zero_stage=zero_stage, precision="fp32"), source, str(tmp_path), sequences)
    scores, metadata, shapes = ranks[2].run(run_export, *args)[0]
    assert [entry[0] for entry in metadata] == list(shapes)
    assert {entry[0]: tuple(entry[2]) for entry in metadata} == {n: tuple(shape) for n, shape in shapes.items()}
    assert ("lm_head.weight" in shapes) == (name == "untied")
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    original = AutoModelForCausalLM.from_pretrained(source).state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, original[key], rtol=0, atol=0)
    for ids, got in zip(sequences, scores, strict=True):
        ids = torch.tensor(ids, dtype=torch.long)
        with torch.no_grad():
            log = model(ids[None]).logits[0].log_softmax(-1)
        assert got[0] == 0
        np.testing.assert_allclose(got[1:], log[:-1].gather(-1, ids[1:, None])[:, 0], atol=1e-5)
    generation = GenerationConfig.from_pretrained(str(tmp_path))
    assert (generation.temperature, generation.top_p, generation.eos_token_id) == (0.6, 0.95, EOS)
    assert AutoTokenizer.from_pretrained(str(tmp_path)).decode([2]) == "<think>"


def run_reference(rank, world_size, port, cfg, first, second):
    """Log-probs of two references, the second loaded over the first."""
    samples = to_samples(groups_of(REPLIES), truncated="mask")
    reference = ReferenceWorker(
        rank=rank, world_size=world_size, master_addr="127.0.0.1", master_port=port, cfg=cfg, model_path=first
    )
    out = []
    for path in (None, second):
        if path:
            reference.load(path)
        out.append(sample_logprobs(samples, Together(reference, rank, world_size), max_tokens=40))
    return out


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_the_reference_is_replaced_by_a_saved_folder(ranks, models, zero_stage):
    ranks[2].run(run_updates, config(), models.policy, 1)  # the ranks have met
    results = ranks[2].run(run_reference, config(zero_stage=zero_stage), models.reference, models.policy)[0]
    for path, column in zip((models.reference, models.policy), results, strict=True):
        model = float64_model(path)
        for reply, got in zip(REPLIES, column, strict=True):
            if not (reply.trained and reply.usable):
                assert not got.any()
                continue
            with torch.no_grad():
                want = reply_logprobs(model, reply)
            np.testing.assert_allclose(got[len(reply.prompt) :], want, atol=1e-5)


def run_sft(rank, world_size, port, cfg, policy, num):
    algorithm = Sft()
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = to_samples(groups_of([replace(reply, usable=True) for reply in REPLIES]), truncated="score")
    samples = [replace(sample, score=None, temperature=1.0) for sample in samples]
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    return [trainer.update(batch.rows[rank])["loss/nll"] for _ in range(num)]


def test_supervised_fine_tuning_is_the_same_trainer(ranks, models):
    losses = ranks[2].run(run_sft, config(lr=1e-2), models.policy, 8)[0]
    model = float64_model(models.policy)
    nll = []
    for reply in REPLIES:
        ids = torch.tensor([reply.prompt + reply.ids])
        with torch.no_grad():
            log = model(ids).logits[0].log_softmax(-1)
        first = len(reply.prompt)
        nll += [-float(log[first + t - 1, token]) for t, token in enumerate(reply.ids)]
    assert losses[0] == pytest.approx(np.mean(nll), abs=1e-5)
    assert losses[-1] < 0.7 * losses[0]
