"""Every setting of qup, typed: one frozen dataclass a config group.

`opt` carries what a type cannot say: the help line, the valid range or choices, and whether the
setting is `runtime`, that is, changes where or how fast a result is computed but not the result
(runtime settings never enter a key). The config reference in docs/ is generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

EXTRACTIONS = ("dft", "boxed", "last_number", "gsm8k", "lab")
GOLDS = ("plain", "boxed", "gsm8k", "float", "first", "lab")
TEMPLATES = ("tokenizer", "qwen_boxed", "qwen25_math_cot", "plain_boxed", "final_answer", "lab", "lab_sequential", "lab_symbolic")
BACKENDS = ("transformers", "vllm", "openai")
STREAMS = {
    "slm_rft": ("student", "none"),
    "oracle_refined": ("student", "refine"),
    "oracle_synthesized": ("oracle", "none"),
    "style_aligned": ("student", "style_aligned"),
    "numina_subset": ("dataset", "none"),
}
POOLS = ("student", "oracle", "dataset", "file")
REFINEMENTS = ("none", "refine", "style_aligned")
SELECTIONS = ("random", "shortest", "reward", "perplexity", "rank_surprisal", "joint", "pareto")


def opt(
    default: Any,
    help: str,
    *,
    choices: tuple[Any, ...] | None = None,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    runtime: bool = False,
) -> Any:
    """A field with its help line and what `validate` checks; mutable defaults are copied per instance."""
    metadata = {"help": help, "choices": choices, "above": above, "at_least": at_least, "at_most": at_most, "runtime": runtime}
    if isinstance(default, list | dict | set):
        return field(default_factory=partial(type(default), default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(cls: type, help: str, *, runtime: bool = False) -> Any:
    """A nested group of settings."""
    return field(default_factory=cls, metadata={"help": help, "runtime": runtime})


@dataclass(frozen=True)
class LabProblems:
    """The generator of the embedded world's word problems."""

    n: int = opt(400, "how many problems", at_least=1)
    seed: int = opt(1, "seed of the generator; benchmarks use others, and share no problem with it")
    min_steps: int = opt(2, "fewest reasoning steps", at_least=1, at_most=6)
    max_steps: int = opt(3, "most reasoning steps", at_least=1, at_most=6)
    max_value: int = opt(50, "no intermediate result exceeds this", at_least=20, at_most=50)


@dataclass(frozen=True)
class LabStudent:
    """A student pretrained inside the lab."""

    exposure: float = opt(0.1, "share of pretraining traces written in the Oracle's styles", at_least=0, at_most=1)
    seed: int = opt(0, "seed of initial weights and pretraining data")
    steps: int = opt(1200, "length of pretraining, in optimizer steps of 100-token traces; other exposures get as many tokens", at_least=1)
    batch_size: int = opt(8, "traces a pretraining step", at_least=1)
    hidden: int = opt(64, "hidden size", at_least=8)
    layers: int = opt(4, "number of layers", at_least=1)
    heads: int = opt(2, "attention heads", at_least=1)
    noise: float = opt(0.05, "share of pretraining traces with a slip in them", at_least=0, at_most=1)


@dataclass(frozen=True)
class LabOracle:
    """How the programmed Oracle behaves."""

    error_rate: float = opt(0.05, "share of its answers that are wrong at the first attempt", at_least=0, at_most=1)
    refuse_rate: float = opt(0.01, "share of its answers that are refusals", at_least=0, at_most=1)
    latency_s: float = opt(0.0, "seconds it takes to answer", at_least=0, runtime=True)


@dataclass(frozen=True)
class LabReward:
    """The lab's reward models: a trained outcome model, or a stated step checker."""

    kind: str = opt(
        "outcome",
        "outcome: a small network trained on labelled traces; steps: a rule that parses `a op b = r`",
        choices=("outcome", "steps"),
    )
    seed: int = opt(0, "seed of its training")
    traces: int = opt(12000, "labelled traces it is trained on", at_least=10)
    steps: int = opt(1200, "pretraining of the language model that it starts from, in steps of 8 traces of 100 tokens", at_least=1)


@dataclass(frozen=True)
class Benchmark:
    """A file of problems with gold answers: local jsonl/parquet, a hub name, or the lab's generator."""

    path: str = opt("", "local file, or a data set's hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the file or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    subset: str | None = opt(None, "hub configuration name")
    split: str = opt("test", "hub split")
    question: str = opt("question", "column of the problem's text")
    answer: str = opt("answer", "column that holds the gold answer")
    id: str | None = opt(None, "column of the problem's id; row numbers where none")
    gold: str = opt("plain", "how the gold answer is read out of its column", choices=GOLDS)
    extraction: str = opt("dft", "how the answer is read out of a response", choices=EXTRACTIONS)
    limit: int | None = opt(None, "only the first so many problems", at_least=1)
    lab: LabProblems | None = opt(None, "problems made by the lab's generator")


@dataclass(frozen=True)
class Problems:
    """The training problems."""

    name: str = opt("lab", "label of the problem set", runtime=True)
    path: str = opt("", "local jsonl/parquet file, or a data set's hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the file or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    subset: str | None = opt(None, "hub configuration name")
    split: str = opt("train", "hub split")
    question: str = opt("question", "column of the problem's text")
    answer: str = opt("answer", "column that holds the gold answer")
    solution: str | None = opt("solution", "column of the data set's own chain of thought; none where it has none")
    solution_template: str | None = opt(None, "text of the own solution where there is no column; {answer} stands for the gold answer")
    id: str | None = opt(None, "column of the problem's id; row numbers where none")
    gold: str = opt("plain", "how the gold answer is read out of its column", choices=GOLDS)
    limit: int | None = opt(None, "only the first so many problems", at_least=1)
    missing_gold: str = opt(
        "error", "a row without a readable gold answer: an error, or excluded and counted", choices=("error", "exclude")
    )
    decontamination: str = opt(
        "exact", "how overlap with decontaminate_against is removed; none still reports it", choices=("exact", "ngram13", "none")
    )
    decontaminate_against: dict[str, Benchmark] = opt({}, "benchmarks whose problems may not be trained on")
    lab: LabProblems | None = opt(None, "problems made by the lab's generator")


@dataclass(frozen=True)
class Model:
    """A student."""

    name: str = opt("lab_foreign", "label of the student", runtime=True)
    path: str = opt("", "local directory, GGUF file or hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the directory or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    gguf_file: str | None = opt(None, "name of a GGUF file inside path, dequantised on loading")
    trust_remote_code: bool = opt(False, "run code shipped with the model; needs a pinned revision or a local directory")
    dtype: str = opt("float32", "weights in memory for generation and scoring", choices=("float32", "bfloat16"))
    attention: str = opt("sdpa", "attention kernel", choices=("sdpa", "eager", "flash_attention_2"))
    template: str = opt("lab", "chat template and instruction, by name in qup/templates.py", choices=TEMPLATES)
    stop: list[str] = opt([], "stop strings beyond the ids that model, tokenizer and template name")
    context: int | None = opt(None, "positions, prompt and response together; the model's own where none", at_least=8)
    threads: int = opt(1, "CPU threads a process; in the key, because sums depend on it", at_least=1)
    device: str = opt("auto", "auto: the GPU where there is one", choices=("auto", "cpu", "cuda"), runtime=True)
    lab: LabStudent | None = opt(None, "a student pretrained inside the lab")


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn; one class for rollouts and evaluation."""

    n: int = opt(8, "responses a problem", at_least=1)
    temperature: float = opt(1.0, "0 is greedy", at_least=0)
    top_p: float = opt(1.0, "nucleus", above=0, at_most=1)
    top_k: int = opt(0, "0: all tokens", at_least=0)
    min_p: float = opt(0.0, "tokens below this share of the likeliest are left out", at_least=0, at_most=1)
    max_new_tokens: int = opt(4096, "length limit of a response", at_least=1)
    min_new_tokens: int = opt(16, "a prompt that leaves less room in the context is refused", at_least=1)
    seed: int | None = opt(None, "seed of the draws")
    backend: str = opt("transformers", "who generates", choices=BACKENDS)
    base_url: str | None = opt(None, "endpoint of backend=openai")
    served_model: str | None = opt(None, "the model's name at that endpoint")
    api_key_env: str = opt("OPENAI_API_KEY", "environment variable of that endpoint's key", runtime=True)
    rows: int = opt(64, "sequences generated side by side; in the key, because sums depend on it", at_least=1)
    shard_size: int = opt(64, "problems a shard; what a kill can cost", at_least=1)


@dataclass(frozen=True)
class Rollouts:
    """The student's responses to the training problems."""

    sampling: Sampling = section(Sampling, "how they are drawn")
    extraction: str = opt("dft", "how the answer is read out of a response", choices=EXTRACTIONS)
    timeout_s: float = opt(5.0, "seconds a symbolic comparison may take before it counts as wrong", above=0)


@dataclass(frozen=True)
class Source:
    """Where candidate traces come from."""

    name: str = opt("", "student, oracle, dataset, file, or several joined by +; empty: the stream preset says")
    samples: int = opt(1, "answers asked of the Oracle for each problem, with source oracle", at_least=1)
    path: str = opt("", "with source file: jsonl/parquet of traces", runtime=True)
    content: str = opt("", "digest of that file; filled at planning")
    id: str = opt("problem_id", "with source file: column of the problem's id")
    text: str = opt("text", "with source file: column of the trace")
    cleaning: str = opt("light", "named conservative rules on the student's own traces", choices=("light", "none"))


@dataclass(frozen=True)
class Refinement:
    """What the Oracle does to a trace."""

    name: str = opt("", "none, refine or style_aligned; empty: the stream preset says", choices=("", *REFINEMENTS))
    input: str = opt("kept", "kept: the trace slm_rft keeps, before cleaning; all: every verified candidate", choices=("kept", "all"))
    retries: int = opt(2, "further attempts where an answer fails its checks", at_least=0)
    tries: int = opt(1, "answers asked for under accept=perplexity or joint", at_least=1)
    accept: str = opt("first_correct", "which of the verified tries is kept", choices=("first_correct", "perplexity", "joint"))
    margin: float = opt(0.0, "nats a token: an answer this close to the native trace ends the tries", at_least=0)
    weight: float = opt(1.0, "λ of accept=joint", at_least=0)
    reward: str | None = opt(None, "reward model of accept=joint")


@dataclass(frozen=True)
class Alignment:
    """The fixed problem set."""

    on_failure: str = opt(
        "drop",
        "a problem for which an arm has no verified trace: dropped from every arm, kept with the wrong answer flagged, or the native trace",
        choices=("drop", "keep_flagged", "native"),
    )


@dataclass(frozen=True)
class Selection:
    """Which of a problem's candidates enters the stream."""

    name: str = opt("random", "the rule", choices=SELECTIONS)
    seed: int | None = opt(None, "seed of the draw")
    reward: str | None = opt(None, "reward model read by reward, joint, pareto")
    weight: float = opt(1.0, "λ of joint: weight of the NLL term", at_least=0)


@dataclass(frozen=True)
class Stream:
    """A named arm; `source` and `refinement` are what the name stands for."""

    name: str = opt("", "name of the arm; derived where empty")
    source: str = opt("", "the preset's source")
    refinement: str = opt("", "the preset's refinement")


@dataclass(frozen=True)
class Oracle:
    """A stronger model behind an interface: programmed, recorded, or any OpenAI-compatible endpoint. Also the judge."""

    name: str = opt("none", "label of the Oracle")
    backend: str = opt("none", "who answers", choices=("none", "lab", "recorded", "openai", "vllm"))
    model: str = opt("", "model name at the endpoint, or the path that vllm serves")
    revision: str | None = opt(None, "hub commit of the model that vllm serves")
    base_url: str | None = opt(None, "endpoint; the provider's default where none")
    api_key_env: str = opt("OPENAI_API_KEY", "environment variable that holds the key", runtime=True)
    mode: str = opt("chat", "chat completions, or the batch API", choices=("chat", "batch"), runtime=True)
    temperature: float | None = opt(None, "sampling temperature; not sent where none", at_least=0)
    max_tokens: int = opt(4096, "length limit of an answer", at_least=1)
    seed: int | None = opt(None, "seed sent along, and of the programmed Oracle")
    path: str = opt("", "backend recorded: jsonl of requests and answers", runtime=True)
    content: str = opt("", "digest of that file; filled at planning")
    prompts: dict[str, str] = opt({}, "files that replace a built-in prompt, by task")
    body: dict[str, Any] = opt({}, "further fields of the request's body")
    rpm: float | None = opt(None, "requests a minute, over all processes of the study", above=0, runtime=True)
    tpm: float | None = opt(None, "tokens a minute, over all processes of the study", above=0, runtime=True)
    concurrency: int = opt(32, "most requests in flight", at_least=1, runtime=True)
    timeout_s: float = opt(600.0, "seconds before a request is given up", above=0, runtime=True)
    max_retries: int = opt(8, "further sends after a transport fault", at_least=0, runtime=True)
    usd_per_million_input: float = opt(0.0, "price of input tokens", at_least=0, runtime=True)
    usd_per_million_output: float = opt(0.0, "price of output tokens", at_least=0, runtime=True)
    shard_size: int = opt(256, "problems a shard", at_least=1, runtime=True)
    lab: LabOracle = section(LabOracle, "backend lab")


@dataclass(frozen=True)
class Reward:
    """A reward model."""

    path: str = opt("", "local directory or hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the directory or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    format: str = opt("lab", "input format", choices=("lab", "qwen25_math_rm", "skywork_v2", "nemotron", "sequence_classification"))
    trust_remote_code: bool = opt(False, "run code shipped with the model; needs a pinned revision or a local directory")
    dtype: str = opt("bfloat16", "weights in memory", choices=("float32", "bfloat16"))
    device: str = opt("auto", "auto: the GPUs where there are some", choices=("auto", "cpu", "cuda"), runtime=True)
    max_length: int = opt(4096, "tokens, prompt and trace; longer traces get no score and are counted", at_least=8)
    batch_tokens: int = opt(16384, "padded tokens a forward pass", at_least=1)
    shard_size: int = opt(1024, "traces a shard", at_least=1)
    threads: int = opt(1, "CPU threads a process", at_least=1)
    backend: str = opt("transformers", "in process, or a vLLM pooling server", choices=("transformers", "vllm"))
    base_url: str | None = opt(None, "backend vllm: address of a running pooling server; where none, the stage starts one", runtime=True)
    lab: LabReward | None = opt(None, "a reward model of the lab")


@dataclass(frozen=True)
class Perplexity:
    """NLL and rank of every response token under the untuned student."""

    batch_tokens: int = opt(8192, "tokens a forward pass", at_least=1)
    shard_size: int = opt(1024, "traces a shard", at_least=1)
    rank_cap: int = opt(100, "ranks are clipped here", at_least=1)
    truncate_at: int = opt(2048, "length of the figure as truncated for training, prompt and response", at_least=8)


@dataclass(frozen=True)
class Retention:
    """How much of the native trace's content an arm keeps, by a judge."""

    sample: int = opt(3543, "problems judged, the same in all arms", at_least=1)
    seed: int | None = opt(None, "seed of that sample and of the shuffles")
    ranking: bool = opt(True, "also rank a problem's arms against each other")


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning."""

    rank: int = opt(16, "rank", at_least=1)
    alpha: float = opt(32.0, "scale", above=0)
    dropout: float = opt(0.0, "dropout inside the adapters", at_least=0, at_most=1)
    targets: list[str] = opt(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "modules that get one")


@dataclass(frozen=True)
class Trainer:
    """One fine-tuning run."""

    objective: str = opt("sft", "the loss, by name in qup/training/objectives.py", choices=("sft", "dft"))
    lr: float = opt(5e-5, "peak learning rate", above=0)
    batch_size: int = opt(256, "examples an optimizer step, over all ranks", at_least=1)
    epochs: int = opt(1, "passes over the stream", at_least=1)
    max_steps: int | None = opt(None, "stop after so many optimizer steps", at_least=1)
    drop_last: bool = opt(False, "leave out the last incomplete batch, as the DFT recipe does")
    schedule: str = opt("cosine", "learning rate over the steps", choices=("cosine", "linear", "constant"))
    warmup_ratio: float = opt(0.1, "share of the steps that warm up", at_least=0, at_most=1)
    betas: list[float] = opt([0.9, 0.95], "AdamW's betas")
    eps: float = opt(1e-8, "AdamW's epsilon", above=0)
    weight_decay: float = opt(0.01, "AdamW's weight decay", at_least=0)
    decay_all: bool = opt(True, "decay every parameter, as the DFT recipe does; false leaves norms and biases out")
    clip: float = opt(1.0, "gradient norm limit; 0: none", at_least=0)
    dtype: str = opt("bfloat16", "computation and weights", choices=("float32", "bfloat16"))
    max_length: int = opt(2048, "tokens of prompt and response; longer examples are cut on the right, and counted", at_least=8)
    max_dropped: float = opt(0.01, "largest share of examples with no response token left after the cut", at_least=0, at_most=1)
    normalisation: str = opt(
        "global",
        "the loss's divisor: the step's tokens, each micro-batch's mean, or as the DFT authors' code",
        choices=("global", "micro_batch", "dft_repo"),
    )
    micro_batch: int | str = opt("auto", "rows a forward pass and rank; auto: the largest that fits")
    packing: bool = opt(True, "several examples a row, without seeing each other")
    row_tokens: int | None = opt(None, "length of a packed row; chosen per step where none", at_least=8)
    activation_checkpointing: bool = opt(False, "recompute activations in the backward pass")
    attention: str = opt(
        "auto",
        "attention kernel; auto: flash_attention_2 where GPU, dtype, package and model have it, else model.attention",
        choices=("auto", "sdpa", "eager", "flash_attention_2"),
        runtime=True,
    )
    compile: bool = opt(False, "torch.compile the model body")
    liger: bool = opt(False, "Liger kernels, on GPUs")
    lora: Lora | None = opt(None, "low-rank adapters in place of full fine-tuning")
    dropout: float = opt(0.0, "attention dropout", at_least=0, at_most=1)
    seed: int | None = opt(None, "seed of data order and dropout")
    evaluate_at: list[float] = opt([], "shares of the run after which weights are kept and evaluated too")
    checkpoint_minutes: float = opt(15.0, "minutes between checkpoints", above=0, runtime=True)
    checkpoint_steps: int | None = opt(None, "steps between checkpoints, beside the minutes", at_least=1, runtime=True)
    timeout_s: float = opt(45.0, "seconds after which a silent rank counts as dead", above=0, runtime=True)


@dataclass(frozen=True)
class Zero:
    """DeepSpeed ZeRO. It moves memory about and changes results by rounding only, so it is no part of a key."""

    stage: int = opt(1, "ZeRO stage", choices=(0, 1, 2, 3), runtime=True)
    offload: bool = opt(False, "optimizer and parameters in CPU memory (stage 3)", runtime=True)


@dataclass(frozen=True)
class Evaluation:
    """How utility is measured."""

    sampling: Sampling = section(Sampling, "how responses are drawn; n is the k of Avg@k")
    benchmarks: dict[str, Benchmark] = opt({}, "what is solved")
    dev: dict[str, int] = opt({}, "benchmark → its first so many problems, for choosing hyper-parameters; kept apart from what is reported")
    timeout_s: float = opt(5.0, "seconds a symbolic comparison may take before it counts as wrong", above=0)


@dataclass(frozen=True)
class Tracking:
    """Where runs are logged beside the store."""

    name: str = opt("none", "who tracks", choices=("none", "wandb"))
    project: str = opt("qup", "W&B project")
    entity: str | None = opt(None, "W&B entity")
    mode: str = opt("auto", "auto: online where there is a key, else offline", choices=("auto", "online", "offline"))
    tags: list[str] = opt([], "tags on every run")
    artifacts: bool = opt(False, "log data and models as references")


@dataclass(frozen=True)
class Resources:
    """What one stage kind asks for."""

    partition: str | None = opt(None, "SLURM partition")
    account: str | None = opt(None, "SLURM account")
    qos: str | None = opt(None, "SLURM quality of service")
    constraint: str | None = opt(None, "SLURM node features")
    nodes: int = opt(1, "nodes", at_least=1)
    gpus: str = opt("0", "GPUs a node: a number, or type:number")
    tasks: int = opt(1, "tasks a node", at_least=1)
    cpus: int = opt(1, "cores a task", at_least=1)
    mem: str = opt("2G", "memory a node")
    time: str = opt("1:00:00", "time limit: minutes, or [days-]hours:minutes:seconds")
    exclude: str | None = opt(None, "nodes to stay away from")
    reservation: str | None = opt(None, "SLURM reservation")
    extra: dict[str, str] = opt({}, "further sbatch parameters, long names without dashes")
    setup: list[str] = opt([], "shell lines run before the stage")
    where: str = opt("job", "job: in a SLURM job; here: on the machine that launches", choices=("job", "here"))
    workers: int = opt(1, "array tasks that share a sharded stage", at_least=1)


@dataclass(frozen=True)
class Cluster:
    """Resources by stage kind, and how the grid is handed to SLURM. Changes no result."""

    name: str = opt("local", "label")
    problems: Resources = section(Resources, "reading and decontaminating problems")
    student: Resources = section(Resources, "pretraining of a lab student")
    reward_model: Resources = section(Resources, "training of the lab's outcome reward model")
    rollouts: Resources = section(Resources, "the student's responses")
    solvable: Resources = section(Resources, "the fixed problem set")
    oracle: Resources = section(Resources, "stages that call the Oracle")
    streams: Resources = section(Resources, "candidates without an Oracle, alignment, selection")
    reward: Resources = section(Resources, "reward scores")
    perplexity: Resources = section(Resources, "NLL and rank of every token")
    retention: Resources = section(Resources, "the judge")
    train: Resources = section(Resources, "fine-tuning")
    evaluate: Resources = section(Resources, "benchmarks")
    report: Resources = section(Resources, "the report")
    driver: Resources = section(Resources, "the job that submits the rest of a grid above max_jobs")
    max_jobs: int = opt(1000, "above this a driver job submits the rest", at_least=1)
    nodes_submit: bool = opt(True, "whether a job may call sbatch, for the driver of grids above max_jobs")
    max_requeues: int = opt(5, "times a preempted or timed-out stage goes back into the queue", at_least=0)
    max_parallel: int | None = opt(None, "local launcher: most stages at once; by cores and memory where none", at_least=1)
    warn_s: int = opt(120, "seconds before the time limit at which a stage is told to save", at_least=1)


@dataclass(frozen=True)
class Store:
    """Where artifacts live."""

    dir: str = opt("store", "directory; nodes must see it")
    keep_weights: str = opt("all", "fine-tuned weights after their evaluation", choices=("all", "best", "none"))
    lease_s: float = opt(60.0, "seconds without a heartbeat after which a claim counts as abandoned", above=0)


@dataclass(frozen=True)
class Verdict:
    """The written rule by which the report decides."""

    reward: str | None = opt(None, "reward model named beforehand; the first configured where none")
    baseline: str = opt("slm_rft", "arm that the others are compared with")
    margin: float = opt(1.0, "points of Avg@k within which arms count as equal", above=0)


@dataclass(frozen=True)
class Study:
    """One grid under one name."""

    name: str | None = opt(
        None, "name of the study: the experiment's (with -cell behind it, where it has a grid and -m is left out), else the date"
    )
    dir: str = opt("multirun", "where studies are presented")
    seed: int | None = opt(None, "sets every seed")
    grids: list[dict[str, Any]] = opt([], "products of overrides, united; each maps a key to a comma-separated sweep")
    dry_run: bool = opt(False, "print and write the plan, run nothing")
    extend: bool = opt(False, "add this grid to the study of that name")
    wait: bool = opt(False, "SLURM: stay until the study ends")
    code: str = opt("frozen", "SLURM: run a snapshot of the code, or whatever is there when a job starts", choices=("frozen", "live"))
    other_code: str = opt("warn", "a stored artifact made by other code of the same version", choices=("warn", "refuse", "recompute"))
    max_gpu_hours: float | None = opt(None, "refuse to start above this", at_least=0)
    max_oracle_usd: float | None = opt(None, "refuse to start above this, and stop an Oracle stage at its share", at_least=0)
    rehearse: int | None = opt(None, "run the same graph on so many problems first", at_least=1)
    plain: bool = opt(False, "plain progress lines also on a terminal")


@dataclass(frozen=True)
class Config:
    """One cell: everything that decides one row of the table, and how it is run."""

    problems: Problems = section(Problems, "the training problems")
    model: Model = section(Model, "the student")
    rollouts: Rollouts = section(Rollouts, "the student's responses to them")
    source: Source = section(Source, "where candidate traces come from")
    refinement: Refinement = section(Refinement, "what the Oracle does to them")
    alignment: Alignment = section(Alignment, "the fixed problem set")
    selection: Selection = section(Selection, "which candidate enters the stream")
    stream: Stream = section(Stream, "a named arm")
    oracle: Oracle = section(Oracle, "the stronger model")
    judge: Oracle = section(Oracle, "who judges retention")
    retention: Retention = section(Retention, "what is judged")
    reward: dict[str, Reward] = opt({}, "reward models, by name")
    perplexity: Perplexity = section(Perplexity, "NLL and rank under the untuned student")
    trainer: Trainer = section(Trainer, "fine-tuning")
    zero: Zero = section(Zero, "DeepSpeed ZeRO", runtime=True)
    evaluation: Evaluation = section(Evaluation, "how utility is measured")
    tracking: Tracking = section(Tracking, "where runs are logged", runtime=True)
    cluster: Cluster = section(Cluster, "resources", runtime=True)
    store: Store = section(Store, "where artifacts live", runtime=True)
    study: Study = section(Study, "the grid", runtime=True)
    verdict: Verdict = section(Verdict, "how the report decides", runtime=True)
    seed: int | None = opt(None, "sets the trainer's and the evaluation's seeds; the column `seed`")
