"""The lab's reward models: a small network trained to tell right traces from wrong ones, and a stated rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qup.config.schema import LabReward, LabStudent
from qup.draws import bits
from qup.lab import chains, student, styles, tokenizer
from qup.lab.traces import equations, stated_answer

BATCH, HELD_OUT = 16, 400
BODY = {"exposure": 0.6, "layers": 3, "noise": 0.0}
"""The language model that it starts from: every style is well known to it, and its traces are right."""
MUON_LR, ADAM_LR, WARMUP = 0.012, 0.006, 0.02
LANGUAGE = 0.2
"""Weight of the language-model loss on right traces beside the labels' (Cobbe et al., arXiv 2110.14168)."""
POOL = 8
"""Batches whose traces are sorted by length together."""


@dataclass(frozen=True)
class Labelled:
    tokens: tuple[int, ...]
    right: bool
    style: str
    mistake: int
    """Position of the first token that a right trace would not have; the length where there is none."""


def step_score(question: str, trace: str) -> float:
    """The rule: share of the stated equations that are true arithmetic; halved where the answer is not the last result
    or is missing; 0 without any equation. It does not read the question's numbers."""
    told = equations(trace)
    if not told:
        return 0.0
    share = sum(equation.holds for equation in told) / len(told)
    return share if stated_answer(trace) == told[-1].result else share / 2


def labelled(seed: int, count: int, ids: dict[str, int]) -> list[Labelled]:
    """Problems of one to four steps in all styles alike, half of the traces with a slip."""
    rng = random.Random(bits(seed, "reward model"))
    made = []
    for _ in range(count):
        steps = student.draw_length(rng)
        problem = chains.draw(rng, "pretraining", steps, steps, 50)
        style, slips, wording = rng.choice(styles.STYLES), rng.random() < 0.5, rng.random()
        right = student.tokens_of(problem, styles.render(style, problem, random.Random(wording)), ids)
        tokens = right
        if slips:
            tokens = student.tokens_of(problem, styles.render(style, problem, random.Random(wording), styles.slip(problem, rng)), ids)
        mistake = next((at for at, (ours, theirs) in enumerate(zip(tokens, right, strict=False)) if ours != theirs), len(tokens))
        made.append(Labelled(tuple(tokens), not slips, style, mistake))
    return made


def auc(scores: list[float], labels: list[float]) -> float:
    """Chance that a right trace scores above a wrong one; ties count half."""
    right = [s for s, label in zip(scores, labels, strict=True) if label]
    wrong = [s for s, label in zip(scores, labels, strict=True) if not label]
    if not right or not wrong:
        return float("nan")
    return sum((a > b) + 0.5 * (a == b) for a in right for b in wrong) / (len(right) * len(wrong))


def _score(model: Any, traces: Sequence[Labelled], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids B × T, hidden states B × T × H and the score at every token B × T."""
    ids = torch.full((len(traces), max(len(trace.tokens) for trace in traces)), pad)
    for row, trace in enumerate(traces):
        ids[row, : len(trace.tokens)] = torch.tensor(trace.tokens)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return ids, hidden, model.score(hidden)[..., 0]


def _loss(model: Any, batch: Sequence[Labelled], pad: int, opening: int) -> Tensor:
    """At each token of the response, whether all is right so far; and the next token of right traces."""
    ids, hidden, score = _score(model, batch, pad)
    place = torch.arange(ids.shape[1])
    length = torch.tensor([len(trace.tokens) for trace in batch])[:, None]
    inside = (place > (ids == opening).int().argmax(1)[:, None]) & (place < length)
    so_far = (place < torch.tensor([trace.mistake for trace in batch])[:, None]).float()
    loss = nn.functional.binary_cross_entropy_with_logits(score[inside], so_far[inside])
    told = (place[:-1] < length - 1) & torch.tensor([trace.right for trace in batch])[:, None]
    if told.any():
        logits = hidden[:, :-1][told] @ model.model.embed_tokens.weight.T
        loss = loss + LANGUAGE * nn.functional.cross_entropy(logits, ids[:, 1:][told])
    return loss


def _last_scores(model: Any, traces: Sequence[Labelled], pad: int) -> list[float]:
    scores: list[float] = []
    with torch.inference_mode():
        for at in range(0, len(traces), BATCH):
            part = traces[at : at + BATCH]
            _, _, score = _score(model, part, pad)
            scores += [score[row, len(trace.tokens) - 1].item() for row, trace in enumerate(part)]
    return scores


def train_outcome_model(
    lab: LabReward, work: Path, progress: Callable[[float, float, str], None], check: Callable[[], None]
) -> tuple[Any, dict[str, Any]]:
    """A language model of the lab's traces, then one pass over `traces` labelled ones; its score is the last token's.

    Metrics hold the AUC on held-out traces, over all and by style. Pretraining goes on from its checkpoint in `work`.
    """
    from transformers import LlamaForSequenceClassification

    ids = {word: index for index, word in enumerate(tokenizer.vocabulary())}
    steps = -(-lab.traces // BATCH)

    def pretraining(done: float, total: float, unit: str) -> None:
        progress(done / total * lab.steps, lab.steps + steps, "steps")

    body, _ = student.pretrain(LabStudent(steps=lab.steps, seed=lab.seed, **BODY), work, pretraining, check)  # type: ignore[arg-type]
    torch.manual_seed(lab.seed)
    body.config.num_labels = 1
    model = LlamaForSequenceClassification(body.config)
    model.model.load_state_dict(body.model.state_dict())
    data = labelled(lab.seed, lab.traces + HELD_OUT, ids)
    training, held_out = data[: lab.traces], data[lab.traces :]
    muon, adam = student.optimizers(model, MUON_LR, ADAM_LR)
    for step, batch in enumerate(_batches(training)):
        rate = student.rate_at(step / steps, WARMUP)
        _loss(model, batch, ids["<pad>"], ids["<assistant>"]).backward()
        for optimizer, peak in ((muon, MUON_LR), (adam, ADAM_LR)):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad()
        progress(lab.steps + step + 1, lab.steps + steps, "steps")
        check()
    scores = _last_scores(model.eval(), held_out, ids["<pad>"])
    by_style = {style: _auc_of(scores, held_out, (style,)) for style in styles.STYLES}
    return model, {"traces": lab.traces, "auc": _auc_of(scores, held_out, styles.STYLES), "auc_by_style": by_style}


def _batches(traces: Sequence[Labelled]) -> Iterator[list[Labelled]]:
    """Of like length, in an order of its own."""
    for start in range(0, len(traces), POOL * BATCH):
        pool = sorted(traces[start : start + POOL * BATCH], key=lambda trace: len(trace.tokens))
        batches = [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
        random.Random(start).shuffle(batches)
        yield from batches


def _auc_of(scores: Sequence[float], traces: Sequence[Labelled], chosen: Sequence[str]) -> float:
    pairs = [(score, float(trace.right)) for score, trace in zip(scores, traces, strict=True) if trace.style in chosen]
    return auc([score for score, _ in pairs], [label for _, label in pairs])
