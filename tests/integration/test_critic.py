"""The critic's trainer against a plain model with a linear head: values, loss and gradients, for several rank counts and ZeRO
stages."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_cases import COMPLETIONS, EOS, VOCAB, Together, config, groups_of, make_trainer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2Config

from r1ray.algo.critic import CriticObjective
from r1ray.annotate import sample_outputs
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples

pytestmark = pytest.mark.integration
OBJECTIVE = CriticObjective(updates_per_step=1, value_clip=0.05)


def samples_with_returns() -> list[Any]:
    samples = to_samples(groups_of(COMPLETIONS), truncated="mask")
    return [
        replace(sample, returns_T=(np.arange(len(sample.mask_T)) % 3 * 0.7 * sample.mask_T).astype(np.float32))
        for sample in samples
    ]


def one_pass(rank: int, world_size: int, port: int, cfg: Any, path: str, max_tokens: int) -> dict[str, Any]:
    """Values before an update, its metrics, the head after it, and the values after it."""
    trainer = make_trainer(rank, world_size, port, cfg, path, OBJECTIVE, "critic")
    together, samples = Together(trainer, rank, world_size, max_tokens), samples_with_returns()
    before = sample_outputs(samples, together)
    samples = [replace(s, old_values_T=v_T + 0.1 * s.mask_T) for s, v_T in zip(samples, before, strict=True)]
    (part,) = OBJECTIVE.minibatches(samples, {}, np.random.default_rng(0))
    batch = pack(part, weights=OBJECTIVE.weights(part, {}), num_ranks=world_size, max_tokens=max_tokens)
    metrics = trainer.update(batch.rows[rank])
    return {"before": before, "metrics": metrics, "after": sample_outputs(samples, together)}


def plain(body: Any, head_1E: torch.Tensor, sample: Any) -> torch.Tensor:
    """Values before each token of one unpacked sequence."""
    hidden = body(torch.tensor(sample.token_ids_T.astype(np.int64))[None], use_cache=False).last_hidden_state[0]
    values = (hidden @ head_1E.T).squeeze(-1)
    return torch.cat([torch.zeros(1, dtype=values.dtype), values[:-1]]) * torch.tensor(sample.mask_T)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which transformers has saved a sequence classifier."""
    folder = tmp_path_factory.mktemp("reward_model")
    torch.manual_seed(3)
    shape = Qwen2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, num_labels=1, eos_token_id=EOS,
        pad_token_id=0,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("world_size", "zero_stage"), [(1, 0), (2, 0), (2, 1), (2, 3)])
def test_values_loss_and_update_equal_a_plain_model(
    ranks: Any, reward_model: Path, world_size: int, zero_stage: int
) -> None:
    cfg = config(grad_clip=0.0, critic={"overrides": {"zero_stage": zero_stage}})
    found = ranks[world_size].run(one_pass, cfg, str(reward_model), 40)[0]
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, attn_implementation="eager")
    samples = samples_with_returns()
    wanted = [plain(model.model, model.score.weight, sample) for sample in samples]
    for got_T, want_T in zip(found["before"], wanted, strict=True):
        np.testing.assert_allclose(got_T, want_T.detach().numpy(), atol=2e-5)

    mask = torch.cat([torch.tensor(sample.mask_T) for sample in samples])
    values, returns = torch.cat(wanted), torch.cat([torch.tensor(sample.returns_T) for sample in samples])
    old = values.detach() + 0.1 * mask
    held = old + (values - old).clamp(-0.05, 0.05)
    loss = (0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2) * mask).sum() / mask.sum()
    assert found["metrics"]["loss/value"] == pytest.approx(loss.item(), rel=1e-5)
    assert 0 < found["metrics"]["value_clipped"] <= 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=cfg.trainer.betas, eps=1e-8, weight_decay=0.0)
    loss.backward()
    optimizer.step()
    for sample, got_T in zip(samples, found["after"], strict=True):
        want_T = plain(model.model, model.score.weight, sample).detach().numpy()
        np.testing.assert_allclose(got_T, want_T, atol=2e-3)


def values_of(rank: int, world_size: int, port: int, cfg: Any, path: str) -> list[Any]:
    trainer = make_trainer(rank, world_size, port, cfg, path, OBJECTIVE, "critic")
    return sample_outputs(samples_with_returns(), Together(trainer, rank, world_size, 64))


@pytest.mark.parametrize("init", ["zero", "normal", "uniform"])
def test_language_model_gets_a_head_drawn_from_the_seed(ranks: Any, models: Any, init: str) -> None:
    cfg = config(critic={"head_init": init})
    (found,) = ranks[1].run(values_of, cfg, models.policy)
    (again,) = ranks[1].run(values_of, cfg, models.policy)
    for first_T, second_T in zip(found, again, strict=True):
        np.testing.assert_array_equal(first_T, second_T)
    largest = max(float(np.abs(values_T).max()) for values_T in found)
    assert (largest == 0) if init == "zero" else (largest > 0.1)
    body = AutoModelForCausalLM.from_pretrained(models.policy).model
    sample = samples_with_returns()[3]
    hidden = body(torch.tensor(sample.token_ids_T.astype(np.int64))[None]).last_hidden_state[0].detach().numpy()
    # Linear in the hidden state before the token: one head reproduces all values.
    head = np.linalg.lstsq(hidden[4:-1], found[3][5:], rcond=None)[0]
    np.testing.assert_allclose(hidden[4:-1] @ head, found[3][5:], atol=1e-3)


def test_values_are_float32_where_weights_are_bfloat16(ranks: Any, reward_model: Path) -> None:
    """Near 1, bfloat16 has steps of 1/128; the value is more exact than that."""
    cfg = config(zero_stage=1, precision="bf16", critic={"overrides": {"zero_stage": 1}})
    (found,) = ranks[1].run(values_of, cfg, str(reward_model))
    model = AutoModelForSequenceClassification.from_pretrained(
        reward_model, dtype=torch.bfloat16, attn_implementation="eager"
    )
    head_1E, rounded = model.score.weight.float(), []
    for sample, got_T in zip(samples_with_returns(), found, strict=True):
        ids = torch.tensor(sample.token_ids_T.astype(np.int64))[None]
        hidden = model.model(ids, use_cache=False).last_hidden_state[0]
        wanted = torch.cat([torch.zeros(1), (hidden.float() @ head_1E.T).squeeze(-1)[:-1]]).detach().numpy()
        np.testing.assert_allclose(got_T, wanted * sample.mask_T, atol=0.05)
        values = torch.tensor(got_T[sample.mask_T > 0])
        rounded += (values == values.bfloat16().float()).tolist()
    assert np.mean(rounded) < 0.1


def saved_and_loaded(rank: int, world_size: int, port: int, cfg: Any, path: str, folder: str) -> list[Any]:
    """Values after another update: of a critic that continued, and of one that was loaded."""
    samples, out = samples_with_returns(), []
    for load in (False, True):
        trainer = make_trainer(rank, world_size, port, cfg, path, OBJECTIVE, "critic")
        together = Together(trainer, rank, world_size, 64)
        if load:
            trainer.load(folder)
        for step in range(1 if load else 0, 2):
            values = sample_outputs(samples, together)
            part = [replace(s, old_values_T=v_T) for s, v_T in zip(samples, values, strict=True) if s.mask_T.any()]
            batch = pack(part, weights=OBJECTIVE.weights(part, {}), num_ranks=world_size, max_tokens=64)
            trainer.update(batch.rows[rank])
            if step == 0:
                trainer.save(folder)
        out.append(sample_outputs(samples, together))
    return out


def test_loaded_critic_continues_like_the_saved_one(ranks: Any, models: Any, tmp_path: Path) -> None:
    went_on, loaded = ranks[2].run(saved_and_loaded, config(zero_stage=1), models.policy, str(tmp_path))[0]
    for first_T, second_T in zip(went_on, loaded, strict=True):
        np.testing.assert_array_equal(first_T, second_T)


def exported(rank: int, world_size: int, port: int, cfg: Any, path: str, folder: str) -> list[Any]:
    trainer = make_trainer(rank, world_size, port, cfg, path, OBJECTIVE, "critic")
    trainer.export_hf(folder)
    return sample_outputs(samples_with_returns(), Together(trainer, rank, world_size, 64))


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_exported_critic_loads_as_reward_model_and_as_critic(
    ranks: Any, models: Any, tmp_path: Path, zero_stage: int
) -> None:
    cfg = config(critic={"overrides": {"zero_stage": zero_stage}})
    values = ranks[2].run(exported, cfg, models.policy, str(tmp_path))[0]
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert model.config.num_labels == 1 and not any(info.values())
    for sample, got_T in zip(samples_with_returns(), values, strict=True):
        want_T = plain(model.model, model.score.weight, sample).detach().numpy()
        np.testing.assert_allclose(got_T, want_T, atol=2e-5)
        if sample.mask_T.any():  # its score is the value before the next token
            before = torch.tensor(sample.token_ids_T[None, :-1].astype(np.int64))
            assert model(before).logits.item() == pytest.approx(float(got_T[-1]), abs=2e-5)
    (again,) = ranks[1].run(values_of, config(), str(tmp_path))
    for first_T, second_T in zip(values, again, strict=True):
        np.testing.assert_allclose(first_T, second_T, atol=1e-5)


def exported_prm(rank: int, world_size: int, port: int, cfg: Any, path: str, folder: str) -> None:
    make_trainer(rank, world_size, port, cfg, path, OBJECTIVE, "prm").export_hf(folder)


def test_exported_process_reward_model_is_a_language_model_without_tokenizer(
    ranks: Any, models: Any, tmp_path: Path
) -> None:
    source = tmp_path / "without"
    original = AutoModelForCausalLM.from_pretrained(models.policy)
    original.save_pretrained(source)
    ranks[1].run(exported_prm, config(), str(source), str(tmp_path / "prm"))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "prm").state_dict()
    for name, weight in original.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)


def test_classifier_with_several_classes_is_refused_as_reward_model(
    ranks: Any, reward_model: Path, tmp_path: Path
) -> None:
    shape = Qwen2Config.from_pretrained(reward_model, num_labels=3)
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="has 3 outputs: a reward model has one"):
        ranks[1].run(values_of, config(), str(tmp_path))
