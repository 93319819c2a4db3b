"""Pretraining of a lab student: a Llama of about 0.2M weights on wordy, sometimes wrong traces.

Runs are compared at equal tokens: a run ends after steps × batch_size × 100 tokens, whatever the share of short
Oracle-style traces (the exposure). Two things make it learn within a minute or two on one core: Muon on the matrices,
and number tokens that start from periodic features of their value, so that arithmetic need not be found from scratch.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qup.config.schema import LabStudent
from qup.draws import bits
from qup.files import writing
from qup.lab import chains, styles, tokenizer

NOMINAL_TOKENS = 100
"""Tokens of an average native trace with its problem."""
LENGTHS = {1: 0.15, 2: 0.4, 3: 0.35, 4: 0.1}
"""Shares of problems by number of steps."""
TEXTBOOK = 0.1
"""Share of textbook solutions among the traces that are not in the Oracle's styles."""
POOL = 8
"""Batches whose traces are sorted by length together."""
MUON_LR, ADAM_LR, WARMUP = 0.006, 3e-3, 0.02
PERIODS = (2, 5, 10, 20, 50, 100, 200, 400)
CHECKPOINT_S = 10.0


def trace(lab: LabStudent, rng: random.Random, ids: dict[str, int]) -> list[int]:
    """One pretraining sequence: problem, trace, end."""
    steps = draw_length(rng)
    problem = chains.draw(rng, "pretraining", steps, steps, 50)
    drawn = rng.random()
    if drawn < lab.exposure:
        style = rng.choice(styles.ORACLE_STYLES)
    else:
        style = "textbook" if rng.random() < TEXTBOOK else "native"
    work = styles.slip(problem, rng) if rng.random() < lab.noise else None
    return tokens_of(problem, styles.render(style, problem, rng, work), ids)


def draw_length(rng: random.Random) -> int:
    """Steps of a problem, by LENGTHS."""
    return rng.choices(list(LENGTHS), list(LENGTHS.values()))[0]


def tokens_of(problem: chains.Problem, response: str, ids: dict[str, int]) -> list[int]:
    """The sequence of a problem with its response."""
    text = f"<bos> <user> {problem.question} <assistant> {response} <eos>"
    return [ids[word] for word in text.replace("\n", " \n ").split(" ") if word]


def pool(lab: LabStudent, index: int, ids: dict[str, int]) -> list[list[list[int]]]:
    """The `index`-th group of batches, a function of seed and index alone."""
    rng = random.Random(bits(lab.seed, "pretraining", index))
    traces = sorted((trace(lab, rng, ids) for _ in range(POOL * lab.batch_size)), key=len)
    batches = [traces[at : at + lab.batch_size] for at in range(0, len(traces), lab.batch_size)]
    rng.shuffle(batches)
    return batches


def new_model(lab: LabStudent, ids: dict[str, int]) -> Any:
    """Initial weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(lab.seed)
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=lab.hidden,
        intermediate_size=round(lab.hidden * 2.6875),
        num_hidden_layers=lab.layers,
        num_attention_heads=lab.heads,
        num_key_value_heads=lab.heads,
        max_position_embeddings=tokenizer.MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=ids["<pad>"],
        bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"],
    )
    model = LlamaForCausalLM(config)
    number = torch.arange(styles.LARGEST + 1).float()
    waves = [wave(2 * math.pi * number / period) for period in PERIODS for wave in (torch.cos, torch.sin)]
    width = min(len(waves), lab.hidden)
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(lab.hidden, width))[0]
        rows = [ids[str(value)] for value in range(styles.LARGEST + 1)]
        model.model.embed_tokens.weight[rows] += 0.5 * torch.stack(waves[:width], 1) @ basis.T
    return model


def loss_of(model: Any, batch: list[list[int]], pad: int) -> Tensor:
    """Mean cross-entropy over the whole sequences."""
    longest = max(map(len, batch))
    ids = torch.full((len(batch), longest), pad)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    target = ids[:, 1:]
    real = target != pad
    return nn.functional.cross_entropy(model.lm_head(hidden[real]), target[real])


def optimizers(model: Any, muon_lr: float, adam_lr: float) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    ends = ("embed", "lm_head", "score")
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and not any(end in name for end in ends)]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in model.parameters() if id(weight) not in chosen]
    muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)


def rate_at(share: float, warmup: float) -> float:
    """Learning rate over its peak after a share of the run: linear warm-up, cosine to nothing."""
    return min(1.0, (share + 1e-3) / warmup) * 0.5 * (1 + math.cos(math.pi * share))


def pretrain(
    lab: LabStudent, work: Path, progress: Callable[[float, float, str], None], check: Callable[[], None]
) -> tuple[Any, dict[str, Any]]:
    """The student and its figures; goes on from a checkpoint in `work`, to the same weights as without a break."""
    ids = {word: index for index, word in enumerate(tokenizer.vocabulary())}
    model = new_model(lab, ids)
    muon, adam = optimizers(model, MUON_LR, ADAM_LR)
    budget = lab.steps * lab.batch_size * NOMINAL_TOKENS
    state: dict[str, Any] = {"step": 0, "tokens": 0, "losses": []}
    path = work / "pretraining.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        muon.load_state_dict(saved["muon"])
        adam.load_state_dict(saved["adam"])
        state = saved["state"]
    saved_at = time.monotonic()
    batches: list[list[list[int]]] = []
    batches_of = -1
    while state["tokens"] < budget:
        index, within = divmod(state["step"], POOL)
        if index != batches_of:
            batches, batches_of = pool(lab, index, ids), index
        batch = batches[within]
        share = state["tokens"] / budget
        rate = rate_at(share, WARMUP)
        loss = loss_of(model, batch, ids["<pad>"])
        loss.backward()
        for optimizer, peak in ((muon, MUON_LR), (adam, ADAM_LR)):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad()
        state["step"] += 1
        state["tokens"] += sum(map(len, batch))
        state["losses"] = [*state["losses"][-99:], loss.item()]
        progress(min(state["tokens"], budget), budget, "tokens")
        if time.monotonic() - saved_at > CHECKPOINT_S:
            _save(path, {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "state": state})
            saved_at = time.monotonic()
            check()
    final = sum(state["losses"]) / len(state["losses"])
    return model.eval(), {"steps": state["step"], "tokens": state["tokens"], "final_loss": final, "parameters": model.num_parameters()}


def _save(path: Path, content: dict[str, Any]) -> None:
    with writing(path) as beside:
        torch.save(content, beside)


def save_model(model: Any, directory: Path) -> None:
    """A Hugging Face directory with tokenizer, chat template and stop id."""
    from transformers import GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save(directory)
    if hasattr(model, "lm_head"):
        GenerationConfig(eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id).save_pretrained(directory)
