"""The schema of everything in conf/. Defaults live in the YAML only; a test compares the two key sets.

Hydra composes, Pydantic judges: every model here is frozen and refuses unknown keys. Rules that look at more than one key live
in `r1ray.check`, which reports every mistake at once. This module imports neither ray nor torch.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
AbovePositive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What numpy and vLLM take."""
NotEmpty = Annotated[str, Field(min_length=1)]
Temperature = Annotated[float, Field(ge=0.01)]
"""vLLM raises smaller ones to 0.01, while the trainer would divide by the smaller."""
Momentum = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False, protected_namespaces=())


class AlgoConfig(Strict):
    """What one pass does with its groups. Options on which the literature disagrees are free (recipes differ, not code)."""

    name: str
    """A name in r1ray.algo.ALGORITHMS or `package.module:attribute`."""
    args: dict[str, Any]
    """What only this algorithm has; passed to it."""
    group_size: Positive
    """G, replies per problem."""
    problems_per_step: Positive
    """P, problems per loop pass: P * G samples."""
    minibatches: Positive
    """Optimiser updates per loop pass (R1: 16)."""
    keep_low: Fraction | None
    keep_high: Fraction | None
    """Dynamic sampling: a group is trained on when low < share of correct replies < high (DAPO: 0 and 1); null: open on that side.
    A group of which nothing says right or wrong is kept."""
    keep_unequal: bool
    """And only when its rewards differ (GPG)."""
    min_kept: Fraction
    """Share of the step's groups that must pass; once so many have, the earliest others fill the step (DAPO 1.0, GPG 0.6)."""
    max_refills: Positive
    """Groups generated for a step are at most this many times problems_per_step (DAPO: 10)."""
    std_ddof: Literal[0, 1]
    """verl, TRL: 1 (sample deviation); numpy default: 0."""
    adv_eps: NotNegative
    """Added to the deviation: verl 1e-6, TRL 1e-4, OpenRLHF 1e-9."""
    scale_by_std: bool
    """False: advantages are reward - mean (Dr. GRPO)."""
    clip_low: NotNegative
    clip_high: NotNegative
    """Free floats: R1 clips at 10, DAPO at 0.2 / 0.28."""
    dual_clip: float | None
    """c > 1: lower bound c * A for A < 0; null: off."""
    aggregation: Literal["seq_mean_token_mean", "token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]
    kl_coef: NotNegative
    """beta; 0 creates no reference group."""
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["loss", "reward"]
    """A term of the loss (GRPO), or subtracted from every token's reward (PPO, REINFORCE++)."""
    kl_target: AbovePositive | None
    """Nats a token: kl_coef follows it (`r1ray.algo.controllers`); null: kl_coef stays."""
    kl_horizon: Positive
    """Samples in which the coefficient can change by a fifth of itself."""
    reference_refresh_updates: Count
    """Replace the reference by the policy every N optimiser updates (R1: 400 steps of 16... ); 0: never."""
    entropy_coef: NotNegative
    """Of the entropy bonus; with entropy_target only where it starts."""
    entropy_target: AbovePositive | None
    """Nats a token: below it the bonus is on and grows (`r1ray.algo.controllers`); null: entropy_coef stays."""
    entropy_step: NotNegative
    entropy_max: NotNegative
    """By how much the coefficient moves a step, and how far."""
    rollout_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
    """What becomes of the gap between engine and trainer: the policy term is weighted by pi_trainer / pi_engine of the token or of
    the whole sequence, at most correction_cap (truncate) or 0 above it (mask)."""
    correction_cap: AbovePositive


class ModelFacts(Strict):
    """What config checks need of a model that is named by hub id and not on this disk; compared with the real one at load."""

    context_length: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    vocab_size: Positive
    tied: bool


class ModelConfig(Strict):
    path: str
    """`builtin`, a local folder or a hub name."""
    template: str
    """`r1_zero`, `chat` (the tokenizer's own) or `none`; or `module:function`."""
    facts: ModelFacts | None


class SourceConfig(Strict):
    """One dataset: a name in r1ray.data.SOURCES, where it is, which columns hold what."""

    source: str
    path: str | None = None
    """Hub name, or a local .jsonl / .json / .parquet file or a folder of them; null for generators."""
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] = {}
    """{our name: column in the file}, over the source's defaults."""
    weight: AbovePositive = 1.0
    """Share in a mixture, relative to the others."""
    limit: Positive | None = None
    accuracy: str = "accuracy"
    """The reward part that says whether a reply is correct."""
    extract: str | None = None
    """How a reply's final answer is read: a name in r1ray.reward.answers or an import path; null: as its verifier does."""
    args: dict[str, Any] = {}
    """Passed to the source (generators)."""


class CurriculumConfig(Strict):
    """Which problems come next, by what the model did with earlier ones."""

    name: str
    """A name in r1ray.data.curriculum.CURRICULA, or `package.module:function`."""
    args: dict[str, Any]


class DataConfig(Strict):
    train: dict[str, SourceConfig]
    curriculum: CurriculumConfig
    max_prompt_length: Positive
    overlong_prompt: Literal["drop", "cut", "error"]
    shuffle: bool


class RewardPart(Strict):
    name: str | None = None
    """A name in r1ray.reward.REWARDS or `package.module:function`; null: the part's own key."""
    weight: float = 1.0
    """0: computed and logged, not trained on."""
    schedule: dict[int, float] = {}
    """{step from which on: another weight}, as in {100: 0.5}."""
    sources: list[str] | None = None
    """Those of data.train and eval.sets whose problems it applies to; null: all."""
    args: dict[str, Any] = {}

    @property
    def weighs(self) -> bool:
        """Whether it is ever trained on."""
        return any((self.weight, *self.schedule.values()))


class RewardConfig(Strict):
    parts: dict[str, RewardPart]
    num_workers: Positive
    cpus_per_worker: NotNegative
    timeout_s: AbovePositive
    """A worker that has something to score and finishes nothing for so long counts as hung: it is started again."""
    local: bool
    """Only for `r1ray.grade`: score in processes of this machine, without Ray."""
    outage_timeout_s: NotNegative
    """How long a step waits when nothing can be scored (a judge or a sandbox is down) before the run ends; 0: it does not wait, its
    problems are dropped."""
    truncated: Literal["zero", "score", "mask"]
    """What a reply cut at the limit earns: 0, its score as it is, or nothing (left out of the loss)."""


class SandboxConfig(Strict):
    """Where model-written programs run. Opened only by runs whose data asks for programs."""

    url: str | None
    """A service that speaks SandboxFusion's /run_code (`r1ray.sandbox.remote`); null: this machine, in the tiers below."""
    min_tier: Literal["T1", "T1-noproc", "T2"]
    """The weakest that is accepted (`r1ray.sandbox.base.Tier`); the strongest that works is taken."""
    python: NotEmpty
    """The interpreter that runs them; everybody must be able to read it."""
    packages: list[str]
    """What that interpreter has installed and programs may import besides the standard library: [numpy, sympy]."""


class RolloutConfig(Strict):
    engine: str
    """`vllm`, or `package.module:Class`."""
    num_workers: Positive
    tensor_parallel_size: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: NotNegative
    """For the whole engine is this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_response_length: Positive
    temperature: Temperature
    temperature_schedule: dict[Positive, Temperature]
    """{step from which on: another temperature}, as in {200: 1.1}."""
    top_p: float
    top_k: int
    max_attempts: Positive
    """A group whose replies or scores failed is generated again this often, then dropped and counted."""
    timeout_s: AbovePositive
    """An engine that has something to do and finishes no group for so long counts as hung: it is started again."""
    start_timeout_s: AbovePositive
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class TrainerConfig(Strict):
    num_workers: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: NotNegative
    zero_stage: Literal[0, 1, 2, 3]
    precision: Literal["fp32", "bf16_autocast", "bf16"]
    micro_batch_tokens: Positive
    """Tokens of one packed row at most (a longer sequence gets a row of its own)."""
    lr: NotNegative
    lr_schedule: Literal["constant", "linear", "cosine"]
    lr_min_ratio: Fraction
    """The schedule ends at lr * this."""
    warmup_updates: Count
    betas: tuple[Momentum, Momentum]
    adam_eps: AbovePositive
    weight_decay: NotNegative
    grad_clip: NotNegative
    """Global norm; 0: off."""
    activation_checkpointing: bool
    cpu_offload: bool
    max_nan_updates: Positive
    """Updates skipped in a row for a loss or gradient that is not finite before the run stops."""
    logprob_gap_limit: Annotated[float, Field(gt=0, allow_inf_nan=True)] | None
    """A step whose rollout and trainer log-probs differ by more is not trained on. fp32 judges the largest difference of a token,
    bf16 and bf16_autocast the mean; null: 1e-3 and 0.1; inf: every step is trained on."""
    profile_updates: list[Positive]
    """Updates of which every rank leaves a trace of torch's profiler in the run's logs folder."""
    timeout_s: AbovePositive
    start_timeout_s: AbovePositive
    deepspeed: dict[str, Any]
    """Merged into the DeepSpeed config; keys that collide with ours are refused."""


class OtherTrainerConfig(Strict):
    """A trainer of another model than the policy; what stands under `trainer` and not here is as for the policy."""

    path: str | None
    """The model it starts from, as model.path; null: the one that the policy starts from."""
    num_workers: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: NotNegative
    lr: NotNegative
    warmup_updates: Count
    trainer: dict[str, Any]
    """Other keys of `trainer`, where they differ from the policy's: {zero_stage: 3, betas: [0.9, 0.95]}."""


class CriticConfig(OtherTrainerConfig):
    """Values of states, for algorithms that need them (PPO and its kin). The folder of a reward model (sequence classification)
    brings its head along."""

    head_init: Literal["zero", "normal", "uniform"]
    """Of a value head that the model folder does not bring: 0; deviation 1/sqrt(width + 1); or Open-Reasoner-Zero's uniform
    between -sqrt(5) and sqrt(5)."""


class ReferenceConfig(Strict):
    num_workers: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: NotNegative
    zero_stage: Literal[0, 3]
    """3 when the model does not fit one device."""


class JudgeConfig(Strict):
    """Engines of the run's own for the judges among the rewards: those parts that name no args.url."""

    path: str | None
    """A chat model, as model.path; null: no judge is started."""
    num_workers: Positive
    tensor_parallel_size: Positive
    cpus_per_worker: NotNegative
    gpus_per_worker: NotNegative
    """For the whole engine is this times tensor_parallel_size."""
    dtype: Literal["float32", "bfloat16"]
    max_length: Positive
    """Tokens of a question and its verdict together."""
    engine_args: dict[str, Any]
    """Passed to vLLM; keys that collide with ours are refused."""


class SyncConfig(Strict):
    backend: Literal["auto", "gloo", "nccl"]
    """auto: nccl on cuda (unless trainer and engine share a GPU), gloo on cpu."""
    bucket_mb: AbovePositive
    timeout_s: AbovePositive


class EvalConfig(Strict):
    sets: dict[str, SourceConfig]
    every_steps: Count
    """0: only before the first step (if `before`) and after the last."""
    before: bool
    samples: Positive
    """Replies per problem: avg@k."""
    pass_at: list[Positive]
    temperature: NotNegative
    """0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class SftConfig(Strict):
    """Read by stages of kind `sft` only."""

    batch_size: Positive
    """Sequences per optimiser update."""
    epochs: AbovePositive
    max_length: Positive
    init: Literal["pretrained", "random"]
    """random: weights drawn anew from the model's config and the seed (how the built-in base is made)."""


class CheckpointConfig(Strict):
    every_steps: Count
    keep: Positive
    best_metric: str | None
    """A metric key whose best checkpoint is kept as `best`; higher is better."""


class ClusterConfig(Strict):
    address: str | None
    """null: RAY_ADDRESS if set (a submitted job), else a local Ray."""
    num_cpus: AbovePositive | None
    """Of a local Ray; null: what the machine has."""
    placement_timeout_s: AbovePositive
    max_restarts: Count
    """Restarts (of a worker, or of all those lost together) without a new step in between, before the next loss ends the run."""
    heartbeat_s: AbovePositive
    """Between two heartbeats of a worker; one that misses three in a row is killed and started again."""
    watchdog_s: AbovePositive
    """When nothing has finished for so long, stacks and queues go to events.jsonl and the console."""
    labels: dict[str, dict[str, str]]
    """{role: {node label: value}}; roles: rollout, judge, reward, reference, trainer, critic, prm."""
    threads_per_worker: Positive | None
    """OMP threads of each engine and trainer; null: cores of the node / workers of the role there."""


class LogConfig(Strict):
    wandb: Literal["auto", "online", "offline", "disabled"]
    """auto: online with WANDB_API_KEY, else offline."""
    wandb_project: str
    tensorboard: bool
    rollouts_every_steps: Count
    report_every_steps: Count


class StageConfig(Strict):
    kind: Literal["rl", "sft", "eval"]
    after: str | None = None
    """The stage whose checkpoint this one starts from; null: model.path."""
    config: dict[str, Any] = {}
    """A fragment of this same tree, laid over it for this stage."""


class Config(Strict):
    name: NotEmpty
    run_dir: NotEmpty
    seed: Seed
    steps: Positive
    """Loop passes of an rl stage."""
    check: bool
    """Only check the configuration; needs no network, Ray or GPU."""
    resume: Literal["auto", "never"]
    deterministic: bool
    """Two runs on the same machines are the same to the last bit, and so is one that was killed and resumed. Slower: engines wait
    for each other."""
    fault: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    """Injuries on purpose, to see the run survive them: `rollout-1:kill@3` or a list of such (`r1ray.run.fault`)."""
    device: Literal["cpu", "cuda"]
    algo: AlgoConfig
    model: ModelConfig
    data: DataConfig
    reward: RewardConfig
    sandbox: SandboxConfig
    rollout: RolloutConfig
    trainer: TrainerConfig
    critic: CriticConfig
    prm: OtherTrainerConfig
    reference: ReferenceConfig
    judge: JudgeConfig
    sync: SyncConfig
    eval: EvalConfig
    sft: SftConfig
    checkpoint: CheckpointConfig
    cluster: ClusterConfig
    log: LogConfig
    stages: dict[str, StageConfig]
