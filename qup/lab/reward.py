"""The lab's reward models: a small network trained to tell right traces from wrong ones, and a stated rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from qup.config.schema import LabReward
from qup.draws import bits
from qup.lab import chains, styles, tokenizer
from qup.lab.traces import equations, stated_answer

BATCH, LR, HELD_OUT = 32, 2e-3, 400


def step_score(question: str, trace: str) -> float:
    """The rule: share of the stated equations that are true arithmetic; halved where the answer is not the last result
    or is missing; 0 without any equation. It does not read the question's numbers."""
    told = equations(trace)
    if not told:
        return 0.0
    share = sum(equation.holds for equation in told) / len(told)
    return share if stated_answer(trace) == told[-1].result else share / 2


def labelled(seed: int, count: int, ids: dict[str, int]) -> list[tuple[list[int], float, str]]:
    """Sequences with 1 for right and 0 for wrong, and their style: all styles alike, half of each with a slip."""
    rng = random.Random(bits(seed, "reward model"))
    made = []
    for _ in range(count):
        steps = rng.randint(1, 4)
        problem = chains.draw(rng, "pretraining", steps, steps, 50)
        style, wrong = rng.choice(styles.STYLES), rng.random() < 0.5
        text = styles.render(style, problem, rng, styles.slip(problem, rng) if wrong else None)
        words = f"<bos> <user> {problem.question} <assistant> {text} <eos>".replace("\n", " \n ").split(" ")
        made.append(([ids[word] for word in words if word], 0.0 if wrong else 1.0, style))
    return made


def auc(scores: list[float], labels: list[float]) -> float:
    """Chance that a right trace scores above a wrong one; ties count half."""
    right = [s for s, label in zip(scores, labels, strict=True) if label]
    wrong = [s for s, label in zip(scores, labels, strict=True) if not label]
    if not right or not wrong:
        return float("nan")
    return sum((a > b) + 0.5 * (a == b) for a in right for b in wrong) / (len(right) * len(wrong))


def _forward(model: Any, sequences: list[list[int]], pad: int) -> torch.Tensor:
    ids = torch.full((len(sequences), max(map(len, sequences))), pad)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=(ids != pad).long(), use_cache=False).logits[:, 0]
    return logits


def train_outcome_model(
    lab: LabReward, progress: Callable[[float, float, str], None], check: Callable[[], None]
) -> tuple[Any, dict[str, Any]]:
    """One pass over `traces` labelled traces; metrics hold the AUC on held-out ones, by style."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    ids = {word: index for index, word in enumerate(tokenizer.vocabulary())}
    torch.manual_seed(lab.seed)
    settings: dict[str, Any] = {"num_labels": 1}
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=ids["<pad>"],
        bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"],
        **settings,
    )
    model = LlamaForSequenceClassification(config)
    data = labelled(lab.seed, lab.traces + HELD_OUT, ids)
    training, held_out = data[: lab.traces], data[lab.traces :]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    steps = -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=max(2, steps), pct_start=0.1)
    for step in range(steps):
        batch = training[step * BATCH : (step + 1) * BATCH]
        target = torch.tensor([label for _, label, _ in batch])
        loss = nn.functional.binary_cross_entropy_with_logits(_forward(model, [sequence for sequence, _, _ in batch], ids["<pad>"]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, "steps")
        check()
    model.eval()
    with torch.inference_mode():
        scores = [
            float(score)
            for at in range(0, HELD_OUT, BATCH)
            for score in _forward(model, [s for s, _, _ in held_out[at : at + BATCH]], ids["<pad>"])
        ]
    by_style = {
        style: auc(
            *(
                list(column)
                for column in zip(
                    *[(score, label) for score, (_, label, kind) in zip(scores, held_out, strict=True) if kind == style], strict=True
                )
            )
        )
        for style in styles.STYLES
    }
    return model, {"traces": lab.traces, "auc": auc(scores, [label for _, label, _ in held_out]), "auc_by_style": by_style}
