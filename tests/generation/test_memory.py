"""Keys and values that do not fit are told before anything is drawn."""

import pytest

from qup.config.schema import Model, Sampling, Vllm
from qup.errors import InputError
from qup.generation import Student, clamp, memory, open_backend
from qup.generation.llama import LeanDecoder
from tests.helpers.artifacts import context
from tests.helpers.tiny import make_tiny, tiny_config, tiny_model


def test_a_rows_bytes_are_those_that_a_prefill_leaves():
    model = tiny_model("llama")
    prefix, _ = LeanDecoder(model).prefill([[5, 6, 7]])
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*prefix.keys, *prefix.values))
    assert memory.row_bytes(model.config, 3, 4) == held


def test_deepseekmath_takes_half_a_megabyte_a_token():
    """30 layers of 32 heads of 128, two bytes each, keys and values."""
    config = tiny_config("llama", num_hidden_layers=30, num_attention_heads=32, num_key_value_heads=32, head_dim=128)
    assert memory.row_bytes(config, 4096, 2) == 4096 * 491_520


@pytest.mark.parametrize(("free", "fits"), [(100_000, False), (10_000_000, True)])
def test_rows_that_cannot_fit_are_refused_with_the_number_that_do(tmp_path, monkeypatch, free, fits):
    student = Student.open(Model(path=str(make_tiny(tmp_path / "m")), template="tokenizer"), None)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    sampling = Sampling(n=4, rows=64, max_new_tokens=100, seed=0)
    requests = clamp([student.request(str(p), "find 3", 4) for p in range(20)], student.context, 100, 1)
    with open_backend(student, sampling, context(tmp_path), Vllm()) as backend:
        if fits:
            assert len(dict(backend.generate(requests))) == 20
            return
        longest = len(requests.requests[0].prompt_ids) + 100
        with pytest.raises(InputError, match=rf"sampling.rows=64: .* up to {longest} tokens .* (\d+) rows fit") as told:
            dict(backend.generate(requests))
    fitting = int(str(told.value).rpartition(";")[2].split()[0])
    each = memory.COPIES * memory.row_bytes(tiny_config("llama"), longest, 4)
    assert fitting * each <= free < (fitting + 1) * each
