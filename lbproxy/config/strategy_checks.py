"""What stands under `strategy` of a pool: its name or class, its options, and whether the pool suits it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from lbproxy.config import foreign_words
from lbproxy.config.model import Config, Pool
from lbproxy.config.problems import Path
from lbproxy.config.server_model import BUILT_IN_STRATEGIES
from lbproxy.config.source import Document
from lbproxy.config.units import is_off, shown
from lbproxy.config.validation import closest
from lbproxy.request_key import read_key

STRATEGY_GROUP: Final = "lbproxy.strategies"
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"consistent_hash": ("key", "bounded_load")}
"""Of built-in strategies; the others have none."""


def check_strategy(pool: Pool, path: Path, document: Document) -> None:
    """Complain of what cannot be."""
    spec, place = pool.strategy, (*path, "strategy")
    if (spec.name is None) == (spec.python is None):
        document.object_to(place, "needs either `name` or `python`", "such as least_connections")
        return
    if spec.python is not None:
        module, colon, name = spec.python.rpartition(":")
        if not (colon and module and name.isidentifier()):
            python_path = (*place, "python")
            document.object_to(python_path, f"expected module:Class or file.py:Class, got {spec.python!r}")
        return
    if spec.name in BUILT_IN_STRATEGIES:
        _check_options(spec.name, spec.options, place, document)
        if spec.name == "first" and pool.max_inflight is None and any(s.max_inflight is None for s in pool.servers):
            document.warn(
                place,
                "fills servers up to `max_inflight`, which is off: one without it gets everything",
                "set max_inflight",
            )
        return
    installed = [point.name for point in entry_points(group=STRATEGY_GROUP)]
    if spec.name not in installed:
        named = (*place, "name") if (*place, "name") in document.values else place
        known = [*BUILT_IN_STRATEGIES, *installed]
        close = foreign_words.strategy(str(spec.name)) or closest(str(spec.name), known)
        hint = f"did you mean {close}?" if close else "strategies: " + ", ".join(known)
        document.object_to(named, f"there is no strategy {spec.name}", hint)


def _check_options(name: str, options: Mapping[str, Any], place: Path, document: Document) -> None:
    known = OPTIONS.get(name, ())
    for option in options:
        if option not in known:
            close = closest(option, list(known))
            told = f"{name} has {', '.join(known)}" if known else f"{name} takes none"
            hint = f"did you mean {close}?" if close else "remove it"
            document.object_to((*place, option), f"unknown option; {told}", hint, at_key=True)
    if "key" in options and "key" in known:
        try:
            if not isinstance(options["key"], str):
                raise ValueError(f"expected a text such as header:X-Session, got {shown(options['key'])}")
            read_key(options["key"])
        except ValueError as error:
            message, _, suggestion = str(error).partition("; ")
            document.object_to((*place, "key"), message, suggestion)
    if "bounded_load" in options and "bounded_load" in known:
        bound = options["bounded_load"]
        is_number = isinstance(bound, (int, float)) and not isinstance(bound, bool) and 1 <= bound <= 100
        if not is_number and not is_off(bound):
            message = f"expected a number from 1 to 100, or `off`, got {shown(bound)}"
            document.object_to((*place, "bounded_load"), message, "such as 1.25: a quarter more than its share")


def check_keys_of_tcp(config: Config, document: Document) -> None:
    """A TCP connection has an address, and nothing else of what requests are hashed on."""
    for listener in config.listeners:
        pool = config.pools.get(str(listener.pool)) if listener.mode == "tcp" else None
        if pool is None:
            continue
        place: Path = ("pools", str(listener.pool))
        key = pool.strategy.options.get("key", "client_ip")
        if pool.strategy.name == "consistent_hash" and key != "client_ip":
            document.warn(
                (*place, "strategy", "key"),
                f"TCP connections have no {str(key).partition(':')[0]}: they go by least connections",
                "write client_ip",
            )
        queue = pool.queue
        if queue.fair_by not in (None, "client_ip"):
            document.warn(
                (*place, "queue", "fair_by"),
                f"TCP connections have no {str(queue.fair_by).partition(':')[0]}: all of them share one turn",
                "write client_ip",
            )
        if queue.priority is not None:
            document.warn(
                (*place, "queue", "priority"),
                "TCP connections have no header: all of them are of one class",
                at_key=True,
            )
