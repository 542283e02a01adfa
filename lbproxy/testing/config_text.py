"""The config of a test: as the user wrote it, but on free ports, with other servers, and with files of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1:0"
_LONGEST_PATH: Final = 100  # of a unix socket; the kernel's limit is 107


def moved(data: Mapping[str, object], servers: Mapping[str, Sequence[object]], directory: Path) -> dict[str, object]:
    """The same config, to be run beside others.

    Listeners and the admin address get ports of loopback that the kernel chooses, sockets, the access log and the state
    file a place in the directory: what the running lbproxy keeps there must not change, nor begin a test. A listener
    keeps the name that its first address gave it. servers: by pool, in place of the file's.
    """
    made = dict(data)
    admin = made.get("admin")
    made["admin"] = {**admin, "bind": LOOPBACK} if isinstance(admin, dict) else {"bind": LOOPBACK}
    if made.get("access_log") not in ("off", False):
        made["access_log"] = {"path": str(directory / "access.log"), "format": "json"}
    if made.get("state_file") not in (None, "off", False):
        made["state_file"] = str(directory / "state.json")
    listeners = made.get("listeners")
    if isinstance(listeners, list):
        made["listeners"] = [
            _moved_listener(item, directory / f"{number}-") if isinstance(item, dict) else item
            for number, item in enumerate(listeners)
        ]
    pools = dict(made["pools"]) if isinstance(made.get("pools"), dict) else {}  # type: ignore[call-overload]
    for name, addresses in servers.items():
        pools[name] = {**_without_sources(pools.get(name)), "servers": [str(address) for address in addresses]}
    return {**made, "pools": pools} if pools else made


def _without_sources(pool: object) -> dict[str, object]:
    """The pool without what brings it servers: else those of production would get a test's requests too."""
    if not isinstance(pool, Mapping):
        return {}
    kept = {key: value for key, value in pool.items() if key not in ("servers", "servers_file", "discovery")}
    if isinstance(kept.get("dns"), Mapping):
        kept["dns"] = {key: value for key, value in kept["dns"].items() if key != "srv"}
    return kept


def strangers(data: Mapping[str, object], servers: Iterable[str]) -> list[str]:
    """The pools for which a test gives servers, and which the config neither has nor names: slips of the pen."""
    pools = data.get("pools")
    known = set(pools if isinstance(pools, Mapping) else ()) | set(_words(data.get("listeners")))
    return [name for name in servers if name not in known]


def _words(value: object) -> Iterator[str]:
    """Every text and key within."""
    if isinstance(value, Mapping):
        yield from map(str, value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield value


def _moved_listener(listener: Mapping[str, object], sockets: Path) -> dict[str, object]:
    bind = listener.get("bind")
    binds = bind if isinstance(bind, list) else [bind]
    made = [
        f"unix:{sockets}{index}.sock" if str(one).startswith("unix:") else LOOPBACK for index, one in enumerate(binds)
    ]
    kept = [address for address in made if address.startswith("unix:")]
    first = [LOOPBACK] if LOOPBACK in made else []
    return {**listener, "name": str(listener.get("name") or _named(binds[0])), "bind": [*first, *kept]}


def _named(bind: object) -> str:
    """The name that lbproxy gives a listener without one."""
    text = str(bind)
    return f"0.0.0.0{text}" if text.startswith(":") else text


def written(value: object) -> str:
    """Data as a text that means the same to YAML, with scalars as they were written, and `${` as it stands."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(written, value)) + "]"
    text = getattr(value, "text", None)  # a number that remembers how it was written: 007, 1.10
    if isinstance(text, str):
        return text
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value)).replace("${", "$${")
