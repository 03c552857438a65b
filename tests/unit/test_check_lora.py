"""The check of `model.lora`: the messages, before anything starts."""

import json
import shutil
from pathlib import Path

import pytest
from laid_over_defaults import check_values
from omegaconf import DictConfig

from r1ray import builtin
from r1ray.check import NOT_CHECKED, ConfigError
from r1ray.check.load import SFT_RULES, TRAINING_RULES
from r1ray.check.lora import something_to_adapt, targets
from r1ray.config.view import StageView
from r1ray.model.files import linear_layers
from r1ray.plan import describe
from r1ray.run.seal import seal
from r1ray.stage_kinds import KINDS

ALL = "model.lora={rank: 4, alpha: 8, targets: all-linear}"
SFT = (
    "stages={rl: null, warm: {kind: sft}}",
    "data.train={countdown: null, t: {source: traces, args: {num_problems: 9}}}",
)


pytestmark = pytest.mark.usefixtures("workplace")


def trained(folder: Path, *, adapters: object) -> None:
    """A run that has saved trainer state."""
    trainer = folder / "stages/rl/checkpoints/step_000010/trainer"
    trainer.mkdir(parents=True)
    before = {"seed": 0, "model": {"path": "builtin"}, "algo": {"name": "grpo"}, "stages": {"rl": {"kind": "rl"}}}
    (folder / "config.yaml").write_text(json.dumps(before))
    layout = {"num_workers": 2, "zero_stage": 0, "precision": "fp32"}
    (trainer / "layout.json").write_text(json.dumps(layout | ({"lora": adapters} if adapters else {})))
    (trainer.parent / "state.json").write_text(json.dumps({"step": 10}))
    seal(trainer.parent)


# overrides, {key of each mistake: (words of its rule, words of its remedy)}
CASES = {
    "a rank of 0": ([ALL, "model.lora.rank=0"], {"model.lora.rank": ("must be at least 1", "model.lora.rank=1")}),
    "an alpha of 0": ([ALL, "model.lora.alpha=0"], {"model.lora.alpha": ("must be greater than 0", "larger")}),
    "no alpha": (["model.lora={rank: 4, targets: q_proj}"], {"model.lora.alpha": ("must be given", "model.lora.alpha=")}),
    "a key that is none": ([ALL, "model.lora.r=4"], {"model.lora.r": ("has no key r", "rank")}),
    "no layers": ([ALL, "model.lora.targets=[]"], {"model.lora.targets": ("names no layer", "targets=all-linear")}),
    "a typo": (
        [ALL, "model.lora.targets=[q_prj, v_proj]"],
        {"model.lora.targets": ("there are down_proj, gate_proj, k_proj, o_proj", "did you mean q_proj?")},
    ),
    "the head": ([ALL, "model.lora.targets=[lm_head]"], {"model.lora.targets": ("the model's blocks", "all-linear")}),
    "the embedding": ([ALL, "model.lora.targets=embed_tokens"], {"model.lora.targets": ("the model's blocks", "all-linear")}),
    "a norm": ([ALL, "model.lora.targets=[input_layernorm]"], {"model.lora.targets": ("no linear layer", "all-linear")}),
    "a frozen beginning": (
        [ALL, *SFT, "sft.init=random"], {"model.lora": ("random weights would never be trained", "model.lora=null")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_reported_with_the_remedy(case: str, base: DictConfig) -> None:
    overrides, wanted = CASES[case]
    with pytest.raises(ConfigError) as caught:
        check_values(base, overrides)
    found = {mistake.key: mistake for mistake in caught.value.mistakes}
    assert found.keys() == wanted.keys()
    for key, (rule, remedy) in wanted.items():
        assert rule in found[key].rule
        assert remedy in found[key].remedy


@pytest.mark.parametrize("targets", ["all-linear", "[all-linear]", "q_proj", "[q_proj, down_proj]"])
def test_valid_adapters_are_accepted_and_shown(targets: str, base: DictConfig) -> None:
    run = check_values(base, [ALL, f"model.lora.targets={targets}"])
    assert run.config.model.lora is not None
    assert run.notes == []
    assert "LoRA of rank 4" in describe(run)


def test_summary_without_adapters_shows_none(base: DictConfig) -> None:
    assert "LoRA" not in describe(check_values(base, []))


@pytest.mark.parametrize(("init", "mistakes"), [("random", 1), ("pretrained", 0)])
def test_sft_can_use_adapters(init: str, mistakes: int, base: DictConfig) -> None:
    cfg = check_values(base, [ALL, f"sft.init={init}"]).config
    view = StageView(model=cfg.model, sft=cfg.sft, kind=KINDS["sft"], raw={})
    assert len(list(something_to_adapt(view))) == mistakes
    assert targets in TRAINING_RULES and something_to_adapt in SFT_RULES


def test_layers_are_read_from_the_weight_files(workplace: Path) -> None:
    assert linear_layers(builtin.path()) == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    broken = workplace / "broken"
    broken.mkdir()
    for name, content in {"a": b"", "b": b"\0" * 7, "c": b"\xff" * 64, "d": (2).to_bytes(8, "little") + b"[]"}.items():
        (broken / f"{name}.safetensors").write_bytes(content)
    assert linear_layers(broken) == set()


def test_unknown_layers_are_checked_on_loading(workplace: Path, base: DictConfig) -> None:
    shutil.copytree(builtin.path(), workplace / "mine")
    (workplace / "mine/model.safetensors").write_bytes(b"")
    run = check_values(base, [ALL, "model.path=./mine", "model.lora.targets=[W_pack]"])
    assert run.notes == [f"{NOT_CHECKED}whether ./mine has the layers that model.lora.targets names"]


SAVED = {"rank": 4, "alpha": 8.0, "targets": ["all-linear"]}


@pytest.mark.parametrize(
    ("saved", "overrides", "before", "key"),
    [
        (SAVED, [], "{rank: 4, alpha: 8.0, targets: [all-linear]}", "model.lora"),
        (SAVED, [ALL, "model.lora.rank=8"], "{rank: 4, alpha: 8.0, targets: [all-linear]}", "model.lora"),
        (SAVED, [ALL, "model.lora.alpha=9"], "{rank: 4, alpha: 8.0, targets: [all-linear]}", "model.lora"),
        (SAVED, [ALL, "model.lora.targets=[q_proj]"], "{rank: 4, alpha: 8.0, targets: [all-linear]}", "model.lora"),
        (None, [ALL], "null", "model.lora"),
        (
            SAVED,
            ["stages.rl={kind: rl, config: {model: {lora: {rank: 2, alpha: 8, targets: all-linear}}}}"],
            "{rank: 4, alpha: 8.0, targets: [all-linear]}",
            "stages.rl.config.model.lora",
        ),
    ],
    ids=str,
)
def test_run_resumes_only_with_its_own_adapters(
    saved: object, overrides: list[str], before: str, key: str, workplace: Path, base: DictConfig
) -> None:
    trained(workplace / "old", adapters=saved)
    resumed = ["run_dir=old", "resume=auto"]
    with pytest.raises(ConfigError) as caught:
        check_values(base, [*resumed, *overrides])
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert f"was saved with {before}" in mistake.rule
    assert f"'{key}={before}', or a new run: name=ANOTHER model.path=" in mistake.remedy
    again = ALL if saved else "model.lora=null"
    assert check_values(base, [*resumed, again]).config.model.lora == (check_values(base, [again]).config.model.lora)


def test_adapters_require_the_base_model_of_their_stage(workplace: Path, base: DictConfig) -> None:
    trained(workplace / "old", adapters=SAVED)
    moved = "stages.rl={kind: rl, config: {model: {path: other/model}}}"
    with pytest.raises(ConfigError) as caught:
        check_values(base, ["run_dir=old", "resume=auto", ALL, moved])
    assert [mistake.key for mistake in caught.value.mistakes] == ["stages.rl.config.model.path"]
