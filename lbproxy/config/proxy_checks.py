"""Proxies in front: who may send PROXY headers, which connections may carry one, and who must not be believed."""

from __future__ import annotations

from lbproxy.config.model import Config
from lbproxy.config.problems import Path
from lbproxy.config.source import Document


def check_proxy_protocol(config: Config, document: Document) -> None:
    """A header is believed only from somebody who is known, and speaks for one client only."""
    has_networks = any(proxy != "unix" for proxy in config.trusted_proxies)
    for index, listener in enumerate(config.listeners):
        if listener.proxy_protocol == "off":
            continue
        path: Path = ("listeners", index, "proxy_protocol")
        if any(address.path.startswith("@") for address in listener.bind):
            document.object_to(path, "anybody on this machine may connect to an abstract socket", "use unix:PATH")
        elif not has_networks and not all(address.is_unix for address in listener.bind):
            document.object_to(
                path,
                "nobody may send the header: `trusted_proxies` has no network",
                "list the addresses of the balancers in front, as in [10.0.0.0/8]",
            )
    shared = {
        name
        for listener in config.listeners
        if listener.mode == "http"
        for route in listener.effective_routes()
        for name in route.pools
    }
    for name, pool in config.pools.items():
        if pool.proxy_protocol != "off" and pool.keep_alive is not None and name in shared:
            document.object_to(
                ("pools", name, "proxy_protocol"),
                "the header speaks for one client, but kept connections of an HTTP pool serve many",
                "add `keep_alive: off` to the pool",
            )


def check_trust_of_unix_sockets(config: Config, document: Document) -> None:
    """A peer on a unix socket is who its file lets in; an abstract name has no file."""
    if "unix" not in config.trusted_proxies:
        return
    for index, listener in enumerate(config.listeners):
        if any(address.path.startswith("@") for address in listener.bind):
            document.object_to(
                ("trusted_proxies", config.trusted_proxies.index("unix")),
                f"anybody on this machine may connect to the abstract socket of listeners[{index}]",
                "use unix:PATH there",
            )
            return
