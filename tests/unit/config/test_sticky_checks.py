"""What is accepted and warned of; what is refused, and in which words, stands in refused.txt."""

from __future__ import annotations

from lbproxy.config.loader import load_text

SECRET = "secret: 0123456789abcdef"


def warned(p: str, q: str = "", mode: str = "http") -> list[str]:
    routes = "routes: [{match: {path: /q}, pool: q}, {pool: p}]" if q else "pool: p"
    pools = f"pools:\n  p: {{servers: ['a:1'], sticky: {{{p}}}}}\n"
    pools += f"  q: {{servers: ['b:1'], sticky: {{{q}}}}}\n" if q else ""
    text = f"listeners: [{{bind: ':1', mode: {mode}, {routes}}}]\n{pools}"
    return [f"{problem.path}: {problem.message}" for problem in load_text(text, "lb.yaml", {}).warnings]


def test_what_is_sound() -> None:
    assert warned(f"cookie: lb, {SECRET}") == []
    assert warned(f"cookie: __Host-lb, {SECRET}, same_site: none, secure: on, max_age: 1h, wait: 2s") == []
    assert warned(f"cookie: lb, {SECRET}", f"cookie: lb, {SECRET}, path: /q") == []


def test_two_pools_with_one_cookie() -> None:
    assert warned(f"cookie: lb, {SECRET}", f"cookie: lb, {SECRET}") == [
        "pools.q.sticky.cookie: is the cookie of pool p too: on one host each pool would replace that of the other"
    ]


def test_tcp_has_no_cookies() -> None:
    assert warned(f"cookie: lb, {SECRET}", mode="tcp") == [
        "pools.p.sticky: has no effect on TCP connections, which have no cookies"
    ]
