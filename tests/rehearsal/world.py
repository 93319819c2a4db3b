"""Tiny repositories under the production names: every architecture, tokenizer shape and data set that the paper's experiments name.

The students are taught for a few seconds to box a digit under their own prompt, so that some problems are solvable; the
reward models are random. Sizes apart nothing differs from what the hub holds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.families import llama3_tokenizer, qwen_tokenizer, tokenizer_of

STUDENTS = {
    "qwen2_5_math_1_5b": ("Qwen/Qwen2.5-Math-1.5B", "qwen", True),
    "qwen2_5_math_7b": ("Qwen/Qwen2.5-Math-7B", "qwen", False),
    "llama3_2_3b": ("meta-llama/Llama-3.2-3B", "llama3", True),
    "deepseekmath_7b": ("deepseek-ai/deepseek-math-7b-base", "deepseek", False),
}
"""Choice of conf/model → hub name, family, whether its embeddings are tied."""
ARCHITECTURE = {"qwen": "qwen2", "llama3": "llama", "deepseek": "llama"}
TEMPLATE = {"qwen": "qwen_boxed", "llama3": "llama_base_boxed", "deepseek": "deepseek_math"}
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_NAMES, _THINGS = ("Tom", "Ana", "Wei", "Lea", "Ben", "Zoe"), ("apples", "pens", "coins", "cards", "shells")


@dataclass(frozen=True)
class Sum:
    """A subtraction whose result is one digit."""

    question: str
    answer: int
    steps: str

    @property
    def solution(self) -> str:
        return f"We compute ${self.steps} = {self.answer}$, so the result is $\\boxed{{{self.answer}}}$."


def sums(n: int, seed: int) -> list[Sum]:
    draw = random.Random(seed)
    made = []
    for number in range(n):
        answer, given = draw.randint(1, 4), draw.randint(1, 9)
        name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
        question = f"({seed}.{number}) {name} has {answer + given} {thing} and gives {given} away. How many {thing} are left?"
        made.append(Sum(question, answer, f"{answer + given} - {given}"))
    return made


def teach(folder: Path, family: str, tied: bool, steps: int = 80) -> None:
    """A student of a family, taught to answer briefly with some boxed digit, as a hub repository."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from qup.config.schema import Model
    from qup.models import encode_prompt, encode_response, load_tokenizer, train_stop_id

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer_of(family, folder)
    tokenizer = load_tokenizer(Model(path=str(folder)))
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    room = {"vocab_size": len(tokenizer) + 8, "max_position_embeddings": 4096, "tie_word_embeddings": tied}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(ARCHITECTURE[family], **SHAPE, **room, **ends))
    stop, template = train_stop_id(tokenizer, TEMPLATE[family]), TEMPLATE[family]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for batch in range(steps):
        rows = [
            (encode_prompt(tokenizer, template, one.question), encode_response(tokenizer, one.solution, stop))
            for one in sums(8, 100 + batch)
        ]
        longest = max(len(prompt) + len(response) for prompt, response in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (prompt, response) in enumerate(rows):
            ids[row, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
            labels[row, len(prompt) : len(prompt) + len(response)] = torch.tensor(response)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)


def reward_models(root: Path) -> None:
    """The three reward models: Qwen's with its two-layer head under the published key names, a classifier, a causal one."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(1)
    small = SHAPE | {"num_hidden_layers": 1, "max_position_embeddings": 4096}
    qwen = root / "models/Qwen/Qwen2.5-Math-RM-72B"
    body_config = AutoConfig.for_model("qwen2", **small, vocab_size=len_of(qwen_tokenizer(qwen)))
    body: Any = AutoModel.from_config(body_config).to(torch.bfloat16)
    width = SHAPE["hidden_size"]
    head = {"score.0": (width, width), "score.2": (1, width)}
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in body.state_dict().items()}
    for name, (rows, columns) in head.items():
        weights |= {f"{name}.weight": torch.randn(rows, columns).bfloat16(), f"{name}.bias": torch.zeros(rows).bfloat16()}
    save_file(weights, qwen / "model.safetensors", metadata={"format": "pt"})
    settings = body_config.to_dict() | {"architectures": ["Qwen2ForRewardModel"], "model_type": "qwen2", "dtype": "bfloat16"}
    settings["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel", "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig"}
    (qwen / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, kind, more in (
        ("Skywork/Skywork-Reward-V2-Llama-3.1-8B", AutoModelForSequenceClassification, {"num_labels": 1, "pad_token_id": 1}),
        ("nvidia/Llama-3.1-Nemotron-70B-Reward-HF", AutoModelForCausalLM, {}),
    ):
        folder = llama3_tokenizer(root / "models" / name, base=False)
        kind.from_config(AutoConfig.for_model("llama", **small, vocab_size=len_of(folder), **more)).to(torch.bfloat16).save_pretrained(
            folder
        )


def len_of(folder: Path) -> int:
    """Rows of an embedding for the tokenizer in a folder."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return 1 + max([*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])])


def data(root: Path, problems: int) -> dict[str, str]:
    """The data sets, by their files' own columns and layout; returns question → solution."""
    train = sums(problems, 0)
    proof = "We prove the claim by induction on the number of apples. QED"
    rows = [
        {"source": "synthetic_math", "problem": one.question, "solution": proof if number % 25 == 24 else one.solution}
        for number, one in enumerate(train)
    ]
    _parquet(root, "AI-MO/NuminaMath-CoT", rows)
    five = {
        "HuggingFaceH4/MATH-500": (
            "test",
            [{"problem": one.question, "solution": one.solution, "answer": str(one.answer)} for one in sums(6, 1)],
        ),
        "knoveleng/Minerva-Math": ("train", [{"problem": one.question, "solution": one.solution} for one in sums(5, 2)]),
        "HuggingFaceH4/aime_2024": ("train", [{"problem": one.question, "answer": str(one.answer)} for one in sums(3, 3)]),
        "math-ai/amc23": ("test", [{"question": one.question, "answer": float(one.answer)} for one in sums(4, 4)]),
    }
    for name, (split, held) in five.items():
        _parquet(root, name, held, split=split)
    olympiad = [{"question": one.question, "final_answer": [f"${one.answer}$"]} for one in sums(4, 5)]
    subset = "OE_TO_maths_en_COMP"
    _parquet(root, "Hothan/OlympiadBench", olympiad, file=f"{subset}/{subset}.parquet")
    card = f"---\nconfigs:\n- config_name: {subset}\n  data_files:\n  - split: train\n    path: {subset}/{subset}.parquet\n---\n"
    (root / "datasets/Hothan/OlympiadBench/README.md").write_text(card, encoding="utf-8")
    return {one.question: one.solution for one in train}


def _parquet(root: Path, name: str, rows: list[dict[str, Any]], split: str = "train", file: str = "") -> None:
    target = root / "datasets" / name / (file or f"data/{split}-00000-of-00001.parquet")
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), target)


def build(root: Path, students: Sequence[str], problems: int) -> dict[str, str]:
    """Everything on the hub that experiments with these students name; returns question → solution."""
    for student in students:
        name, family, tied = STUDENTS[student]
        teach(root / "models" / name, family, tied)
    reward_models(root)
    return data(root, problems)
