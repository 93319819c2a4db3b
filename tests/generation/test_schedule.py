"""In-process generation: the model's own distribution, whatever runs side by side."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from qup.config.schema import Sampling
from qup.errors import InputError, Interrupted
from qup.generation import Request, clamp, sample
from qup.generation.decoder import GenericDecoder
from qup.generation.llama import LeanDecoder, supports
from qup.generation.schedule import Schedule
from tests.helpers.tiny import tiny_model

STOPS = (2, 50, 51)
LENGTHS = (5, 17, 9, 30, 12, 3, 22, 11)


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def requests(lengths=LENGTHS, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prompts = [tuple(torch.randint(7, 90, (length,), generator=generator).tolist()) for length in lengths]
    return [Request(f"p{index}", prompt, n) for index, prompt in enumerate(prompts)]


def settings(**changes):
    return Sampling(**{"n": 4, "rows": 10, "seed": 3, "max_new_tokens": 40, "min_new_tokens": 8} | changes)


def generate(model, asked, sampling, decoder=None, context=256):
    clamped = clamp(asked, context, sampling.max_new_tokens, sampling.min_new_tokens)
    if decoder is None:
        return dict(sample(model, clamped, sampling, STOPS))
    return dict(Schedule(decoder(model), clamped, sampling, STOPS).run())


@torch.no_grad()
def reference(model, prompt, response):
    """Log-probabilities of a response by the model's plain forward pass, one sequence at a time."""
    logits = model(torch.tensor([[*prompt, *response]], device=model.device)).logits[0].float().log_softmax(-1)
    return logits[range(len(prompt) - 1, len(prompt) + len(response) - 1), list(response)].cpu()


def greedy(model, prompt, new=40):
    """What transformers continues a prompt with."""
    ids = torch.tensor([prompt], device=model.device)
    told = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, eos_token_id=list(STOPS), pad_token_id=0
    )
    return told[0, len(prompt) :].tolist()


def gaps(model, asked, found):
    """Of all drawn tokens: how far their log-probabilities are from those of the model's plain forward pass."""
    return torch.cat(
        [
            (reference(model, asked[index].prompt_ids, one.token_ids) - torch.tensor(one.logprob_T)).abs()
            for index, samples in found.items()
            for one in samples
        ]
    )


def check_ends(found):
    """Every response ends at a stop id, or at its limit of 40 tokens."""
    every = [one for samples in found.values() for one in samples]
    finishes = Counter(one.finish for one in every)
    assert min(finishes["stop"], finishes["length"]) > 0
    for one in every:
        assert not set(one.token_ids[:-1]) & set(STOPS)
        assert (one.token_ids[-1] in STOPS) == (one.finish == "stop")
        assert len(one.token_ids) == 40 or one.finish == "stop"
        assert len(one.logprob_T) == len(one.token_ids)


ARCHITECTURES = {
    "llama": ("llama", {}, True),
    "llama tied, biases, no groups": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
        True,
    ),
    "llama 3 positions": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        True,
    ),
    "qwen2": ("qwen2", {}, True),
    "qwen3": ("qwen3", {}, True),
    "mistral": ("mistral", {"sliding_window": None}, True),
    "mistral, sliding window": ("mistral", {"sliding_window": 8}, False),
    "gemma2": ("gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 8}, False),
    "gpt2": ("gpt2", {"n_positions": 256}, False),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_an_unbatched_forward_pass(name, monkeypatch):
    architecture, changes, lean = ARCHITECTURES[name]
    model = tiny_model(architecture, **changes)
    assert supports(model) == lean
    asked = requests()
    for decoder, fuse_below in [(GenericDecoder, 0), *([(LeanDecoder, 0), (LeanDecoder, 10**9)] if lean else [])]:
        monkeypatch.setattr("qup.generation.llama.FUSE_BELOW", fuse_below)
        found = generate(model, asked, settings(), decoder)
        assert gaps(model, asked, found).max() < 1e-4, decoder


def test_half_precision_stays_near_the_models_own_forward_pass():
    model = tiny_model("qwen2").bfloat16()
    asked = requests((5, 17, 9))
    for decoder in (LeanDecoder, GenericDecoder):
        found = generate(model, asked, settings(), decoder)
        assert gaps(model, asked, found).mean() < 0.05


def test_a_sample_does_not_depend_on_what_runs_beside_it(llama):
    asked = requests()
    whole = generate(llama, asked, settings())
    assert set(whole) == set(range(len(asked)))
    for index in (0, 3, 5):
        alone = generate(llama, [asked[index]], settings(rows=3))[0]
        assert [one.token_ids for one in alone] == [one.token_ids for one in whole[index]]
    fewer = generate(llama, [Request("p3", asked[3].prompt_ids, 2)], settings())[0]
    assert [one.token_ids for one in fewer] == [one.token_ids for one in whole[3][:2]]


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(llama):
    first, second = generate(llama, requests(), settings()), generate(llama, requests(), settings())
    assert first == second
    assert list(first) == list(second)
    assert generate(llama, requests(), settings(seed=4)) != first


def test_rows_stay_within_their_number_and_memory_within_its_bound(llama):
    widths, columns = [], []

    class Watched(LeanDecoder):
        def step(self, blocks, token_R, position_R):
            widths.append(sum(len(block) for block in blocks))
            columns.append(sum(block.keys[0].shape[0] * block.keys[0].shape[2] for block in blocks))
            return super().step(blocks, token_R, position_R)

    generate(llama, requests(), settings(rows=9), Watched)
    assert max(widths) <= 9
    assert np.mean(widths[: len(widths) // 2]) > 6
    assert max(columns) <= 2 * 9 * (max(LENGTHS) + 40)


def test_each_prompt_is_read_once_longest_first(llama):
    read = []

    class Watched(LeanDecoder):
        def prefill(self, prompts):
            read.extend(len(prompt) for prompt in prompts)
            return super().prefill(prompts)

    generate(llama, requests(), settings(), Watched)
    assert read == sorted(LENGTHS, reverse=True)


def test_more_samples_than_rows_are_drawn_in_turns(llama):
    found = generate(llama, requests((6,), n=25), settings(n=25, rows=10))[0]
    assert len(found) == 25
    assert [one.token_ids for one in found] == [one.token_ids for one in generate(llama, requests((6,), n=25), settings(n=25, rows=64))[0]]


def test_a_response_ends_at_a_stop_id_or_at_its_limit(llama):
    check_ends(generate(llama, requests(), settings()))


def test_prompt_and_response_together_fit_the_context(llama):
    asked = requests((30, 10))
    clamped = clamp(asked, 48, 40, 8)
    assert clamped.room == (18, 38)
    assert clamped.n_clamped == 2
    found = generate(llama, asked, settings(), context=48)
    assert max(len(one.token_ids) for one in found[0]) <= 18


def test_a_prompt_that_leaves_no_room_is_refused_by_name():
    with pytest.raises(InputError, match=r"problem p0: its prompt has 30 tokens and leaves 10 of the context of 40; at least 16"):
        clamp(requests((30,)), 40, 100, 16)
    with pytest.raises(InputError, match="problem p9: its prompt has no token"):
        clamp([Request("p9", (), 1)], 40, 100, 16)


def test_greedy_samples_are_equal_and_drawn_once(llama):
    steps = []

    class Watched(LeanDecoder):
        def step(self, blocks, token_R, position_R):
            steps.append(len(token_R))
            return super().step(blocks, token_R, position_R)

    asked = requests((6, 9))
    found = generate(llama, asked, settings(temperature=0.0), Watched)
    assert max(steps) <= 2
    assert list(found[0][0].token_ids) == greedy(llama, asked[0].prompt_ids)
    assert found[0] == [found[0][0]] * 4


def test_tokens_are_distributed_as_those_of_transformers_generate(llama):
    n, new = 600, 6
    prompt = requests((8,))[0].prompt_ids
    ours = generate(llama, [Request("p", prompt, n)], settings(n=n, rows=200, max_new_tokens=new, min_new_tokens=1))[0]
    torch.manual_seed(0)
    ids = torch.tensor([prompt])
    theirs = llama.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        num_return_sequences=n,
        max_new_tokens=new,
        eos_token_id=list(STOPS),
        pad_token_id=0,
    )[:, len(prompt) :].tolist()
    for position in range(new):
        mine = Counter(one.token_ids[position] for one in ours if len(one.token_ids) > position)
        peer = Counter(row[position] for row in theirs if not set(row[:position]) & set(STOPS))
        common = [token for token, _ in (mine + peer).most_common(12)]
        table = [
            [count[token] for token in common] + [sum(count.values()) - sum(count[token] for token in common)] for count in (mine, peer)
        ]
        assert chi2_contingency(np.array(table) + 1).pvalue > 1e-3, position


def test_it_stops_when_asked(llama):
    clamped = clamp(requests(), 256, 40, 8)
    calls = iter([False] * 5 + [True] * 100)
    with pytest.raises(Interrupted):
        dict(sample(llama, clamped, settings(), STOPS, stopping=lambda: next(calls)))


def test_a_model_with_state_beyond_keys_and_values_is_refused():
    with pytest.raises(InputError, match="backend=vllm is valid"):
        GenericDecoder(tiny_model("mamba", state_size=4, num_hidden_layers=1))
