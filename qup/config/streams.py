"""What a cell's stream is drawn from and chosen by, and whether those can do it. Each check yields faults; none raises."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qup.config.keys import one_of
from qup.config.measured import RANKS_BY_MEASURE, READS_MEASURE, READS_REWARD, selected_measure
from qup.config.paths import missing
from qup.config.pools import all_pools, drawn_pools, needs_oracle
from qup.config.schema import POOLS, Config, Oracle
from qup.errors import Fault
from qup.measures import KINDS

ORACLE_TASKS = ("refine", "synthesize", "style_aligned", "cooperate", "judge", "judge_symmetric", "rank")


def stream_faults(cell: Config) -> Iterator[Fault]:
    """Everything about the stream of a cell that has one."""
    yield from _source(cell)
    yield from _refinement(cell)
    yield from _selection(cell)
    for key, oracle in _asked(cell).items():
        yield from _oracle(key, oracle, cell)
    yield from _oracle("judge", cell.judge, cell)


def _asked(cell: Config) -> dict[str, Oracle]:
    """Who is asked for traces, by the key where it stands: one Oracle, several teachers, or nobody."""
    if not needs_oracle(cell):
        return {}
    return {f"teacher.{name}": oracle for name, oracle in cell.teacher.items()} or {"oracle": cell.oracle}


def named_reward(key: str, name: str | None, cell: Config) -> Iterator[Fault]:
    """Whether a reward model of that name is configured."""
    if name is not None and name not in cell.reward:
        yield Fault(key, name, f"is no configured reward model; {one_of(name, cell.reward)}")


def _source(cell: Config) -> Iterator[Fault]:
    source, problems = cell.source, cell.problems
    pools = source.name.split("+")
    for pool in pools:
        if pool not in POOLS:
            yield Fault("source", source.name, f"{pool or 'nothing'} is no source; {one_of(pool, POOLS)}, or several joined by +")
    if len(set(pools)) < len(pools):
        yield Fault("source", source.name, "names a source twice")
    if "file" in pools:
        if not source.path and not source.files:
            yield Fault("source.path", source.path, "is needed with source=file: a jsonl or parquet file of traces")
        for key, path in [("source.path", source.path), *(("source.files", path) for path in source.files)]:
            if path and not re.search(r"[*?\[]", path) and (why := missing(path)):
                yield Fault(key, path, why)
    if "cooperative" in pools:
        yield from _cooperative(cell)
    known = [pool.teacher for pool in all_pools(cell)]
    if source.teacher and "" not in known and source.teacher not in known:
        yield Fault("source.teacher", source.teacher, f"wrote no pool of source={source.name}; {one_of(source.teacher, known)}")
    if "dataset" in pools and problems.lab is None and problems.solution is None and problems.solution_template is None:
        yield Fault("problems.solution", None, "is needed with source=dataset: a column, or problems.solution_template")


def _cooperative(cell: Config) -> Iterator[Fault]:
    """What the two writers have to be able to do: go on with a text that the other began."""
    sampling = cell.rollouts.sampling
    if sampling.backend == "openai":
        yield Fault(
            "rollouts.sampling.backend",
            "openai",
            "a chat endpoint can't go on with the student's half of a trace; transformers or vllm can",
        )
    for key, oracle in _asked(cell).items():
        if oracle.mode == "batch":
            yield Fault(f"{key}.mode", "batch", "source=cooperative asks turn by turn; chat is valid")
        if oracle.backend == "openai" and "api.openai.com" in (oracle.base_url or "api.openai.com"):
            yield Fault(
                f"{key}.base_url",
                oracle.base_url,
                "source=cooperative needs an endpoint that goes on with an assistant's message (continue_final_message: true, add_generation_prompt: false, as vLLM and SGLang "
                f"have it), which api.openai.com does not; give {key}.base_url, or another {key}",
            )
    if cell.source.boundary != "rule" and (why := missing(cell.source.boundary)):
        yield Fault("source.boundary", cell.source.boundary, f"rule, or a token classifier: {why}")


def _refinement(cell: Config) -> Iterator[Fault]:
    refinement = cell.refinement
    for key, oracle in _asked(cell).items():
        if oracle.backend == "none":
            reason = f"refinement={refinement.name}" if refinement.name != "none" else f"source={cell.source.name}"
            yield Fault(key, "none", f"{reason} needs an Oracle: oracle=lab, openai, vllm or recorded")
    if refinement.name == "none":
        return
    if refinement.tries > 1 and refinement.accept == "first_correct":
        yield Fault("refinement.tries", refinement.tries, "needs refinement.accept=perplexity or joint: first_correct takes the first one")
    if refinement.accept == "joint" and refinement.tries > 1:
        if refinement.reward is None:
            yield Fault("refinement.reward", None, f"is needed with accept=joint; {one_of('', cell.reward)}")
        yield from named_reward("refinement.reward", refinement.reward, cell)


def _selection(cell: Config) -> Iterator[Fault]:
    selection = cell.selection
    if selection.name in READS_REWARD:
        if selection.reward is None:
            yield Fault("selection.reward", None, f"is needed with selection={selection.name}; {one_of('', cell.reward)}")
        yield from named_reward("selection.reward", selection.reward, cell)
    yield from _selected_measure(cell)
    if selection.weights == "lark" and selection.name not in RANKS_BY_MEASURE:
        yield Fault("selection.weights", "lark", f"needs a selection by a measure alone: selection={', '.join(RANKS_BY_MEASURE)}")
    elif selection.weights == "lark" and selection.keep == 1:
        yield Fault("selection.weights", "lark", "can't matter with selection.keep=1: a problem's only trace has all of its weight")
    pools = [pool.source for pool in drawn_pools(cell)]
    if (selection.name != "random" or selection.keep > 1) and len(pools) == 1 and _single(cell, pools[0]):
        ways = "source.samples=2 or more, several teachers (teacher=[a,b]), " if pools[0] == "oracle" else ""
        refined = "refinement.input=all, " if cell.refinement.name != "none" else ""
        key, value = ("selection", selection.name) if selection.name != "random" else ("selection.keep", selection.keep)
        yield Fault(
            key,
            value,
            f"can't matter: the pool of {pools[0]} holds one candidate a problem; {ways}{refined}or source=student+oracle",
        )


def _selected_measure(cell: Config) -> Iterator[Fault]:
    selection, name = cell.selection, cell.selection.measure
    if name is None:
        if selection.name == "measure":
            yield Fault("selection.measure", None, f"is needed with selection=measure; {one_of('', cell.measure)}")
        return
    if name not in cell.measure:
        more = f"; measure=[…,{name}] adds it" if name in KINDS else ""
        yield Fault("selection.measure", name, f"is no configured measure; {one_of(name, cell.measure)}{more}")
        return
    if selection.name in ("perplexity", "rank_surprisal"):
        yield Fault("selection.measure", name, f"is not read by selection={selection.name}, which names its own; selection=measure")
        return
    if selection.name not in READS_MEASURE:
        return
    measure = selected_measure(cell)
    assert measure is not None
    if not KINDS[measure.kind].per_trace:
        yield Fault("selection.measure", name, f"{measure.kind} is a measure of a whole set: a single trace has no number by it")
    if measure.kind == "car" and selection.name in READS_REWARD:
        yield Fault(
            "selection.measure", name, f"holds the reward already, which selection={selection.name} weighs again; selection=measure"
        )


def _single(cell: Config, pool: str) -> bool:
    """Whether every problem is known to have one candidate in this pool."""
    if cell.refinement.name != "none" and cell.refinement.input == "kept":
        return True
    counts = {"student": cell.rollouts.sampling.n, "oracle": cell.source.samples, "cooperative": cell.source.samples, "dataset": 1}
    return counts.get(pool, 2) == 1


def _oracle(key: str, oracle: Oracle, cell: Config) -> Iterator[Fault]:
    if oracle.backend == "recorded":
        if not oracle.path:
            yield Fault(f"{key}.path", oracle.path, f"is needed with {key}=recorded: a jsonl file of requests and answers")
        elif why := missing(oracle.path):
            yield Fault(f"{key}.path", oracle.path, why)
    if oracle.backend in ("openai", "vllm") and not oracle.model:
        yield Fault(f"{key}.model", oracle.model, f"is needed with {key}.backend={oracle.backend}")
    if oracle.backend == "lab" and cell.problems.lab is None:
        yield Fault(key, oracle.name, "the lab's own knows only the lab's problems; choose none, openai, vllm or recorded")
    if oracle.mode == "batch" and oracle.backend != "openai":
        yield Fault(f"{key}.mode", oracle.mode, f"is for {key}.backend=openai")
    priced = oracle.usd_per_million_input or oracle.usd_per_million_output
    if cell.study.max_oracle_usd is not None and oracle.backend == "openai" and not priced:
        yield Fault(f"{key}.usd_per_million_output", 0.0, "study.max_oracle_usd can't be kept without prices")
    for task, path in oracle.prompts.items():
        if task not in ORACLE_TASKS:
            yield Fault(f"{key}.prompts.{task}", path, f"unknown task; {one_of(task, ORACLE_TASKS)}")
