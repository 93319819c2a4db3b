"""Reaching a server, in spite of the environment."""

import pytest

from qup.serving.http import fetch_json, http_client, is_loopback
from qup.serving.models import served
from tests.helpers.fake_server import Behaviour, serving


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://127.1.2.3", True),
        ("https://api.openai.com/v1", False),
        ("http://10.0.0.7:8000", False),
        (None, False),
    ],
)
def test_loopback_is_known(url, own):
    assert is_loopback(url) is own


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    import openai

    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(Behaviour(models=("m",))) as url:
        root = url.removesuffix("/v1")
        assert fetch_json(f"{root}/version", timeout_s=5)["version"] == "0.0.fake"
        assert [model["id"] for model in served(root, None)] == ["m"]
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=http_client(url))
        assert client.completions.create(model="m", prompt=[1], max_tokens=5).choices
        away = openai.OpenAI(
            base_url="http://10.255.255.1/v1", api_key="none", max_retries=0, http_client=http_client("http://10.255.255.1/v1")
        )
        with pytest.raises(openai.APIConnectionError, match="Connection error"):
            away.models.list()
