"""Identity at planning: every path and hub name of a cell gets its content, by which keys know it.

A local file or folder is known by the digest of its bytes, a hub name by its commit. Paths become absolute, so that
jobs find them from anywhere; the text of a file that replaces an Oracle's prompt takes the place of its path (a text
has several lines), so that editing the file later changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qup.config.once import Once
from qup.config.paths import local, missing
from qup.config.pools import needs_oracle
from qup.config.schema import Benchmark, Config, Evaluation, Model, Oracle, Problems, Reward, Sampling, Selection, Source
from qup.config.settle import BASE
from qup.errors import ConfigError, Fault, InputError
from qup.identity.contents import Digests
from qup.identity.hub import Hub
from qup.lab.world import plentiful
from qup.models.apart import start
from qup.models.load import gguf_path
from qup.serving.check import program_faults

UNRESOLVED = "unresolved:"
"""What a content begins with when only a dry run could do without the commit."""


@dataclass(frozen=True)
class Resolved:
    """A grid with all contents filled, and the hub names whose commit nobody could tell (in a dry run)."""

    cells: list[Config]
    unresolved: list[str]
    notes: list[str]
    """What the user should know, and is no fault."""


def resolve(cell: Config, store_dir: Path, *, dry_run: bool = False, without: Collection[str] = ()) -> Config:
    """One cell with every `content` filled. Raises as `resolve_grid` does, which is the faster way for many."""
    return resolve_grid([cell], store_dir, dry_run=dry_run, without=without).cells[0]


def resolve_grid(
    cells: Sequence[Config], store_dir: Path, *, dry_run: bool = False, hub: Hub | None = None, without: Collection[str] = ()
) -> Resolved:
    """All cells with every `content` filled; what cells share is looked at once.

    Raises ConfigError with everything wrong with files and folders, and InputError where the hub can't be
    reached, saying how to do without it. A dry run goes on with `unresolved:name@revision` in place of a commit.
    """
    resolver = _Resolver(Digests(store_dir), hub or Hub())
    resolved = [resolver.cell(cell, without) for cell in cells]
    resolver.digests.save()
    programs = _each_once([fault for cell in cells for fault in program_faults(cell)])
    if dry_run:
        resolver.notes += [f"before this can run: {fault}" for fault in programs]
    else:
        resolver.faults += programs
    if resolver.faults:
        raise ConfigError(_each_once(resolver.faults))
    if resolver.unresolved and not dry_run:
        names = "\n".join(f"  {line}" for line in resolver.unresolved)
        raise InputError(
            "these are no files or folders here, and the hub can't be reached to learn which commits they are; where a local path is "
            f"meant, mend it, else pin each by the revision= beside its path (a commit of 40 hex digits):\n{names}"
        )
    return Resolved(resolved, resolver.unresolved, resolver.notes)


def file_faults(cells: Sequence[tuple[Config, Collection[str]]]) -> list[Fault]:
    """What is wrong with the files and folders that cells name, each fault once; the hub isn't asked.

    Beside each cell the sections that are left out, for their settings are at fault already.
    """
    resolver: _Resolver | None = None
    for cell, without in cells:
        resolver = resolver or _Resolver(Digests(Path(cell.store.dir)), Hub(reachable=False))
        resolver.cell(cell, without)
    return _each_once(resolver.faults) if resolver else []


def _each_once(faults: Sequence[Fault]) -> list[Fault]:
    return list({str(fault): fault for fault in faults}.values())


class _Resolver:
    def __init__(self, digests: Digests, hub: Hub) -> None:
        self.digests = digests
        self.hub = hub
        self.faults: list[Fault] = []
        self.unresolved: list[str] = []
        self.notes: list[str] = []
        self._once = Once()

    def cell(self, cell: Config, without: Collection[str] = ()) -> Config:
        """The cell with every section resolved, those `without` names left out."""
        ways: dict[str, Callable[[Any, str], Any]] = {
            "problems": self._problems,
            "model": self._model,
            "source": self._source,
            "reward": self._rewards,
            "evaluation": self._evaluation,
        }
        if needs_oracle(cell):
            ways |= {"teacher": self._teachers} if cell.teacher else {"oracle": self._oracle}
        if cell.stream.name != BASE:
            ways["judge"] = self._oracle
        made = replace(cell, **{name: self._once(way, getattr(cell, name), name) for name, way in ways.items() if name not in without})
        if "model" not in without:
            self._prompts(made, without)
        if "file" in cell.source.name.split("+") and not {"source", "problems"} & set(without):
            self._once(self._trace_ids, made.source, made.problems)
            if made.source.name == "file" and made.refinement.name == "none" and "selection" not in without:
                self._once(self._choice, made.source, made.selection)
        return made

    def _trace_ids(self, source: Source, problems: Problems) -> None:
        """Whether the traces of source=file belong to the problems, where those are here or made here."""
        from qup.data.sets import questions
        from qup.data.traces import check_ids

        faults, note = check_ids(source, "source", questions(problems))
        self.faults += faults
        self.notes += [note] if note else []

    def _choice(self, source: Source, selection: Selection) -> None:
        """Whether the traces of source=file leave a selection a choice."""
        from qup.data.traces import check_choice

        if selection.keep > 1 or selection.name != "random":
            key, value = ("selection.keep", selection.keep) if selection.name == "random" else ("selection", selection.name)
            self.faults += check_choice(source, key, value)

    def _prompts(self, cell: Config, without: Collection[str]) -> None:
        """Whether the prompts leave room to answer, once for each model, data and room."""
        from qup.models.check import check_room

        rooms: list[tuple[Problems | Benchmark, Sampling, str, str]] = []
        if cell.stream.name != BASE and not {"problems", "rollouts"} & set(without):
            rooms.append((cell.problems, cell.rollouts.sampling, "rollouts.sampling", "problems"))
        if "evaluation" not in without:
            evaluation = cell.evaluation
            named = evaluation.benchmarks.items()
            rooms += [(data, evaluation.sampling, "evaluation.sampling", f"evaluation.benchmarks.{name}") for name, data in named]
        for data, sampling, key, of in rooms:
            self.faults += self._once(check_room, cell.model, data, sampling.min_new_tokens, key, of)

    def _problems(self, problems: Problems, key: str) -> Problems:
        against = {
            name: self._benchmark(benchmark, f"{key}.decontaminate_against.{name}")
            for name, benchmark in problems.decontaminate_against.items()
        }
        return replace(self._data(problems, key), decontaminate_against=against)

    def _evaluation(self, evaluation: Evaluation, key: str) -> Evaluation:
        made = {name: self._benchmark(benchmark, f"{key}.benchmarks.{name}") for name, benchmark in evaluation.benchmarks.items()}
        return replace(evaluation, benchmarks=made)

    def _benchmark(self, benchmark: Benchmark, key: str) -> Benchmark:
        return self._once(self._data, benchmark, key)

    def _data(self, data: Any, key: str) -> Any:
        if data.lab is not None and plentiful(data.lab):
            return data
        from qup.data.sets import check_file

        found = data if data.lab is not None else self._located(data, key, "dataset")
        self.faults += check_file(found, key)
        return found

    def _model(self, model: Model, key: str) -> Model:
        if model.lab is not None:
            return model
        from qup.models.check import check_model

        if self._fault(check_model(model)):
            return model
        if gguf_path(model) is None and not model.trust_remote_code:
            start()
        return self._located(model, key, "model", model.gguf_file)

    def _rewards(self, rewards: dict[str, Reward], key: str) -> dict[str, Reward]:
        return {name: self._once(self._reward, reward, f"{key}.{name}") for name, reward in rewards.items()}

    def _reward(self, reward: Reward, key: str) -> Reward:
        from qup.models.check import check_reward

        if reward.lab is not None or self._fault(check_reward(reward, key)):
            return reward
        return self._located(reward, key, "model")

    def _source(self, source: Source, key: str) -> Source:
        if "cooperative" in source.name.split("+") and source.boundary != "rule":
            source = self._classifier(source, key)
        if "file" not in source.name.split("+"):
            return source
        from qup.data.traces import check_traces, is_hub, teacher_of, trace_files

        if is_hub(source):
            return self._located(source, key, "dataset")
        if faults := check_traces(source, key):
            self.faults += faults
            return source
        files = trace_files(source)
        named = [f"{teacher_of(file)} {self.digests.of(file)}" for file in files]
        content = hashlib.sha256("\n".join(named).encode()).hexdigest()
        return replace(source, content=content, path="", files=[str(file.absolute()) for file in files])

    def _oracle(self, oracle: Oracle, key: str) -> Oracle:
        if oracle.backend == "none":
            return oracle
        from qup.text.prompts import check_prompts

        if oracle.backend == "recorded" and oracle.path:
            from qup.oracle.recorded import check_recording

            self.faults += check_recording(oracle, key)
            oracle = self._located(oracle, key, "file")
        if oracle.backend == "vllm" and oracle.base_url is None:
            oracle = self._served(self._template(oracle, key), key)
        files = {task: path for task, path in oracle.prompts.items() if "\n" not in path}
        if self._fault(check_prompts(replace(oracle, prompts=files), key)):
            return oracle
        return replace(oracle, prompts=oracle.prompts | {task: Path(path).read_text(encoding="utf-8") for task, path in files.items()})

    def _classifier(self, source: Source, key: str) -> Source:
        """The token classifier that says where spans end, by its content or commit."""
        found = local(source.boundary)
        if found is None:
            return replace(source, boundary_content=self._commit(f"{key}.boundary", source.boundary, None, "model"))
        try:
            return replace(source, boundary=str(found.absolute()), boundary_content=self.digests.of(found))
        except OSError as error:
            self.faults.append(Fault(f"{key}.boundary", source.boundary, f"can't be read: {error.strerror or error}"))
            return source

    def _teachers(self, teachers: dict[str, Oracle], key: str) -> dict[str, Oracle]:
        return {name: self._once(self._oracle, oracle, f"{key}.{name}") for name, oracle in teachers.items()}

    def _served(self, oracle: Oracle, key: str) -> Oracle:
        """The model that we serve: a directory by its content, wherever it lies; a hub name by its commit. A server that runs already knows its own."""
        from qup.models.check import check_oracle

        if oracle.path:
            return oracle
        found = local(oracle.model)
        if found is None:
            return replace(oracle, revision=self._commit(f"{key}.model", oracle.model, oracle.revision, "model"))
        if not found.is_dir():
            self.faults.append(Fault(f"{key}.model", oracle.model, missing(oracle.model) or "is no directory of a model"))
            return oracle
        self.faults += check_oracle(oracle, found, key)
        content = self.digests.of(found)
        return replace(oracle, content=content, model=content, path=str(found.absolute()))

    def _template(self, oracle: Oracle, key: str) -> Oracle:
        """The text of its own chat template in place of its file, as for prompts."""
        if not oracle.chat_template or "\n" in oracle.chat_template:
            return oracle
        try:
            text = Path(oracle.chat_template).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.faults.append(
                Fault(f"{key}.chat_template", oracle.chat_template, f"can't be read: {getattr(error, 'strerror', None) or error}")
            )
            return oracle
        return replace(oracle, chat_template=text.rstrip("\n") + "\n")

    def _located(self, section: Any, key: str, kind: str, inner: str | None = None) -> Any:
        """`section` with `content`, and with an absolute path or the commit as its revision."""
        found = local(section.path) if kind != "file" else local(section.path) or Path(section.path)
        if found is None:
            commit = self._commit(f"{key}.path", section.path, section.revision, kind)
            pinned = {} if commit.startswith(UNRESOLVED) else {"revision": commit}
            return replace(section, content=commit, **pinned)
        part = found / inner if inner else found
        try:
            content = self.digests.of(part)
        except OSError as error:
            self.faults.append(Fault(f"{key}.path", section.path, f"can't be read: {error.strerror or error}"))
            return section
        return replace(section, content=content, path=str(found.absolute()))

    def _commit(self, key: str, name: str, revision: str | None, kind: str) -> str:
        at = f"{name}@{revision or 'main'}"
        try:
            commit = self.hub.commit(kind, name, revision)
        except InputError as error:
            self.faults.append(Fault(key, name, str(error).partition(": ")[2]))
            return UNRESOLVED + at
        if commit is None:
            if f"{key}={at}" not in self.unresolved:
                self.unresolved.append(f"{key}={at}")
            return UNRESOLVED + at
        return commit

    def _fault(self, found: Sequence[Fault]) -> bool:
        """Notes what a check found; whether that is anything."""
        self.faults += found
        return bool(found)
