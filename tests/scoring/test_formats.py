"""What each reward model is fed, token by token, and where its score comes out, on tiny models of the same kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from qup.config.schema import Reward
from qup.errors import InputError
from qup.scoring.formats import FORMATS, QWEN_SYSTEM
from qup.scoring.rewards import RewardModel, length_batches, load_reward_tokenizer
from tests.helpers.tiny import tiny_config, tiny_model, tiny_tokenizer

QUESTION = "then find 3 + 4 ?"
TRACES = ["so 3 + 4 = 7", "we get 8", "in total 3 + 4 = 7 . the answer is \\boxed{7} .", "so", "so 3 + 4 = 7"]

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"

REMOTE = '''
import torch
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast


class TinyRewardConfig(Qwen2Config):
    model_type = "tiny_reward"


class TinyForReward(Qwen2PreTrainedModel):
    """As Qwen2.5-Math-RM's own code: a two-layer head, pooled before the first pad id."""

    config_class = TinyRewardConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = torch.nn.Sequential(torch.nn.Linear(config.hidden_size, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        logits = self.score(self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
        if self.config.pad_token_id is None:
            if len(input_ids) > 1:
                raise ValueError("Cannot handle batch sizes > 1 if no padding token is defined.")
            ends = -1
        else:
            ends = (torch.eq(input_ids, self.config.pad_token_id).int().argmax(-1) - 1) % input_ids.shape[-1]
        return SequenceClassifierOutputWithPast(logits=logits[torch.arange(len(input_ids)), ends])
'''


def with_bos(tokenizer):
    """As Llama 3's: tokenising puts a BOS in front."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)])
    return tokenizer


def save(model, tokenizer, folder: Path) -> Reward:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Reward(path=str(folder), dtype="float32", device="cpu")


def classifier(folder, architecture="llama", labels=1, template=LLAMA3, **changes):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config(architecture, num_labels=labels, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), save(model, with_bos(tiny_tokenizer(template)), folder)


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def test_length_batches_hold_to_the_limit():
    lengths = [5, 30, 7, 7, 200, 1]
    batches = list(length_batches(lengths, 30))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 30 or len(batch) == 1 for batch in batches)


def test_qwen_is_fed_system_user_assistant_and_nothing_else():
    tokenizer = with_bos(tiny_tokenizer(CHATML))
    ids = FORMATS["qwen25_math_rm"].encode(tokenizer, QUESTION, TRACES[0])
    text = f"<|user|>system\n{QWEN_SYSTEM}<|end|>\n<|user|>user\n{QUESTION}<|end|>\n<|user|>assistant\n{TRACES[0]}<|end|>\n"
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    assert words(tokenizer, ids)[-2:] == ["<|end|>", "\n"]
    assert "<bos>" not in words(tokenizer, ids)
    assert "<|assistant|>" not in words(tokenizer, ids)


def test_skywork_has_one_bos_and_no_system_prompt():
    tokenizer = with_bos(tiny_tokenizer(LLAMA3))
    found = words(tokenizer, FORMATS["skywork_v2"].encode(tokenizer, QUESTION, TRACES[0]))
    assert found.count("<bos>") == 1
    assert found[0] == "<bos>"
    assert found.count("<|user|>") == 2
    assert found[-1] == "<|end|>"


def test_nemotron_has_the_templates_bos_and_no_generation_prompt():
    tokenizer = with_bos(tiny_tokenizer(LLAMA3))
    found = words(tokenizer, FORMATS["nemotron"].encode(tokenizer, QUESTION, TRACES[0]))
    assert found.count("<bos>") == 1
    assert found[-1] == "<|end|>"
    assert "<|assistant|>" not in found
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": TRACES[0]}],
        tokenize=True,
        add_generation_prompt=False,
        return_dict=True,
    )
    assert FORMATS["nemotron"].encode(tokenizer, QUESTION, TRACES[0]) == list(expected["input_ids"])


def test_the_labs_model_is_fed_what_it_was_trained_on():
    from qup.lab import tokenizer
    from qup.lab.reward import labelled

    ids = {word: index for index, word in enumerate(tokenizer.vocabulary())}
    lab = tokenizer.build()
    for labelled_trace in labelled(0, 20, ids):
        sequence = list(labelled_trace.tokens)
        text = lab.decode(sequence)
        question, _, trace = text.removeprefix("<bos> <user> ").partition(" <assistant> ")
        assert FORMATS["lab"].encode(lab, question, trace.removesuffix(" <eos>")) == sequence


def test_a_classifier_without_chat_template_reads_a_pair():
    tokenizer = with_bos(tiny_tokenizer(None))
    assert FORMATS["sequence_classification"].encode(tokenizer, "then", "so") == tokenizer("then", "so").input_ids


@pytest.mark.parametrize("form", ["skywork_v2", "sequence_classification"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_classifier_scores_are_the_last_tokens_logit(tmp_path, form, architecture):
    """Also where the pad id of the configuration is the id that every sequence ends in."""
    model, reward = classifier(tmp_path, architecture, pad_token_id=6)
    reward = Reward(**{**vars(reward), "format": form, "batch_tokens": 64})
    scorer, tokenizer = RewardModel(reward, "r"), load_reward_tokenizer(reward, "r")
    ids = [FORMATS[reward.format].encode(tokenizer, QUESTION, trace) for trace in TRACES]
    assert {sequence[-1] for sequence in ids} == {6}
    with torch.inference_mode():
        hidden = [model.model(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1] for sequence in ids]
        expected = [float(model.score(state)[0]) for state in hidden]
    assert scorer.score(ids) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(set(expected)) == 4


def test_nemotron_score_is_the_first_logit_of_the_first_generated_position(tmp_path):
    model = tiny_model("llama")
    reward = Reward(**{**vars(save(model, with_bos(tiny_tokenizer(LLAMA3)), tmp_path)), "format": "nemotron", "batch_tokens": 100})
    scorer, tokenizer = RewardModel(reward, "r"), load_reward_tokenizer(reward, "r")
    ids = [FORMATS[reward.format].encode(tokenizer, QUESTION, trace) for trace in TRACES]
    expected = []
    for sequence in ids:
        given = torch.tensor([sequence])
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=1,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        expected.append(float(made.scores[0][0][0]))
    assert scorer.score(ids) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def remote(folder: Path) -> Reward:
    """A directory with code of its own, as Qwen2.5-Math-RM's."""
    import importlib.util
    import json

    source = folder.with_name("code") / "modeling_tiny.py"
    source.parent.mkdir()
    source.write_text(REMOTE)
    spec = importlib.util.spec_from_file_location("modeling_tiny", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    settings = tiny_config("qwen2", pad_token_id=0).to_dict() | {"model_type": "tiny_reward"}
    model = module.TinyForReward(module.TinyRewardConfig(**settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reward = save(model.eval(), tiny_tokenizer(CHATML), folder)
    shutil.copy(source, folder / "modeling_tiny.py")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_tiny.TinyRewardConfig", "AutoModel": "modeling_tiny.TinyForReward"}
    (folder / "config.json").write_text(json.dumps(config))
    return model, Reward(**{**vars(reward), "format": "qwen25_math_rm", "batch_tokens": 200})


def test_qwen_score_is_the_first_output_of_the_models_own_code(tmp_path):
    model, reward = remote(tmp_path / "rm")
    reward = Reward(**{**vars(reward), "trust_remote_code": True})
    scorer, tokenizer = RewardModel(reward, "r"), load_reward_tokenizer(reward, "r")
    ids = [FORMATS[reward.format].encode(tokenizer, QUESTION, trace) for trace in TRACES]
    with torch.inference_mode():
        expected = [float(model(input_ids=torch.tensor([sequence]))[0][0, 0]) for sequence in ids]
    assert scorer.score(ids) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def published(folder: Path, **sizes: int) -> Reward:
    """A checkpoint with the key names of Qwen2.5-Math-RM-72B, and its configuration's words."""
    import json

    from safetensors.torch import save_file

    body = tiny_model("qwen2", **sizes).model
    width = body.config.hidden_size
    generator = torch.Generator().manual_seed(3)
    head = {"score.0.weight": (width, width), "score.0.bias": (width,), "score.2.weight": (1, width), "score.2.bias": (1,)}
    weights = {f"model.{name}": tensor for name, tensor in body.state_dict().items()}
    weights |= {name: torch.randn(shape, generator=generator) for name, shape in head.items()}
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    code = {"AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig", "AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel"}
    config = body.config.to_dict() | {"architectures": ["Qwen2ForRewardModel"], "auto_map": code, "pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    tiny_tokenizer(CHATML).save_pretrained(folder)
    return Reward(path=str(folder), dtype="float32", format="qwen25_math_rm", batch_tokens=120, max_length=256)


def test_the_published_qwen_checkpoint_is_scored_without_its_code(tmp_path):
    """Against the body of a Qwen2 model of transformers and two matrix products written out here."""
    from safetensors.torch import load_file
    from transformers import Qwen2Model

    reward = published(tmp_path / "rm")
    scorer, tokenizer = RewardModel(reward, "r"), load_reward_tokenizer(reward, "r")
    ids = [FORMATS[reward.format].encode(tokenizer, QUESTION, trace) for trace in TRACES]
    weights = load_file(tmp_path / "rm" / "model.safetensors")
    body = Qwen2Model.from_pretrained(reward.path, dtype=torch.float32).eval()
    expected = []
    for sequence in ids:
        with torch.inference_mode():
            state = body(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]
        inner = torch.clamp(weights["score.0.weight"] @ state + weights["score.0.bias"], min=0)
        expected.append(float(weights["score.2.weight"][0] @ inner + weights["score.2.bias"][0]))
    assert scorer.score(ids) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert len({round(score, 3) for score in expected}) == 4
    assert scorer.limit == 256


def test_a_config_that_asks_for_the_models_code_is_told_why_it_failed(tmp_path):
    _, reward = remote(tmp_path / "rm")
    code = tmp_path / "rm" / "modeling_tiny.py"
    code.write_text("from transformers.modeling_attn_mask_utils import gone_long_ago\n" + code.read_text())
    asked = Reward(**{**vars(reward), "trust_remote_code": True})
    with pytest.raises(
        InputError,
        match=r"reward\.r\.path=.*the code that comes with this model does not run under transformers 5.*ModuleNotFoundError.*modeling_attn_mask_utils",
    ):
        RewardModel(asked, "r")


def test_code_that_fails_only_when_it_scores_is_told_as_well(tmp_path):
    _, reward = remote(tmp_path / "rm")
    code = tmp_path / "rm" / "modeling_tiny.py"
    code.write_text(code.read_text().replace("logits = self.score", "attention_mask.from_legacy_cache; logits = self.score"))
    scorer = RewardModel(Reward(**{**vars(reward), "trust_remote_code": True}), "r")
    with pytest.raises(
        InputError, match=r"reward\.r: the code that comes with this model does not run .*AttributeError.*from_legacy_cache"
    ):
        scorer.score([[1, 2, 3]])


def test_code_is_not_run_unasked(tmp_path):
    _, reward = remote(tmp_path / "rm")
    with pytest.raises(InputError, match=r"reward\.r\.path=.*trust_remote_code"):
        RewardModel(Reward(**{**vars(reward), "format": "sequence_classification"}), "r")
    with pytest.raises(InputError, match=r"reward\.r\.trust_remote_code: running code of the hub model org/rm needs reward\.r\.revision"):
        RewardModel(Reward(path="org/rm", format="qwen25_math_rm", trust_remote_code=True), "r")


def test_a_body_without_a_head_is_no_reward_model(tmp_path):
    reward = save(tiny_model("qwen2").model, tiny_tokenizer(CHATML), tmp_path)
    with pytest.raises(InputError, match=r"weights are missing \(score.0.bias, score.0.weight, score.2.bias\); its scores would be random"):
        RewardModel(Reward(**{**vars(reward), "format": "qwen25_math_rm"}), "r")


def test_two_labels_are_refused(tmp_path):
    _, reward = classifier(tmp_path, labels=2)
    with pytest.raises(InputError, match=r"a model with 2 labels; a reward model has one"):
        RewardModel(Reward(**{**vars(reward), "format": "skywork_v2"}), "r")


def test_a_head_with_random_weights_is_refused(tmp_path):
    model = tiny_model("llama")
    model.config.num_labels = 1
    reward = save(model, tiny_tokenizer(LLAMA3), tmp_path)
    with pytest.raises(InputError, match=r"weights are missing \(score.weight\); its scores would be random"):
        RewardModel(Reward(**{**vars(reward), "format": "sequence_classification"}), "r")


def test_missing_models_are_named(tmp_path):
    for settings, message in (
        ({"path": ""}, r"reward\.r\.path is empty"),
        ({"path": str(tmp_path / "none")}, r"there is no such directory"),
        ({"path": str(tmp_path)}, r"no reward model could be loaded"),
    ):
        with pytest.raises(InputError, match=message):
            RewardModel(Reward(format="nemotron", **settings), "r")
