"""Paths and hub names become contents, by which keys know them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qup.config.compose import Composer
from qup.config.fingerprint import digest, fields
from qup.config.schema import Config, Problems
from qup.errors import ConfigError, InputError
from qup.identity import contents
from qup.identity.contents import CACHE, Digests
from qup.identity.hub import Hub
from qup.identity.resolve import UNRESOLVED, file_faults, resolve, resolve_grid

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = '{"question": "1+1?", "answer": "2"}\n{"question": "2+2?", "answer": "4"}\n'


class FakeApi:
    """Counts its calls; raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.error = error

    def model_info(self, name: str, *, revision: str | None, timeout: float) -> Any:
        self.calls.append((name, revision))
        if self.error:
            raise self.error
        return SimpleNamespace(sha=COMMIT)

    dataset_info = model_info


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text(ROWS)
    return path


def _by_path(composer: Composer, path: Path) -> Config:
    given = [f"problems.path={path}", "problems.question=question", "problems.answer=answer", "problems.gold=plain"]
    return composer.cell(["problems=mawps", "judge=none", "reward=[]", *given])


def _hub(composer: Composer, *more: str) -> Config:
    return composer.cell(["problems=numina_cot", "model=qwen2_5_math_1_5b", "evaluation=avg16", "reward=[]", "judge=none", *more])


def test_a_file_is_known_by_its_bytes_wherever_it_lies(composer: Composer, problems: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.jsonl"
    elsewhere.write_text(ROWS)
    store = tmp_path / "store"
    first, second = (resolve(_by_path(composer, path), store).problems for path in (problems, elsewhere))
    assert first.content
    assert digest(fields(first)) == digest(fields(second))
    elsewhere.write_text(ROWS + '{"question": "3+3?", "answer": "6"}\n')
    assert resolve(_by_path(composer, elsewhere), store).problems.content != first.content


def test_a_relative_path_becomes_absolute(composer: Composer, problems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(problems.parent)
    assert resolve(_by_path(composer, Path("problems.jsonl")), Path("store")).problems.path == str(problems)


def test_a_lab_cell_needs_no_content(composer: Composer, tmp_path: Path) -> None:
    cell = composer.cell(["experiment=lab"])
    assert resolve(cell, tmp_path / "store") == cell
    assert not (tmp_path / "store").exists()


def test_every_fault_of_files_is_told_at_once(composer: Composer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(ROWS + "{oops\n")
    cell = _by_path(composer, bad)
    benchmarks = {"x": replace(cell.evaluation.benchmarks["two_steps"], lab=None, path=str(tmp_path / "gone.jsonl"))}
    with pytest.raises(ConfigError) as caught:
        resolve(replace(cell, evaluation=replace(cell.evaluation, benchmarks=benchmarks)), tmp_path / "store")
    assert {fault.key for fault in caught.value.faults} == {"problems.path", "evaluation.benchmarks.x.path"}
    assert "row 3" in str(caught.value) or "line 3" in str(caught.value)


def test_hub_names_become_commits_each_asked_once(composer: Composer, tmp_path: Path) -> None:
    api = FakeApi()
    cells = [_hub(composer, f"seed={seed}") for seed in range(3)]
    resolved = resolve_grid(cells, tmp_path, hub=Hub(api)).cells
    assert {cell.model.content for cell in resolved} == {COMMIT}
    assert {cell.model.revision for cell in resolved} == {COMMIT}
    assert resolved[0].model.path == "Qwen/Qwen2.5-Math-1.5B"
    assert {benchmark.content for benchmark in resolved[0].evaluation.benchmarks.values()} == {COMMIT}
    assert {benchmark.content for benchmark in resolved[0].problems.decontaminate_against.values()} == {COMMIT}
    assert len(api.calls) == len(set(api.calls)) == 7


def test_a_pinned_revision_is_not_asked_for(composer: Composer, tmp_path: Path) -> None:
    api = FakeApi(OSError("no network"))
    cell = resolve_grid([_hub(composer, f"model.revision={'a' * 40}")], tmp_path, dry_run=True, hub=Hub(api)).cells[0]
    assert cell.model.content == "a" * 40


def test_without_the_hub_a_dry_run_goes_on_and_says_so(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    api = FakeApi(OSError("no network"))
    found = resolve_grid([_hub(composer, "model.revision=v1")], tmp_path, dry_run=True, hub=Hub(api))
    assert found.cells[0].model.content == f"{UNRESOLVED}Qwen/Qwen2.5-Math-1.5B@v1"
    assert "model.path=Qwen/Qwen2.5-Math-1.5B@v1" in found.unresolved
    assert len(api.calls) == 1, "an unreachable hub is not asked again and again"


def test_without_the_hub_a_launch_is_refused_with_what_to_do(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match="pin each by the revision=") as caught:
        resolve_grid([_hub(composer)], tmp_path, hub=Hub(FakeApi(OSError("no network"))))
    assert "\n  model.path=Qwen/Qwen2.5-Math-1.5B@main\n" in str(caught.value)


def test_what_was_downloaded_before_tells_the_commit_offline(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    ref = tmp_path / "hub" / "models--Qwen--Qwen2.5-Math-1.5B" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    found = resolve_grid([_hub(composer)], tmp_path, dry_run=True, hub=Hub(FakeApi(OSError("no network"))))
    assert found.cells[0].model.content == COMMIT


def test_a_name_that_the_hub_does_not_have_is_a_fault(composer: Composer, tmp_path: Path) -> None:
    from huggingface_hub.errors import HFValidationError

    with pytest.raises(ConfigError, match=r"model\.path='Qwen/Qwen2\.5-Math-1\.5B': the hub has no such model"):
        resolve_grid([_hub(composer)], tmp_path, dry_run=True, hub=Hub(FakeApi(HFValidationError("no such repository"))))


def test_an_error_of_our_own_is_not_taken_for_a_missing_network(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        resolve_grid([_hub(composer)], tmp_path, dry_run=True, hub=Hub(FakeApi(KeyError("bug"))))


def test_an_oracle_that_nobody_asks_is_not_looked_at(composer: Composer, tmp_path: Path) -> None:
    api = FakeApi()
    resolve_grid([_hub(composer, "oracle=vllm", "stream=slm_rft")], tmp_path, hub=Hub(api), dry_run=True)
    assert "Qwen/Qwen2.5-Math-72B-Instruct" not in {name for name, _ in api.calls}
    asked = resolve_grid([_hub(composer, "oracle=vllm", "stream=oracle_refined")], tmp_path, hub=Hub(api), dry_run=True).cells[0]
    assert asked.oracle.revision == COMMIT


def test_an_oracle_that_we_serve_from_a_directory_is_known_by_its_weights(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    (oracle / "config.json").write_text("{}")
    (oracle / "chat_template.jinja").write_text("{{ messages }}")
    served = ["stream=oracle_refined", "oracle=vllm", f"vllm.command={sys.executable}"]
    monkeypatch.setattr("qup.serving.check.find", lambda vllm: [])
    cell = composer.cell([*served, "oracle.model=./oracle"])
    known = set()
    for weights in ("one", "two"):
        (tmp_path / "oracle" / "model.safetensors").write_text(weights)
        asked = resolve(cell, tmp_path / "store").oracle
        assert (asked.path, asked.revision) == (str(oracle), None)
        known.add(digest(fields(asked)))
    assert len(known) == 2
    oracle.rename(tmp_path / "moved")
    moved = resolve(composer.cell([*served, "oracle.model=./moved"]), tmp_path / "store").oracle
    assert digest(fields(moved)) in known, "answers are not bought again because a folder moved"
    (tmp_path / "moved" / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"oracle\.model='\./moved': has no chat template, so it is a base model"):
        resolve(composer.cell([*served, "oracle.model=./moved"]), tmp_path / "store")
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    told = resolve(composer.cell([*served, "oracle.model=./moved", "oracle.chat_template=./own.jinja"]), tmp_path / "store").oracle
    assert told.chat_template == "{{ messages }}\n"
    with pytest.raises(ConfigError, match=r"oracle\.model='\./none': no such file or directory"):
        resolve(composer.cell([*served, "oracle.model=./none"]), tmp_path / "store")


def test_a_server_that_runs_already_knows_its_model_by_a_name_of_its_own(composer: Composer, tmp_path: Path) -> None:
    api = FakeApi()
    running = ["oracle=vllm", "oracle.model=org/served", "oracle.base_url=http://127.0.0.1:8000/v1"]
    asked = resolve_grid([_hub(composer, "stream=oracle_refined", *running)], tmp_path, hub=Hub(api)).cells[0]
    assert (asked.oracle.model, asked.oracle.revision) == ("org/served", None)
    assert "org/served" not in {name for name, _ in api.calls}


def test_a_prompt_file_enters_by_its_text(composer: Composer, tmp_path: Path) -> None:
    prompt = tmp_path / "refine.txt"
    prompt.write_text("[system]\nMend it.\n[user]\n{problem} {solution} {ending}\n")
    cell = composer.cell(["stream=oracle_refined", f"+oracle.prompts={{refine: {prompt}}}"])
    first = resolve(cell, tmp_path / "store")
    assert first.oracle.prompts["refine"].startswith("[system]\nMend it.")
    assert resolve(first, tmp_path / "store") == first
    prompt.write_text("[system]\nMend it well.\n[user]\n{problem} {solution} {ending}\n")
    assert digest(fields(resolve(cell, tmp_path / "store").oracle)) != digest(fields(first.oracle))


def test_a_recorded_oracle_is_known_by_its_answers(composer: Composer, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"key": "k", "answer": "x"}\n')
    cell = composer.cell(["stream=oracle_refined", "oracle=recorded", f"oracle.path={answers}"])
    assert resolve(cell, tmp_path / "store").oracle.content == Digests(tmp_path).of(answers)


def test_files_of_traces_and_of_recorded_answers_are_looked_into(composer: Composer, tmp_path: Path) -> None:
    traces, answers = tmp_path / "traces.jsonl", tmp_path / "answers.jsonl"
    traces.write_text('{"problem_id": 1, "text": "x"}\n{"problem_id": 2}\n')
    answers.write_text('{"messages_sha256": "ab", "answer": "x"}\n{"answer": 3}\n')
    cell = composer.cell(["source=file", f"source.path={traces}", "refinement=refine", "oracle=recorded", f"oracle.path={answers}"])
    with pytest.raises(ConfigError) as caught:
        resolve(cell, tmp_path / "store")
    told = {fault.key: fault.valid for fault in caught.value.faults}
    assert set(told) == {"source.path", "oracle.path"}
    assert "row 2" in told["source.path"] and "row 2" in told["oracle.path"]


@pytest.mark.parametrize("local", [True, False])
def test_traces_of_no_problem_are_refused_and_of_some_told(composer: Composer, tmp_path: Path, local: bool) -> None:
    traces, problems = tmp_path / "traces.jsonl", tmp_path / "problems.jsonl"
    problems.write_text(ROWS)
    cell = composer.cell(["source=file", f"source.path={traces}", "problems.lab.n=2", "problems.lab.seed=3"])
    if local:
        cell = replace(cell, problems=Problems(path=str(problems), solution=None))
    good = "0" if local else "lab-3-00000"

    def write(*ids: str) -> None:
        traces.write_text("".join(json.dumps({"problem_id": identity, "text": "x"}) + "\n" for identity in ids))

    write(good)
    assert resolve_grid([cell], tmp_path / "store").notes == []
    write(good, "nobody's")
    two = [cell, replace(cell, seed=5)]
    (note,) = resolve_grid(two, tmp_path / "store").notes
    assert "1 of 2 traces belong to no problem" in note and "nobody's" in note
    write("a", "b")
    with pytest.raises(ConfigError) as caught:
        resolve_grid(two, tmp_path / "store")
    (fault,) = caught.value.faults
    assert fault.key == "source.path"
    assert "none of its 2 ids (such as 'a' in column 'problem_id')" in fault.valid and repr(good) in fault.valid


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        (
            ["a", "a"],
            ["selection=perplexity"],
            "selection='perplexity': can't matter: no problem has two traces in source=file, one teacher, a",
        ),
        (["a", "a"], ["selection.keep=2"], "selection.keep=2: can't matter"),
        (["a", "b"], ["selection=perplexity"], "a, b wrote of different problems"),
        (["a", "a", "b"], ["selection=perplexity", "source.teacher=a"], "one teacher, a, wrote them all"),
        (["a", "a", "b"], ["selection=perplexity"], ""),
        (["a", "a"], [], ""),
    ],
)
def test_a_choice_among_teachers_needs_problems_that_several_wrote_of(
    composer: Composer, tmp_path: Path, given: list[str], asked: list[str], words: str
) -> None:
    """Trace n is of problem n modulo 2."""
    traces = tmp_path / "traces.jsonl"
    rows = [{"problem_id": f"lab-3-{n % 2:05}", "text": "x", "teacher": who} for n, who in enumerate(given)]
    traces.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = file_faults([(composer.cell(["source=file", f"source.path={traces}", "problems.lab.n=2", "problems.lab.seed=3", *asked]), ())])
    assert [words in str(fault) for fault in told] == ([True] if words else []), told


def test_traces_for_problems_on_the_hub_are_left_to_the_stage(composer: Composer, tmp_path: Path) -> None:
    traces = tmp_path / "traces.jsonl"
    traces.write_text('{"problem_id": "a", "text": "x"}\n')
    cell = composer.cell(["source=file", f"source.path={traces}"])
    away = replace(cell.problems, lab=None, path="org/name", revision=COMMIT, content=COMMIT)
    assert resolve_grid([replace(cell, problems=away)], tmp_path / "store", hub=Hub(FakeApi())).notes == []


def test_prompts_that_leave_no_room_are_told_once_for_each_data_set(composer: Composer, tmp_path: Path) -> None:
    tight = ["model.context=48", "trainer.max_length=48"]
    cells = composer.grid([[*tight, f"seed={seed}", f"stream={stream}"] for seed in (1, 2) for stream in ("slm_rft", "base")])
    with pytest.raises(ConfigError) as caught:
        resolve_grid(cells, tmp_path / "store")
    told = [(fault.key, fault.valid.partition(":")[0]) for fault in caught.value.faults]
    assert told == [
        ("rollouts.sampling.min_new_tokens", "problems"),
        ("evaluation.sampling.min_new_tokens", "evaluation.benchmarks.two_steps"),
        ("evaluation.sampling.min_new_tokens", "evaluation.benchmarks.three_steps"),
        ("evaluation.sampling.min_new_tokens", "evaluation.benchmarks.four_steps"),
    ]


def test_room_is_looked_for_once_in_cells_that_differ_in_the_seed_of_their_sampling(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a grid over seeds reads problems and tokenizer anew for each cell."""
    asked: list[str] = []
    monkeypatch.setattr("qup.models.check.check_room", lambda model, data, least, key, of: asked.append(of) or [])
    resolve_grid(composer.grid([["stream=base", f"evaluation.sampling.seed={seed}"] for seed in range(8)]), tmp_path / "store")
    assert len(asked) == len(set(asked)) == 3


def test_a_folder_is_known_by_names_and_bytes_without_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(b"abc")
    first = Digests(tmp_path).of(folder)
    (folder / ".cache").write_text("x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("x")
    assert Digests(tmp_path).of(folder) == first
    (folder / "sub" / "weights").rename(folder / "sub" / "other")
    assert Digests(tmp_path).of(folder) != first


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = tmp_path / "store", tmp_path / "file"
    store.mkdir()
    path.write_bytes(b"one")
    monkeypatch.setattr(contents, "SETTLED_NS", 0)
    kept = Digests(store)
    first = kept.of(path)
    kept.save()
    assert json.loads((store / CACHE).read_text())[str(path)][-1] == first
    read: list[Path] = []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **more: (read.append(self), opened(self, *args, **more))[1])
    assert Digests(store).of(path) == first
    assert path not in read
    path.write_bytes(b"two")
    assert Digests(store).of(path) != first
    assert path in read


@pytest.mark.parametrize("way", ["written over", "moved there"])
def test_a_file_of_the_same_size_with_a_kept_time_of_change_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(contents, "SETTLED_NS", 0)
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"one")
    kept = Digests(tmp_path)
    first, before = kept.of(path), path.stat()
    kept.save()
    target = path if way == "written over" else other
    target.write_bytes(b"two")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert Digests(tmp_path).of(path) != first


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    kept = Digests(tmp_path)
    kept.of(path)
    kept.save()
    assert not (tmp_path / CACHE).exists()
    assert contents.SETTLED_NS >= 1_000_000_000


def test_a_store_that_cannot_be_written_or_a_broken_cache_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    monkeypatch.setattr(contents, "SETTLED_NS", 0)
    (tmp_path / "blocked").write_text("a file where the store should be")
    kept = Digests(tmp_path / "blocked")
    assert kept.of(path)
    kept.save()
    (tmp_path / CACHE).write_text("{broken")
    assert Digests(tmp_path).of(path) == kept.of(path)
