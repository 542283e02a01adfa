"""What the log says at the start, so that its first lines tell what runs; and when traffic is welcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from lbproxy.config.model import Config, Pool

SHOWN_SERVERS = 12


def first_lines(config: Config, config_path: str, version: str, pid: int) -> Iterator[str]:
    """The version, the file and the pools with their servers. What was bound is told when it is bound."""
    source = {"": "options of the command line", "-": "standard input"}.get(config_path, config_path)
    yield f"lbproxy {version} starts, pid {pid}, config: {source}"
    for name, pool in config.pools.items():
        yield f"pool {name}: {_checked(pool)}, {pool.strategy.name or pool.strategy.python}, servers {_servers(pool)}"


def _checked(pool: Pool) -> str:
    check = pool.health_check
    if check is None:
        return "no health checks"
    return f"checked by {check.method} {check.path}" if check.type == "http" else f"checked by {check.type}"


def _servers(pool: Pool) -> str:
    names = [
        str(server.address) if server.name == str(server.address) else f"{server.name} ({server.address})"
        for server in pool.servers
    ]
    more_of = [] if pool.servers_file is None else [f"those of {pool.servers_file}"]
    more_of += [] if pool.dns.srv is None else [f"those of SRV {pool.dns.srv}"]
    platform = pool.discovery
    more_of += [] if platform is None or platform.aws is None else ["those that AWS has"]
    kubernetes = None if platform is None else platform.kubernetes
    more_of += [] if kubernetes is None else [f"those of the Kubernetes service {kubernetes.service}"]
    more = f" and {len(names) - SHOWN_SERVERS} more" if len(names) > SHOWN_SERVERS else ""
    listed = ", ".join(names[:SHOWN_SERVERS]) + more
    return ", ".join([listed, *more_of] if listed else more_of)


class ReadinessLog:
    """Says when /readyz changes its mind, with the reason, and how long the start took."""

    def __init__(self, log: logging.Logger, started_at: float) -> None:
        self._log = log
        self._started_at = started_at
        self._was_ready: bool | None = None
        self._has_been_ready = False

    def observe(self, reason: str | None, now: float) -> None:
        """reason: why new traffic should not come, or None. Monotonic seconds."""
        is_ready = reason is None
        if is_ready == self._was_ready:
            return
        self._was_ready = is_ready
        if not is_ready:
            level = logging.WARNING if self._has_been_ready else logging.INFO
            self._log.log(level, "not ready%s: %s", "" if self._has_been_ready else " yet", reason)
        elif self._has_been_ready:
            self._log.info("ready again")
        else:
            self._has_been_ready = True
            self._log.info("ready, %.1f s after the start", now - self._started_at)
