"""All cheap measures in one pass, against a loop a measure as their authors' code has it; local windows; projected gradients.

    python -m benchmarks.measures [--data DIR] [--traces 8] [--device cuda]

Real traces, SmolLM2-135M and a small random body under 151,936 entries. The peers are re-implementations of the authors'
loops: one trace at a time, logits of all positions, a forward pass for each measure. `nll and rank alone` is the pass as
it was before it gave more. Each way runs in a process of its own: CPU seconds of one thread, and the peak of memory
above the loaded model. On a GPU: Qwen2.5-1.5B's shape with random weights in bfloat16, random traces of the real ones'
lengths, seconds by the wall and bytes by the allocator.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, Check, Measure, conclude, first_rows, need, run
from benchmarks.perplexity import KINDS, encode, load, memory

CAP, TOP = 100, 50
DIMENSIONS = 512
WINDOW = 0.1
WAYS = {
    "smollm2": ("pass", "nll", "loops", "windows", "windows_loop", "half"),
    "wide": ("pass", "nll", "loops"),
    "lab": ("gradients", "gradients_loop"),
}
ON_GPU = "Qwen2.5-1.5B's shape, bfloat16"
NEAR = {"cpu": 1e-5, "cuda": 0.02}
"""How near the sums must be, relative; on a GPU rows of other lengths go through other kernels, in bfloat16."""
REPEATS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="where the real files lie")
    parser.add_argument("--traces", type=int, default=8, help="traces measured")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--child", nargs=4, metavar=("KIND", "WAY", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return 0
    if args.device == "cuda":
        return on_gpu(args)
    measures, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "traces.json"
        encoded = encode(need(args.data / "math_cot_60_rm_scores.jsonl"), args.traces)
        given.write_text(json.dumps(encoded), encoding="utf-8")
        found = {(kind, way): spawn(kind, way, given) for kind, ways in WAYS.items() for way in ways}
    for kind in ("smollm2", "wide"):
        ours, before, peer = (found[kind, way] for way in ("pass", "nll", "loops"))
        what = KINDS[kind]
        measures.append(Measure(f"{what}: all cheap measures, CPU time", "s", ours["seconds"], peer["seconds"], 3.0, "lower"))
        measures.append(Measure(f"{what}: memory", "MB", ours["peak_mb"], peer["peak_mb"], 4.0, "lower"))
        measures.append(
            Measure(f"{what}: against nll and rank alone, at most 1.25 ×", "s", ours["seconds"], before["seconds"], 1 / 1.25, "lower")
        )
        checks.append(equal(what, ours, peer))
        same = ours["nll"] == before["nll"] and ours["rank"] == before["rank"]
        checks.append(Check(f"{what}: NLL and ranks to the byte", same, "equal" if same else "different"))
    ours, peer, one_pass = found["smollm2", "windows"], found["smollm2", "windows_loop"], found["smollm2", "nll"]
    measures.append(Measure("local windows: CPU time", "s", ours["seconds"], peer["seconds"], 1.0, "lower"))
    measures.append(
        Measure("local windows: against nll and rank alone, at most 3 ×", "s", ours["seconds"], one_pass["seconds"], 1 / 3, "lower")
    )
    checks.append(equal("local windows", ours, peer))
    ours, peer = found["lab", "gradients"], found["lab", "gradients_loop"]
    measures.append(
        Measure(f"gradients to {DIMENSIONS} numbers, 1M parameters: CPU time", "s", ours["seconds"], peer["seconds"], 3.0, "lower")
    )
    measures.append(Measure("gradients: memory", "MB", ours["peak_mb"], peer["peak_mb"], 4.0, "lower"))
    exact, half = found["smollm2", "pass"]["values"], found["smollm2", "half"]["values"]
    drift = {name: float(f"{np.max(np.abs(np.array(half[name]) / np.array(exact[name]) - 1)):.2e}") for name in exact}
    lengths = [len(prompt) + len(response) for prompt, response in encoded]
    return conclude(
        "measures", measures, checks, traces=len(encoded), tokens=sum(lengths), longest=max(lengths), repeats=REPEATS, drift_bf16=drift
    )


def on_gpu(args: argparse.Namespace) -> int:
    """The cheap measures and the windows on a GPU."""
    import torch

    measures, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "traces.json"
        encoded = random_traces(need(args.data / "math_cot_60_rm_scores.jsonl"), args.traces)
        given.write_text(json.dumps(encoded), encoding="utf-8")
        ours, before, peer, local = (spawn("qwen", way, given) for way in ("pass", "nll", "loops", "windows"))
    measures.append(Measure(f"{ON_GPU}: all cheap measures", "s", ours["seconds"], peer["seconds"], 3.0, "lower"))
    measures.append(Measure(f"{ON_GPU}: memory", "MB", ours["peak_mb"], peer["peak_mb"], 4.0, "lower"))
    measures.append(Measure("against nll and rank alone, at most 1.25 ×", "s", ours["seconds"], before["seconds"], 1 / 1.25, "lower"))
    measures.append(Measure("local windows: against nll and rank alone", "s", local["seconds"], before["seconds"], 1 / 3, "lower"))
    checks.append(equal(ON_GPU, ours, peer, NEAR["cuda"]))
    tokens = sum(len(prompt) + len(response) for prompt, response in encoded)
    return conclude("measures", measures, checks, traces=len(encoded), tokens=tokens, gpu=torch.cuda.get_device_name(0))


def random_traces(path: Path, n: int) -> list[tuple[list[int], list[int]]]:
    """Random ids, as many as n real prompts and responses have characters by three."""
    draw = np.random.default_rng(0)
    sizes = [(20 + len(row["question"]) // 3, 2 + len(row["code"][0]) // 3) for row in first_rows(path, n)]
    return [(draw.integers(3, 150_000, a).tolist(), draw.integers(3, 150_000, b).tolist()) for a, b in sizes]


def spawn(kind: str, way: str, given: Path) -> dict[str, Any]:
    """Runs one way in a child with one thread; the faster of REPEATS runs."""
    found = []
    for number in range(REPEATS):
        output = given.with_name(f"{kind}-{way}-{number}.json")
        command = [sys.executable, "-m", "benchmarks.measures", "--child", kind, way, str(given), str(output)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        found.append(json.loads(output.read_text(encoding="utf-8")))
    return min(found, key=lambda one: float(one["seconds"]))  # type: ignore[no-any-return]


def equal(what: str, ours: dict[str, Any], peer: dict[str, Any], near: float = NEAR["cpu"]) -> Check:
    """Largest relative difference of any statistic of any trace."""
    gaps = {
        name: max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(ours["values"][name], peer["values"][name], strict=True))
        for name in peer["values"]
    }
    worst = max(gaps, key=lambda name: gaps[name])
    return Check(f"{what}: equal to {near:g}", gaps[worst] <= near, f"{worst} within {gaps[worst]:.1e}")


def child(kind: str, way: str, given: str, output: str) -> None:
    """Measures the traces one way and writes the statistics, CPU seconds and the peak of memory."""
    import torch

    from qup.scoring.nll import Encoded

    torch.set_num_threads(1)
    model = lab() if kind == "lab" else qwen() if kind == "qwen" else load(kind)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    traces = [
        Encoded(tuple(t % vocabulary for t in prompt), tuple(t % vocabulary for t in response), (1, len(prompt) - 1))
        for prompt, response in json.loads(Path(given).read_text(encoding="utf-8"))
    ]
    if kind == "lab":
        traces = [Encoded(trace.prompt_ids[-40:], trace.response_ids[:100]) for trace in traces]
    measure: Callable[[Any], dict[str, Any]] = globals()[way](model)
    measure([Encoded(traces[0].prompt_ids[:8], traces[0].response_ids[:8], (1, 7))])
    if kind == "qwen":
        measure(traces[:4])
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held, began = torch.cuda.memory_allocated(), time.perf_counter()
        found = measure(traces)
        torch.cuda.synchronize()
        seconds, peak = time.perf_counter() - began, (torch.cuda.max_memory_allocated() - held) / 1e6
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        before, start = memory("VmRSS"), time.process_time()
        found = measure(traces)
        seconds, peak = time.process_time() - start, memory("VmHWM") - before
    Path(output).write_text(json.dumps({**found, "seconds": seconds, "peak_mb": peak}), encoding="utf-8")


def qwen() -> Any:
    """Qwen2.5-1.5B's shape on the GPU."""
    from benchmarks.training import QWEN_1_5B
    from benchmarks.training_instruments import model_of

    return model_of({"shape": QWEN_1_5B, "device": "cuda", "dtype": "bfloat16"}).eval()


def lab() -> Any:
    """A body of about a million parameters, of which a dense projection to DIMENSIONS numbers still fits in memory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def summed(scored: Any) -> dict[str, list[float]]:
    """The sums a trace that measures are made of; the stop token left out."""
    return {
        "nll": [float(one.nll_T[:-1].sum(dtype=float)) for one in scored],
        "brier_top": [float(one.brier_top_T[:-1].sum(dtype=float)) for one in scored],
        "question_nll": [one.question_nll for one in scored],
        "aa": [one.aa for one in scored],
        "aq": [one.aq for one in scored],
    }


def of_scorer(scorer: Any, full: bool) -> Callable[[Any], dict[str, Any]]:
    def measure(traces: Any) -> dict[str, Any]:
        scored = scorer.score(traces)
        plain = {"nll": [one.nll_T.tolist() for one in scored], "rank": [one.rank_T.tolist() for one in scored]}
        return {**plain, "values": summed(scored) if full else {}}

    return measure


def _pass(model: Any) -> Callable[[Any], dict[str, Any]]:
    """qup's pass as the stage calls it."""
    from qup.scoring.nll import NllScorer

    return of_scorer(NllScorer(model, batch_tokens=8192, rank_cap=CAP, top=TOP, activation="mlp.up_proj"), True)


def half(model: Any) -> Callable[[Any], dict[str, Any]]:
    """The pass in bf16, its sums in fp32: how far each statistic of a trace drifts."""
    import torch

    return _pass(model.to(torch.bfloat16))


def nll(model: Any) -> Callable[[Any], dict[str, Any]]:
    """The same rows and chunks, NLL and rank alone, by the formula that stood before."""
    import torch

    from qup.scoring import nll as module

    def scores(hidden: Any, head: Any, vocabulary: int, target_T: Any, cap: int, top: int = TOP) -> Any:
        where = hidden.device
        chunk = max(1, module.CHUNK_BYTES[where.type] // (4 * vocabulary))
        nll_T, rank_T = torch.empty(len(target_T), device=where), torch.empty(len(target_T), dtype=torch.int64, device=where)
        for start in range(0, len(target_T), chunk):
            part = slice(start, start + chunk)
            logits = head(hidden[part]).float()
            target = logits.gather(1, target_T[part, None])
            rank_T[part] = (logits > target).sum(1).add_(1).clamp_(max=cap)
            highest = logits.amax(1, keepdim=True)
            total = logits.sub_(highest).exp_().sum(1)
            nll_T[part] = total.log_().sub_((target - highest).squeeze(1))
        return module.TokenScores(nll_T, rank_T, nll_T, nll_T)

    module.token_scores = scores  # type: ignore[assignment]
    plain = module.NllScorer(model, batch_tokens=8192, rank_cap=CAP)

    def measure(traces: Any) -> dict[str, Any]:
        return of_scorer(plain, False)([module.Encoded(trace.prompt_ids, trace.response_ids) for trace in traces])

    return measure


def loops(model: Any) -> Callable[[Any], dict[str, Any]]:
    """A pass over every trace for each of GRAPE, the rank-surprisal ratio, ASLEC, LARK and SCAS, logits of all positions."""
    import torch
    from torch.nn import functional

    kept: list[Any] = []
    model.model.layers[-1].mlp.up_proj.register_forward_hook(lambda _module, _inputs, output: kept.append(output[0]))

    def logits_of(trace: Any) -> tuple[Any, Any, int]:
        kept.clear()
        ids = torch.tensor(trace.prompt_ids + trace.response_ids[:-1], device=model.device)
        return model(input_ids=ids[None], use_cache=False).logits[0].float(), ids, len(trace.prompt_ids)

    def grape(trace: Any) -> float:
        logits, ids, n = logits_of(trace)
        return float(-torch.log_softmax(logits, -1)[n - 1 : -1].gather(1, ids[n:, None]).double().sum())

    def ratio(trace: Any) -> float:
        logits, ids, n = logits_of(trace)
        logprob = torch.log_softmax(logits, -1)[n - 1 : -1]
        own = logprob.gather(1, ids[n:, None])
        return float((logprob > own).sum(1).add(1).clamp(max=CAP).sum() / -own.sum())

    def aslec(trace: Any) -> float:
        logits, ids, n = logits_of(trace)
        return float(-torch.log_softmax(logits, -1)[n - 1 : -1].gather(1, ids[n:, None])[1:].mean())

    def lark(trace: Any) -> float:
        logits, ids, n = logits_of(trace)
        best, index = logits[n - 1 : -1].topk(TOP, dim=-1)
        share = functional.softmax(best, -1)
        hit = (share * (index == ids[n:, None])).sum(-1)
        return float((1 - 2 * hit + (share * share).sum(-1)).double().sum())

    def scas(trace: Any) -> tuple[float, float, float]:
        logits, ids, n = logits_of(trace)
        logprob = torch.log_softmax(logits, -1)
        first, stop = trace.question
        question = -logprob[first - 1 : stop - 1].gather(1, ids[first:stop, None]).double().sum()
        unit = functional.normalize(kept[-1], dim=1)
        answer, asked = unit[n:].mean(0).double(), unit[first:stop].mean(0).double()
        return float(question), float(answer @ answer), float(answer @ asked)

    @torch.inference_mode()
    def measure(traces: Any) -> dict[str, Any]:
        values: dict[str, list[float]] = {name: [] for name in ("nll", "brier_top", "question_nll", "aa", "aq")}
        for trace in traces:
            values["nll"].append(grape(trace))
        for trace in traces:
            ratio(trace)
        for trace in traces:
            aslec(trace)
        for trace in traces:
            values["brier_top"].append(lark(trace))
        for trace in traces:
            for name, value in zip(("question_nll", "aa", "aq"), scas(trace), strict=True):
                values[name].append(value)
        return {"values": values}

    return measure


def steps_of(trace: Any) -> np.ndarray:
    """A step every 25 tokens, about a sentence."""
    return np.arange(0, max(len(trace.response_ids) - 1, 1), 25)


def windows(model: Any) -> Callable[[Any], dict[str, Any]]:
    """qup's windows, many a row."""
    from qup.measures.lalp import value
    from qup.scoring.windows import WindowScorer

    scorer = WindowScorer(model, batch_tokens=8192)

    def measure(traces: Any) -> dict[str, Any]:
        return {"values": {"lalp": [value(steps) for steps in scorer.score(traces, [steps_of(trace) for trace in traces], WINDOW)]}}

    return measure


def windows_loop(model: Any) -> Callable[[Any], dict[str, Any]]:
    """A forward pass a step over prompt, window and step."""
    import torch

    from qup.measures.lalp import seen, value

    @torch.inference_mode()
    def measure(traces: Any) -> dict[str, Any]:
        found = []
        for trace in traces:
            bounds = [*steps_of(trace).tolist(), len(trace.response_ids) - 1]
            steps = []
            for step in range(len(bounds) - 1):
                before = trace.prompt_ids + trace.response_ids[bounds[step - seen(step, WINDOW)] : bounds[step]]
                own = trace.response_ids[bounds[step] : bounds[step + 1]]
                logits = model(input_ids=torch.tensor([before + own]), use_cache=False).logits[0].float()
                logprob = torch.log_softmax(logits, -1)[len(before) - 1 : -1]
                steps.append(-logprob.gather(1, torch.tensor(own)[:, None])[:, 0].numpy())
            found.append(value(steps))
        return {"values": {"lalp": found}}

    return measure


def gradients(model: Any) -> Callable[[Any], dict[str, Any]]:
    """qup's hashed signs."""
    from qup.scoring.gradients import GradientScorer

    scorer = GradientScorer(model, dimensions=DIMENSIONS, seed=0)
    return lambda traces: {"values": {"norm": [float(np.linalg.norm(scorer.gradient(trace))) for trace in traces]}}


def gradients_loop(model: Any) -> Callable[[Any], dict[str, Any]]:
    """A dense matrix of random signs, made anew by columns for every gradient, as the CPU projector of the authors' library does."""
    import torch

    size = sum(parameter.numel() for parameter in model.parameters())

    def measure(traces: Any) -> dict[str, Any]:
        found = []
        for trace in traces:
            ids = torch.tensor([trace.prompt_ids + trace.response_ids[:-1]])
            labels = ids.clone()
            labels[0, : len(trace.prompt_ids)] = -100
            model.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
            generator = torch.Generator().manual_seed(0)
            parts = []
            for _ in range(0, DIMENSIONS, 128):
                signs = torch.randint(0, 2, (size, 128), generator=generator, dtype=torch.int8).float().mul_(2).sub_(1)
                parts.append(flat @ signs)
            found.append(float(torch.cat(parts).norm() / size**0.5))
        return {"values": {"norm": found}}

    return measure


globals()["pass"] = _pass

if __name__ == "__main__":
    run(main)
