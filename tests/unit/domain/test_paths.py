"""Paths: what rules see, what servers get, and what is refused because servers do not agree on it."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.paths import BadPath, PathRules, comparable, normalise_path, rewrite_path
from lbproxy.domain.routing import MatchSpec, Router, RouteSpec

NORMALISE = PathRules()
PASSES = PathRules(passes_slashes=True)


@pytest.mark.parametrize(
    ("raw", "sent", "readings"),
    [
        ("/plain/path-1._~!$&'()*+,=:@", None, None),
        ("*", None, None),
        ("", None, None),
        ("//admin", "/admin", None),
        ("/a///b//", "/a/b/", None),
        ("/%61dmin", "/admin", None),
        ("/%2561dmin", "/%2561dmin", None),
        ("/.well-known//x", "/.well-known/x", None),
        ("/a%3ab", "/a%3Ab", ("/a:b",)),
        ("/a%21", "/a%21", ("/a!",)),
        ('/[a]|"', '/[a]|"', ("/%5Ba%5D%7C%22",)),
        ("/%5ba%5d", "/%5Ba%5D", ("/%5Ba%5D",)),
        ("/caf%c3%a9", "/caf%C3%A9", None),
        ("/a;x", "/a;x", ("/a;x", "/a")),
        ("/;x/a;y=1;z/b", "/;x/a;y=1;z/b", ("/;x/a;y=1;z/b", "/a/b")),
        ("/a%3bx/b", "/a%3Bx/b", ("/a%3Bx/b", "/a;x/b", "/a/b")),
    ],
)
def test_what_is_read(raw: str, sent: str | None, readings: tuple[str, ...] | None) -> None:
    read = NORMALISE.read(raw)
    assert read.sent == (raw if sent is None else sent)
    assert read.readings == (readings or (read.sent,))


@pytest.mark.parametrize(
    "raw",
    [
        "/..", "/.", "/a/../b", "/a/.", "/./a", "/.//a", "/a/%2e%2e/b", "/a/.%2E", "/a/..;x=1/b", "/a/%2e;/b",
        "/a//../b", "/a\\b", "/\\..\\a", "/a%5cb", "/a%2fb", "/a%00", "/a\x00", "/a%", "/a%4", "/a%zz", "/%u0061",
        "/%%32e", "/%c0%af", "/%C0%ae%c0%AE/a", "/%c1%9c", "/%e0%80%af", "/%F0%80%80%AF",
    ],
)  # fmt: skip
def test_what_is_refused(raw: str) -> None:
    for rules in (NORMALISE, PathRules("strict")):
        with pytest.raises(BadPath):
            rules.read(raw)


@pytest.mark.parametrize(
    ("raw", "readings"),
    [
        ("/a%2fb", ("/a%2Fb", "/a/b")),
        ("/a%5Cb", ("/a%5Cb", "/a/b")),
        ("/%2fa%2f%2fb", ("/%2Fa%2F%2Fb", "/a/b")),
        ("/a%2fb;c", ("/a%2Fb;c", "/a/b;c", "/a%2Fb", "/a/b")),
    ],
)
def test_encoded_slashes_that_pass_are_one_reading_more(raw: str, readings: tuple[str, ...]) -> None:
    read = PASSES.read(raw)
    assert read.readings == readings and read.sent == re.sub("%..", lambda found: found[0].upper(), raw)


@pytest.mark.parametrize("raw", ["/a%2f..%2fb", "/a%5c..", "/..%2fa", "/a/.%2Fb", "/%2e%2f", "/a%2f;/..", "/a%2f..;x"])
def test_no_dot_segment_hides_behind_an_encoded_slash(raw: str) -> None:
    with pytest.raises(BadPath):
        PASSES.read(raw)


def test_strict_refuses_what_normalising_would_change() -> None:
    strict = PathRules("strict")
    for raw in ("//a", "/%61", "/a%c3%a9", "/a//"):
        assert NORMALISE.read(raw).sent != raw
        with pytest.raises(BadPath, match="strict"):
            strict.read(raw)
    for raw in ("/a", "/a%C3%A9", "/a;b", "/a/"):
        assert strict.read(raw).sent == raw


def test_raw_looks_at_nothing() -> None:
    for raw in ("//a/../b", "/%61", "/a%", "/a\\b"):
        read = PathRules("raw").read(raw)
        assert (read.sent, read.readings) == (raw, (raw,))


@pytest.mark.parametrize("text", ["/a!b", "/a%21b", "/caf\u00e9", "/[x]", "/a b", "/%7euser", "//a", "/a;b"])
def test_a_path_of_the_config_is_in_the_form_that_is_compared(text: str) -> None:
    configured = NORMALISE.configured(text)
    assert configured == NORMALISE.read(configured).readings[0] == comparable(normalise_path(configured))


# --- servers --------------------------------------------------------------------------------------------------------
# How servers come from a path to what their routes compare. None of them is any program exactly; together they do what
# programs are known to do.


def _merged(path: str) -> str:
    return re.sub("/+", "/", path)


def _resolved(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")


def flask(path: str) -> str:
    return _merged(_decoded(path))


def resolves_first(path: str) -> str:
    return _decoded(_resolved(path))


def resolves_last(path: str) -> str:
    return _resolved(_decoded(path))


def tomcat(path: str) -> str:
    return _resolved(_decoded(re.sub(";[^/]*", "", path)))


def strips_what_was_encoded(path: str) -> str:
    return _resolved(re.sub(";[^/]*", "", _decoded(path)))


def windows(path: str) -> str:
    return _resolved(_decoded(path).replace("\\", "/"))


def slashes_stay_encoded(path: str) -> str:
    return _resolved(path.replace("%2F", "_").replace("%5C", "_"))


MODELS = (flask, resolves_first, resolves_last, tomcat, strips_what_was_encoded, windows, slashes_stay_encoded)
PIECES = st.sampled_from(
    (
        "/", "//", "admin", "%61dmin", "adm", "in", "x", ".", "..", "%2e", "%2E", ";", ";x", "%3b", "%2f", "%5C", "\\",
        "%", "25", "%252e", "%00", "%20", "!", "%21", "%c0%af",
    )
)  # fmt: skip
SPELLINGS = st.lists(PIECES, max_size=8).map(lambda pieces: "/" + "".join(pieces))


def is_protected(path: str) -> bool:
    return path == "/admin" or path.startswith("/admin/")


@given(SPELLINGS, st.sampled_from([NORMALISE, PASSES, PathRules("strict")]))
def test_what_a_rule_lets_pass_no_server_takes_for_what_it_closes(raw: str, rules: PathRules) -> None:
    router = Router.compile([RouteSpec(MatchSpec(path_prefix="/admin")), RouteSpec()], rules)
    try:
        choice = router.choose("GET", "h", raw, "", {})
    except BadPath:
        return
    assert choice.path is not None
    taken_for = {model.__name__: model(choice.path.sent) for model in MODELS}
    if choice.index == 1:
        assert not any(map(is_protected, taken_for.values())), taken_for
    else:
        assert all(map(is_protected, taken_for.values())), taken_for


def test_the_models_take_what_no_rule_has_looked_at_for_it() -> None:
    """That the test above can fail."""
    for raw, model in (
        ("//admin", flask), ("/%2fadmin", flask), ("/x/../admin", resolves_first), ("/x/%2e%2e/admin", resolves_last),
        ("/;x/admin", tomcat), ("/admin%3bx", strips_what_was_encoded), ("/x\\..\\admin", windows),
    ):  # fmt: skip
        assert is_protected(model(raw))


@given(SPELLINGS, st.sampled_from([NORMALISE, PASSES]), st.sampled_from([None, "/x", "/admin", "/x/"]))
def test_no_server_is_led_out_of_the_prefix_of_a_rewrite(raw: str, rules: PathRules, strip: str | None) -> None:
    try:
        read = rules.read(raw)
    except BadPath:
        return
    sent = rewrite_path(read.sent, strip, "/tenant")
    for model in MODELS:
        assert (model(sent) + "/").startswith("/tenant/"), model


@given(SPELLINGS)
def test_normalising_twice_changes_nothing(raw: str) -> None:
    try:
        path = normalise_path(raw)
    except BadPath:
        return
    assert normalise_path(path) == path
    assert comparable(comparable(path)) == comparable(path)
    assert unquote_to_bytes(comparable(path)) == unquote_to_bytes(path)


@pytest.mark.parametrize(
    ("path", "strip_prefix", "path_prefix", "result"),
    [
        ("/a%21/x", "/a!", None, "/x"),
        ("/a!/x", "/a%21", "/v2", "/v2/x"),
        ("/a%21", "/a!", "/v2", "/v2"),
        ("/a%21b/x", "/a!", None, "/a%21b/x"),
        ("/b%21/x", "/a!", None, "/b%21/x"),
    ],
)
def test_a_prefix_is_stripped_in_every_spelling(
    path: str, strip_prefix: str, path_prefix: str | None, result: str
) -> None:
    assert rewrite_path(path, strip_prefix, path_prefix) == result
