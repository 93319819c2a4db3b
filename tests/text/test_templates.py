"""Prompts: what each template writes, and what is refused."""

import pytest

from qup.config.schema import TEMPLATES as NAMES
from qup.errors import InputError
from qup.lab.tokenizer import build
from qup.text.templates import BOXED, TEMPLATES, ending, messages, render, template_hash
from tests.helpers.tiny import tiny_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_every_name_of_the_schema_is_a_template():
    assert set(TEMPLATES) == set(NAMES)


def test_qwen_boxed_is_the_prompt_of_the_dft_evaluation():
    assert render(tiny_tokenizer(CHATML), "qwen_boxed", "1+1?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n1+1?\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_dft_evaluation_s_prompts_of_the_other_families():
    assert render(tiny_tokenizer(None), "deepseek_math", "1+1?") == (
        "User: 1+1?\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    )
    assert render(tiny_tokenizer(None), "llama_base_boxed", "1+1?") == (
        "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant.<|end_of_text|>\n"
        "<|start_header_id|>user<|end_header_id|>\n\n1+1?\nPlease reason step by step, and put your final answer within \\boxed{}."
        "<|end_of_text|>\n<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize(
    "dated", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}"]
)
def test_a_template_that_prints_the_date_writes_the_same_prompt_every_day(dated):
    assert render(tiny_tokenizer(dated + "{{ messages[-1]['content'] }}"), "tokenizer", "1+1?") == "26 Jul 20241+1?"


def test_qwen25_math_cot_puts_the_instruction_into_the_system_turn():
    assert messages("qwen25_math_cot", "1+1?") == [{"role": "system", "content": BOXED}, {"role": "user", "content": "1+1?"}]


def test_a_question_with_braces_stays_as_it_is():
    assert "{x} {question}" in render(tiny_tokenizer(), "qwen_boxed", "find {x} {question}")


def test_a_plain_template_needs_no_chat_template():
    assert render(tiny_tokenizer(None), "plain_boxed", "1+1?").startswith("1+1?\nPlease reason")
    assert ending(tiny_tokenizer(None), "plain_boxed") == ""


@pytest.mark.parametrize("name", [name for name, kind in TEMPLATES.items() if kind.chat])
def test_without_a_chat_template_the_others_are_refused(name):
    with pytest.raises(InputError, match=rf"model.template='{name}'.*no chat template.*plain_boxed"):
        render(tiny_tokenizer(None), name, "1+1?")


def test_the_ending_is_what_follows_the_assistants_text():
    assert ending(tiny_tokenizer(), "tokenizer") == "<|end|>"
    assert ending(tiny_tokenizer(CHATML), "tokenizer") == "<|im_end|>\n"


def test_a_template_without_assistant_part_is_refused():
    deaf = tiny_tokenizer("{% for m in messages %}{% if m['role'] != 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}")
    with pytest.raises(InputError, match="leaves the assistant's part out"):
        template_hash(deaf, "tokenizer")


def test_a_template_that_refuses_a_role_is_one_clear_error():
    strict = tiny_tokenizer(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
    )
    with pytest.raises(InputError, match="refuses it: no system role"):
        render(strict, "qwen_boxed", "1+1?")


def test_the_hash_tells_templates_instructions_and_tokenizers_apart():
    hashes = [
        template_hash(tokenizer, name)
        for tokenizer in (tiny_tokenizer(), tiny_tokenizer(CHATML))
        for name in ("tokenizer", "lab", "qwen_boxed")
    ]
    assert len(set(hashes)) == 6
    assert template_hash(tiny_tokenizer(), "lab") == hashes[1]


def test_a_style_prompt_ends_in_the_styles_first_words():
    tokenizer = build()
    plain = tokenizer(render(tokenizer, "lab", "She"), add_special_tokens=False).input_ids
    styled = tokenizer(render(tokenizer, "lab_sequential", "She"), add_special_tokens=False).input_ids
    assert styled[: len(plain)] == plain
    assert tokenizer.convert_ids_to_tokens(styled[len(plain) :]) == ["given", ":"]
