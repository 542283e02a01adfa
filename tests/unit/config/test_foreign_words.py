"""Words of other balancers lead to keys that exist."""

from __future__ import annotations

import re

import pytest

from lbproxy.config import foreign_words, model
from lbproxy.config.notation import Section
from lbproxy.config.sections import section_at
from lbproxy.config.server_model import BUILT_IN_STRATEGIES

WORDS = [(section, word) for section, table in foreign_words._BY_SECTION.items() for word in table]


@pytest.mark.parametrize(
    ("section", "word", "hint"),
    [
        ("Pool", "balance", "did you mean strategy?"),
        ("Pool", "Max-Conn", "did you mean max_inflight?"),
        ("Config", "upstream", "did you mean pools?"),
        ("Config", "timeout", "did you mean listeners[].timeouts or pools.NAME.timeouts?"),
        ("Listener", "maxconn", "did you mean limits.connections (at the top level)?"),
        ("ServerSpec", "port", "write it behind the address, `address: host:port`"),
        ("Pool", "nobody knows", ""),
        ("NoSection", "balance", ""),
    ],
)
def test_what_is_said(section: str, word: str, hint: str) -> None:
    assert foreign_words.key(section, word) == hint


def path_of(section: str, ours: str) -> tuple[str | int, ...]:
    names: list[str | int] = []
    for part in ours.removesuffix(" (at the top level)").split("."):
        name = part.removesuffix("[]")
        names += [name, 0] if part.endswith("[]") else [name]
    return tuple(names)


def exists(section: type[Section], parts: tuple[str | int, ...]) -> bool:
    """Walks `pools.NAME.x` and `x.y` from a model."""
    if parts[0] in ("pools", "listeners"):
        found = section_at(tuple(parts[:-1]))
        return (found is not None and parts[-1] in found.model_fields) or len(parts) == 1
    from lbproxy.config.sections import section_of

    inner: object = section
    for part in (part for part in parts if isinstance(part, str)):
        if not (isinstance(inner, type) and issubclass(inner, Section)) or part not in inner.model_fields:
            return False
        inner = section_of(inner.model_fields[part].annotation)
    return True


@pytest.mark.parametrize(("section", "word"), WORDS)
def test_every_key_that_is_named_exists(section: str, word: str) -> None:
    ours = foreign_words._BY_SECTION[section][word]
    hint = foreign_words.key(section, word)
    assert hint
    if not hint.startswith("did you mean "):
        assert " " in ours
        return
    for choice in ours.split(" or "):
        key = re.sub(r":.*", "", choice)
        makers = [getattr(model, section, None)] if "top level" not in choice else []
        if key.partition(".")[0] in model.Config.model_fields or "top level" in choice:
            makers.append(model.Config)
        makers.append(model.Pool)
        from lbproxy.config import http_rules, listener_model, pool_model, queue_model, server_model

        for home in (http_rules, listener_model, pool_model, queue_model, server_model):
            makers.append(getattr(home, section, None))
        assert any(made is not None and exists(made, path_of(section, key)) for made in makers), (section, word, choice)


@pytest.mark.parametrize("word", list(foreign_words._STRATEGIES))
def test_every_strategy_that_is_named_exists(word: str) -> None:
    assert foreign_words.strategy(word) in BUILT_IN_STRATEGIES
    assert foreign_words.strategy(word.upper().replace("_", "-")) == foreign_words.strategy(word)


def test_no_word_is_one_of_ours() -> None:
    """It would hide the key itself."""
    for section, table in foreign_words._BY_SECTION.items():
        for maker in (getattr(model, section, None),):
            if maker is not None:
                assert not set(table) & set(maker.model_fields), section


@pytest.mark.parametrize(
    ("data", "program"),
    [
        ({"static_resources": {}}, "Envoy"),
        ({"entryPoints": {}}, "Traefik"),
        ({"http": {"routers": {}}}, "Traefik"),
        ({"http": {"server": {}}}, ""),
        ({"services": {}, "volumes": {}}, "Docker Compose"),
        ({"services": {}}, ""),
        ({"apiVersion": "v1", "kind": "Service"}, "Kubernetes"),
        ({"kind": "uvicorn"}, ""),
        ({"listeners": [], "static_resources": {}}, ""),
        ({7: 8}, ""),
        ([], ""),
    ],
)
def test_whose_file_it_is(data: object, program: str) -> None:
    assert foreign_words.program_of_keys(data) == program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("frontend web bind *:80", "haproxy"),
        ("server { listen 80; }", "nginx"),
        (":80 { reverse_proxy a:1 }", "Caddy"),
        ("a.example { respond hello }", "Caddy"),
        ("hello", ""),
        ("{", ""),
    ],
)
def test_whose_text_it_is(text: str, program: str) -> None:
    assert foreign_words.program_of_text(text) == program
