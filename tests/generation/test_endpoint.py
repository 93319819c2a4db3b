"""Generation through an OpenAI-compatible chat endpoint."""

import math

import pytest

from qup.config.schema import Model, Sampling, Vllm
from qup.errors import InputError, Interrupted, QupError
from qup.generation import Student, clamp, open_backend
from qup.generation import endpoint as module
from tests.helpers.artifacts import context
from tests.helpers.fake_server import END, Behaviour, serving
from tests.helpers.tiny import make_tiny

N = 3


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return Student.open(Model(path=str(make_tiny(tmp_path_factory.mktemp("tiny"))), template="qwen_boxed"), None)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    import tenacity

    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: lambda state: 0.01)


def ask(student, how, tmp_path, problems=2, url=None, stopping=lambda: False, **changes):
    settings = {"n": N, "backend": "openai", "served_model": "m", "max_new_tokens": 20, "seed": 1, "temperature": 0.7} | changes
    with serving(how) as address:
        sampling = Sampling(base_url=url or address, **settings)
        clamped = clamp([student.request(f"p{i}", f"find {i}", N) for i in range(problems)], student.context, sampling.max_new_tokens, 1)
        with open_backend(student, sampling, context(tmp_path, stopping=stopping), Vllm()) as backend:
            return dict(backend.generate(clamped))


def test_a_request_carries_conversation_settings_and_seed(student, tmp_path):
    how = Behaviour()
    found = ask(student, how, tmp_path, min_p=0.1)
    assert {index: len(samples) for index, samples in found.items()} == {0: N, 1: N}
    body = next(body for body in how.requests if "find 1" in body["messages"][1]["content"])
    assert body["messages"][0] == {"role": "system", "content": "You are a helpful assistant."}
    assert (body["n"], body["temperature"], body["max_tokens"], body["min_p"], body["model"]) == (N, 0.7, 20, 0.1, "m")
    assert "top_k" not in body
    assert how.requests[0]["seed"] != how.requests[1]["seed"]


def test_ids_are_the_local_tokenizers_and_end_in_the_stop_token(student, tmp_path):
    one = ask(student, Behaviour(), tmp_path)[0][0]
    assert one.text == "so 7"
    assert one.finish == "stop"
    assert one.token_ids[-1] == END
    assert one.logprob_T[:2] == (-0.5, -0.5)
    assert math.isnan(one.logprob_T[2])


def test_a_response_cut_at_the_limit_has_no_stop_token(student, tmp_path):
    one = ask(student, Behaviour(), tmp_path, max_new_tokens=1)[0][0]
    assert one.finish == "length"
    assert one.token_ids[-1] != END


def test_without_log_probabilities_they_are_unknown(student, tmp_path):
    one = ask(student, Behaviour(logprobs=False), tmp_path)[0][0]
    assert all(math.isnan(value) for value in one.logprob_T)
    assert len(one.logprob_T) == len(one.token_ids)


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds(student, tmp_path):
    how = Behaviour(ignores_n=True)
    assert len(ask(student, how, tmp_path, problems=1)[0]) == N
    assert [body["n"] for body in how.requests] == [3, 2, 1]
    assert len({body["seed"] for body in how.requests}) == 3


@pytest.mark.parametrize("refuses", [("logprobs",), ("seed",), ("logprobs", "seed", "n")])
def test_fields_that_a_server_refuses_are_left_out(student, tmp_path, refuses):
    how = Behaviour(refuses=refuses)
    assert len(ask(student, how, tmp_path, problems=1)[0]) == N
    assert not set(refuses) & set(how.requests[-1])


def test_passing_faults_are_tried_again(student, tmp_path):
    how = Behaviour(failures=[(429, {"Retry-After": "0"}), (500, {}), (503, {})])
    assert len(ask(student, how, tmp_path, problems=1)[0]) == N
    assert len(how.requests) == 4


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refused the key"), (403, "refused the key"), (404, "knows no model 'm'"), (400, "refuses problem p0")]
)
def test_hopeless_faults_end_it_at_once(student, tmp_path, status, said):
    how = Behaviour(failures=[(status, {})] * 50)
    with pytest.raises(InputError, match=said):
        ask(student, how, tmp_path, problems=1)
    assert len(how.requests) <= 4


def test_a_server_that_stays_broken_is_given_up(student, tmp_path):
    how = Behaviour(failures=[(500, {})] * 50)
    with pytest.raises(InputError, match=f"500 after {module.ATTEMPTS} attempts"):
        ask(student, how, tmp_path, problems=1)


def test_an_unreachable_server_is_named(student, tmp_path):
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/v1 can't be reached"):
        ask(student, Behaviour(), tmp_path, url="http://127.0.0.1:9/v1")


def test_a_server_that_never_answers_is_given_up(student, tmp_path, monkeypatch):
    monkeypatch.setattr(module.Endpoint.__init__, "__kwdefaults__", {**module.Endpoint.__init__.__kwdefaults__, "timeout_s": 0.2})
    how = Behaviour(silent_s=1)
    with pytest.raises(InputError, match=r"did not answer within 0.2 s, twice"):
        ask(student, how, tmp_path, problems=1)
    assert len(how.requests) == 2


def test_a_server_without_choices_is_given_up(student, tmp_path):
    with pytest.raises(QupError, match="without a single finished choice"):
        ask(student, Behaviour(choices=0), tmp_path, problems=1)


def test_it_stops_when_asked(student, tmp_path):
    with pytest.raises(Interrupted):
        ask(student, Behaviour(), tmp_path, stopping=lambda: True)


def test_a_local_server_of_another_model_is_refused_before_anything_is_drawn(student, tmp_path):
    how = Behaviour(models=("org/other", "org/third"))
    with pytest.raises(InputError, match=r"sampling.served_model='m': .* serves org/other, org/third"):
        ask(student, how, tmp_path)
    assert how.requests == []


def test_another_reason_for_an_end_is_kept_as_told(student, tmp_path):
    one = ask(student, Behaviour(finish="repetition"), tmp_path)[0][0]
    assert one.finish == "repetition"
    assert one.token_ids[-1] != END


def test_greedy_responses_are_asked_for_once(student, tmp_path):
    how = Behaviour(greedy_n=False)
    assert len(ask(student, how, tmp_path, problems=1, temperature=0.0)[0]) == N
    assert [body["n"] for body in how.requests] == [1]
