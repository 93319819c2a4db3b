"""Taking results away: a cell's model as a Hugging Face directory, a stream as chat-format data for other trainers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from qup.analysis.findings.numbers import value
from qup.analysis.results.outcomes import load_outcome
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import number
from qup.analysis.statistics.estimates import bootstrap, coefficients
from qup.config.paths import local
from qup.errors import InputError, StoreError
from qup.push import push, target
from qup.samples import export_samples
from qup.store import Artifact, rows
from qup.study import Cell, Study, find_study, studies_in
from qup.text.templates import find, messages

if TYPE_CHECKING:
    from rich.console import Console

BATCH = 4096


def export(
    what: str,
    to: Path,
    study: str | None,
    shown: Path,
    console: Console,
    form: str | None = None,
    *,
    repo: str | None = None,
    public: bool = False,
) -> int:
    """Writes a cell's model (its label or number), or a stream (`stream/<key>` or `stream/<cell>`), into the new folder `to`.

    With `form`, a key of samples.FORMATS, the cell's evaluation in that form instead of its model. With `repo` the folder is
    sent to the hub as well: a model, or a data set where it is anything else; private unless `public`.

    Raises InputError where `what` or the study is not found, `to` is not empty or the hub would refuse `repo`, StoreError where
    nothing can be written.
    """
    if form is not None and what.startswith("stream/"):
        raise InputError(f"--format={form}: is for an evaluation; name a cell, not {what!r}")
    if public and repo is None:
        raise InputError("--public: is for --push, and no repository is named")
    found, shelf, cell = _find(what, study, shown)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to}: is there already and not empty; give a new folder")
    sent = None
    if repo is not None:
        sent = target(repo, "model" if form is None and not what.startswith("stream/") else "dataset", public=public)
    beside = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        if form is not None:
            count = export_samples(cell, _needed(shelf, cell, "responses"), _needed(shelf, cell, "evaluate"), beside, form)
            said = f"{count} responses, as {form} lays them out,"
        elif what.startswith("stream/"):
            count = export_stream(found, shelf, cell, beside)
            said = f"{count} examples"
        else:
            export_model(found, shelf, cell, beside)
            said = "model"
        if to.exists():
            to.rmdir()
        os.replace(beside, to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    console.print(f"{said} of {cell.label} in {to}", markup=False)
    if sent is not None:
        where = push(sent, to, f"{said} of {cell.label}, study {found.name}, by qup")
        console.print(f"pushed  {where} ({'public' if public else 'private'})", markup=False)
    return 0


def _find(what: str, study: str | None, shown: Path) -> tuple[Study, Shelf, Cell]:
    """The study, its store and the cell that `what` names."""
    name = what.removeprefix("stream/")
    studies = [find_study(study, shown)] if study else [Study.load(folder) for folder in studies_in(shown)]
    if not studies:
        raise InputError(f"{shown}: holds no study")
    hits: list[tuple[Study, Shelf, Cell]] = []
    labels: list[str] = []
    for found in studies:
        shelf = Shelf(found.open_store())
        cells = [cell for place, cell in enumerate(found.cells) if name in (cell.label, str(place)) or _streams(cell, name, what)]
        labels += [cell.label for cell in found.cells]
        hits += [(found, shelf, cell) for cell in cells[:1]]
    if not hits:
        listed = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
        raise InputError(f"{what!r}: no such cell or stream; cells are {listed}; streams are stream/<key> or stream/<cell>")
    if len(hits) > 1:
        raise InputError(f"{what!r} is in several studies ({', '.join(hit[0].name for hit in hits)}): say which with --study")
    return hits[0]


def _streams(cell: Cell, name: str, what: str) -> bool:
    key = cell.key("stream")
    return what.startswith("stream/") and len(name) >= 6 and key is not None and key[1].startswith(name)


def _needed(shelf: Shelf, cell: Cell, stage: str) -> Artifact:
    artifact = shelf.of(cell, stage)
    if artifact is not None:
        return artifact
    key = cell.key(stage)
    if key is None:
        raise InputError(f"{cell.label}: has no {stage}; it is the untuned student")
    why = shelf.corrupt.get(f"{key[0]}/{key[1]}", "not in the store")
    raise InputError(f"{cell.label}: {stage}/{key[1]} is {why}; launch the study again")


def export_model(study: Study, shelf: Shelf, cell: Cell, to: Path) -> None:
    """Copies the fine-tuned model and writes its card: data recipe, numbers with intervals, keys."""
    artifact = _needed(shelf, cell, "train")
    if not artifact.has("model"):
        raise InputError(
            f"{cell.label}: its weights were taken away after evaluation (store.keep_weights); train it again with store.keep_weights=all"
        )
    shutil.copytree(artifact.directory("model"), to, dirs_exist_ok=True)
    (to / "README.md").write_text(model_card(study, shelf, cell), encoding="utf-8")


def model_card(study: Study, shelf: Shelf, cell: Cell) -> str:
    """README.md of an exported model."""
    base = _origin(cell, "model")
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [qup, math, fine-tuned]"]
    front += [f"base_model: {base}"] if base and local(str(cell.get("model.path"))) is None else []
    stream, train = shelf.metrics(cell, "stream"), shelf.metrics(cell, "train")
    recipe = {
        "student": f"{cell.get('model.name')} {base}".strip(),
        "problems": f"{cell.get('problems.name')}, {stream.get('n', '?')} in the fixed set",
        "stream": f"{cell.get('stream.name')} (source {cell.get('source.name')}, refinement {cell.get('refinement.name')}, selection {cell.get('selection.name')})",
        "Oracle": cell.get("oracle.name") if _asks(cell) else "none",
        "objective": str(cell.get("trainer.objective")).upper(),
        "learning rate, batch, epochs": f"{cell.get('trainer.lr'):g}, {cell.get('trainer.batch_size')}, {cell.get('trainer.epochs')}",
        "examples, tokens, steps": f"{train.get('n_train', '?')}, {train.get('train_tokens', '?')}, {train.get('steps', '?')}",
        "prompt template": cell.get("model.template"),
        "seeds": f"trainer {cell.get('trainer.seed')}, evaluation {cell.get('evaluation.sampling.seed')}",
    }
    lines = [*front, "---", "", f"# {cell.label}", "", f"Fine-tuned by qup in the study `{study.name}`."]
    if cell.get("model.lab") is not None:
        lines.append("It is a toy model of qup's lab, for trying the instruments; it is of no other use.")
    lines += ["", "## Data recipe", "", *_listed(recipe), "", "## Numbers", ""]
    lines += _numbers(shelf, cell)
    lines += [
        "",
        "## Licence",
        "",
        _model_licence(cell),
        "",
        "## Keys",
        "",
        *_listed({column: f"`{kind}/{key}`" for column, kind, _, key in cell.refs() if column != "evaluate_at"}),
    ]
    return "\n".join(lines) + "\n"


def _numbers(shelf: Shelf, cell: Cell) -> list[str]:
    artifact = shelf.of(cell, "evaluate")
    outcome = load_outcome(shelf, artifact) if artifact is not None else None
    if outcome is None or not outcome.benchmarks:
        return ["Not evaluated yet."]
    k = cell.get("evaluation.sampling.n")
    strata = [answers.share_P[:, None] for answers in outcome.benchmarks.values()]
    (total,) = bootstrap(strata, coefficients([len(one) for one in strata]), bounds=(0, 100))
    lines = [
        f"Avg@{k} in percent, with 95 % intervals over problems; they speak of this checkpoint.",
        "",
        f"| benchmark | problems | Avg@{k} |",
        "|---|---:|---:|",
    ]
    for (name, answers), one in zip(outcome.benchmarks.items(), strata, strict=True):
        (found,) = bootstrap([one], coefficients([len(one)]), bounds=(0, 100))
        lines.append(f"| {name} | {len(answers.problem_ids)} | {value(found, 1)} |")
    return [*lines, f"| mean | {total.n} | {value(total, 1)} |"]


def export_stream(study: Study, shelf: Shelf, cell: Cell, to: Path) -> int:
    """Writes train.jsonl, train.parquet, dataset_info.json (LLaMA-Factory), axolotl.yaml and the card; returns the number of examples."""
    artifact = _needed(shelf, cell, "stream")
    template = str(cell.get("model.template", "tokenizer"))
    schema = pa.schema(
        [
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("problem_id", pa.string()), ("pool", pa.string()), ("status", pa.string()), ("correct", pa.bool_()), ("teacher", pa.string()), ("weight", pa.float64()),
        ]
    )  # fmt: skip
    count = 0
    with (
        (to / "train.jsonl").open("w", encoding="utf-8") as stream,
        pq.ParquetWriter(to / "train.parquet", schema, compression="zstd") as writer,
    ):
        for batch in rows.batches(
            artifact, "stream", ["problem_id", "pool", "question", "text", "status", "correct", "teacher", "weight"], size=BATCH
        ):
            entries = [_example(row, template) for row in batch.to_pylist()]
            stream.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
            writer.write_table(pa.Table.from_pylist(entries, schema=schema))
            count += len(entries)
    (to / "dataset_info.json").write_text(json.dumps({_slug(study, cell): LLAMA_FACTORY}, indent=2) + "\n", encoding="utf-8")
    (to / "axolotl.yaml").write_text(AXOLOTL, encoding="utf-8")
    (to / "README.md").write_text(stream_card(study, shelf, cell, count), encoding="utf-8")
    return count


LLAMA_FACTORY = {
    "file_name": "train.jsonl",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"},
}
AXOLOTL = """datasets:
  - path: train.jsonl
    ds_type: json
    type: chat_template
    field_messages: messages
    message_property_mappings: {role: role, content: content}
    roles_to_train: [assistant]
"""


def _example(row: Mapping[str, Any], template: str) -> dict[str, Any]:
    conversation = [*messages(template, row["question"]), {"role": "assistant", "content": row["text"]}]
    return {"messages": conversation, **{name: row[name] for name in ("problem_id", "pool", "status", "correct", "teacher", "weight")}}


def stream_card(study: Study, shelf: Shelf, cell: Cell, count: int) -> str:
    """README.md of an exported stream."""
    stream, perplexity = shelf.metrics(cell, "stream"), shelf.metrics(cell, "perplexity")
    rewards = {f"mean reward ({name})": _shown(shelf.metrics(cell, "reward", name).get("mean")) for name in cell.stages.get("reward", {})}
    facts = {
        "student": cell.get("model.name"),
        "problems": cell.get("problems.name"),
        "stream": cell.get("stream.name"),
        "source, refinement, selection": f"{cell.get('source.name')}, {cell.get('refinement.name')}, {cell.get('selection.name')}",
        "Oracle": cell.get("oracle.name") if _asks(cell) else "none",
        "verified correct": f"{stream.get('n_correct_stream', '?')} of {count}",
        "perplexity under the student": _shown(perplexity.get("ppl")),
        **rewards,
        "prompt template": cell.get("model.template"),
        "stream key": f"`stream/{(cell.key('stream') or ('', '?'))[1]}`",
    }
    kind = find(str(cell.get("model.template", "tokenizer")))
    notes = (
        []
        if kind.chat
        else ["The study put no chat template around the prompt; train with the user's text as it stands, followed by the answer."]
    )
    front = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files: train.parquet",
        "task_categories: [text-generation]",
        "tags: [qup, math, sft]",
        "license: other",
        "---",
    ]
    lines = [
        *front,
        "",
        f"# {cell.get('stream.name')} for {cell.get('model.name')}",
        "",
        f"{count} worked solutions of the study `{study.name}` to the {stream.get('n', count)} problems of the fixed set, in chat format.",
    ]
    if cell.get("problems.lab") is not None:
        lines.append("The problems are made by qup's lab: a toy world.")
    lines += ["", *_listed(facts), "", *notes, "## Reading it", "", _READING, "", "## Licence", "", _stream_licence(cell)]
    return "\n".join(lines) + "\n"


_READING = """- TRL: `load_dataset("json", data_files="train.jsonl")`; the `messages` column is its conversational format, `assistant_only_loss=True` learns the answers alone where the chat template marks them with `{% generation %}`.
- LLaMA-Factory: `dataset_dir` is this folder; `dataset_info.json` names the data set and its columns.
- axolotl: `axolotl.yaml` holds the `datasets` section.

The prompt's instruction is in the messages; the student's own chat template is applied by the trainer."""


def _listed(facts: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {shown}" for name, shown in facts.items() if shown not in (None, "")]


def _shown(found: Any) -> str:
    known = number(found)
    return f"{known:.3f}" if known == known else ""


def _origin(cell: Cell, section: str) -> str:
    """The hub name of a model or data set; of a path on this machine its last part alone, for cards travel."""
    path = str(cell.get(f"{section}.path") or "")
    found = local(path) if path else None
    return path if found is None else found.name


def _asks(cell: Cell) -> bool:
    return cell.get("refinement.name") != "none" or "oracle" in str(cell.get("source.name"))


def _model_licence(cell: Cell) -> str:
    return (
        f"The weights derive from {_origin(cell, 'model') or cell.get('model.name')} and follow its licence. "
        f"The training data follow theirs: {_stream_licence(cell)}"
    )


def _stream_licence(cell: Cell) -> str:
    said = [f"The problems are those of {_origin(cell, 'problems') or cell.get('problems.name')} and keep its licence."]
    source = str(cell.get("source.name"))
    if "student" in source:
        said.append(f"Traces written by {_origin(cell, 'model') or cell.get('model.name')} are subject to that model's licence.")
    if _asks(cell):
        oracle = cell.get("oracle.model") or cell.get("oracle.name")
        said.append(
            f"Text written or repaired by {oracle} is subject to its provider's terms, which may forbid training competing models: read them before publishing."
        )
    if "dataset" in source:
        said.append("Solutions are the data set's own.")
    if "file" in source:
        said.append("Traces came from a file of yours; its licence is not known to qup.")
    return " ".join(said)


def _slug(study: Study, cell: Cell) -> str:
    from qup.analysis.figures.picture import slug

    return slug(study.name, str(cell.get("model.name")), str(cell.get("stream.name")))


__all__ = ["export", "export_model", "export_stream"]
