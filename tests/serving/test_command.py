"""Where vLLM is, and what it is told."""

import sys

import pytest

from qup.config.schema import Vllm
from qup.errors import InputError
from qup.serving import command


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_vllm_beside_the_interpreter_comes_before_that_on_path(tmp_path, monkeypatch):
    on_path = program(tmp_path / "elsewhere" / "vllm")
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    assert command.find(Vllm()) == [str(on_path)]
    beside = program(tmp_path / "venv" / "bin" / "vllm")
    assert command.find(Vllm()) == [str(beside)]


@pytest.mark.parametrize("given", ["{}", "{}/bin", "{}/bin/vllm", "{}/bin/python", "{}/bin/python3.12"])
def test_an_environment_may_be_named_by_folder_program_or_interpreter(tmp_path, given):
    expected = program(tmp_path / "bin" / "vllm")
    assert command.find(Vllm(command=given.format(tmp_path))) == [str(expected)]


def test_a_command_may_be_a_line(tmp_path, monkeypatch):
    apptainer = program(tmp_path / "apptainer")
    monkeypatch.setenv("PATH", str(tmp_path))
    line = command.line(Vllm(command="apptainer exec --nv 'my vllm.sif' vllm"), "org/m", {"max-model-len": 8})
    assert line == [str(apptainer), "exec", "--nv", "my vllm.sif", "vllm", "serve", "org/m", "--max-model-len", "8"]


def test_what_a_module_brings_is_not_looked_for_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    words = command.line(Vllm(setup=["module load vllm/0.32"]), "m", {})
    assert words[:2] == ["bash", "-c"]
    assert words[2].splitlines()[1] == "module load vllm/0.32"
    assert words[4:] == ["vllm", "serve", "m"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "no vllm beside"),
        ("nowhere", "no program nowhere on PATH"),
        ("{}", "no program {}/bin/vllm"),
        ("{}/none/vllm", "no program {}/none/vllm"),
        ("apptainer 'open", "No closing quotation"),
    ],
)
def test_a_vllm_that_is_not_there_is_said(tmp_path, monkeypatch, given, said):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=said.format(tmp_path)):
        command.find(Vllm(command=given.format(tmp_path)))


def test_flags_are_written_as_vllm_reads_them_and_later_ones_win():
    merged = command.merged({"dtype": "bfloat16", "max_model_len": 8}, {"--dtype": "float16", "enforce-eager": True})
    assert command.rendered({**merged, "async-scheduling": False, "seed": None, "hf-overrides": {"a": [1]}}) == [
        *("--dtype", "float16", "--max-model-len", "8", "--enforce-eager", "--no-async-scheduling", "--hf-overrides", '{"a": [1]}')
    ]


def test_flags_that_change_answers_or_hide_the_server_are_refused_together():
    faults = command.flag_faults(
        "vllm.args", {"quantization": "fp8", "port": 1, "max_num_seqs": 4, "-X": 1, "kv_cache_dtype": "fp8"}, changing=False
    )
    assert [(fault.key, fault.value) for fault in faults] == [
        ("vllm.args.quantization", "fp8"),
        ("vllm.args.port", 1),
        ("vllm.args.X", 1),
        ("vllm.args.kv-cache-dtype", "fp8"),
    ]
    assert "rollouts.sampling.vllm.quantization" in str(faults[0])
    assert command.flag_faults("oracle.vllm", {"quantization": "fp8"}, changing=True) == []


@pytest.mark.parametrize(("visible", "asked", "count"), [("0,3", "8", 2), (None, "a100:4", 4), (None, "2", 2), (None, "0", 1)])
def test_gpus_are_those_visible_else_those_asked_for(monkeypatch, visible, asked, count):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert command.count_gpus(asked) == count
