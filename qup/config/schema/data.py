"""Where problems, benchmarks and given traces come from."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.choices import EXTRACTIONS, GOLDS
from qup.config.schema.fields import opt
from qup.config.schema.world import LabProblems


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
    too_long: str = opt(
        "error",
        "problems whose prompt leaves the student too little room; exclude: no rollouts of them, counted",
        choices=("error", "exclude"),
    )
    missing_gold: str = opt(
        "error", "a row without a readable gold answer: an error, or excluded and counted", choices=("error", "exclude")
    )
    decontamination: str = opt(
        "exact", "how overlap with decontaminate_against is removed; none still reports it", choices=("exact", "ngram13", "none")
    )
    decontaminate_against: dict[str, Benchmark] = opt({}, "benchmarks whose problems may not be trained on")
    lab: LabProblems | None = opt(None, "problems made by the lab's generator")


@dataclass(frozen=True)
class Source:
    """Where candidate traces come from."""

    name: str = opt("", "student, oracle, cooperative, dataset, file, or several joined by +; empty: the stream preset says")
    samples: int = opt(
        1,
        "answers asked of the Oracle for each problem, with source oracle or cooperative; with source file, the most that one of several teachers may have",
        at_least=1,
    )
    path: str = opt(
        "", "with source file: jsonl/parquet of traces, a pattern such as traces/*.jsonl, or a data set's hub name", runtime=True
    )
    files: list[str] = opt([], "with source file: further files or patterns; of several files each is a teacher's", runtime=True)
    content: str = opt("", "digest of those files or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    id: str = opt("problem_id", "with source file: column of the problem's id")
    text: str = opt("text", "with source file: column of the trace")
    question: str | None = opt(None, "with source file: column of the problem's text, which then finds the problem in place of its id")
    teacher_column: str = opt("teacher", "with source file: column of who wrote the trace; where a file has none, its name says")
    teacher: str = opt("", "only this teacher's traces of the pool; empty: all")
    boundary: str = opt(
        "rule", "with source cooperative, who says where a writer's span ends: rule, or a token classifier by path", runtime=True
    )
    boundary_content: str = opt("", "digest of that classifier; filled at planning")
    span_tokens: int = opt(48, "with source cooperative: most tokens of the student's span", at_least=4)
    cleaning: str = opt("light", "named conservative rules on the student's own traces", choices=("light", "none"))
