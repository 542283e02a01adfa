"""`lbproxy check`: everything that a start does short of binding and serving, so that a good check is a good start.

Strategies are imported and made, certificates are loaded into TLS contexts, the log's place is looked at. Plug-ins run
their code here as they do at a start.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

from lbproxy import __version__
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.metrics import Registry
from lbproxy.control.state_file import why_not_kept
from lbproxy.process.wiring import Wiring
from lbproxy.telemetry.slots import Slots


def problems(config: Config, *, config_path: str) -> list[Unusable]:
    """What would end a start."""
    return list(_found(config, str(Path(config_path).parent)))


def doubts(config: Config, *, config_path: str) -> Iterator[Unusable]:
    """What would not end a start, but is hardly meant."""
    if config.state_file is not None:
        place = Path(config_path).parent / config.state_file
        reason = why_not_kept(str(place))
        if reason:
            yield Unusable(("state_file",), f"{place} cannot be written: {reason}")


def _found(config: Config, base_dir: str) -> Iterator[Unusable]:
    if config.access_log is not None:
        reason = why_not_writable(config.access_log.path)
        if reason:
            yield Unusable(("access_log", "path"), f"cannot open {config.access_log.path}: {reason}")
    wiring = Wiring(
        config,
        Slots(),
        Registry(__version__),
        rng=random.Random(),
        dial_failed=lambda *_: None,
        strategy_failed=lambda *_: None,
        base_dir=base_dir,
    )
    try:
        wiring.build_pools(has_servers=False)
    except Unusable as error:
        yield error
        return  # listeners refer to pools
    for listener in config.listeners:
        try:
            wiring.build_listener(listener)
        except Unusable as listener_error:
            yield listener_error


def why_not_writable(path: str) -> str:
    """Why an access log with this path would not open, "" if it would, as far as that shows without making the file."""
    if path.removeprefix("/dev/") in ("stdout", "stderr"):
        return ""
    place = Path(path)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        if not place.parent.is_dir():
            return f"there is no directory {place.parent}"
        return "" if os.access(place.parent, os.W_OK | os.X_OK) else f"no file can be made in {place.parent}"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as bad_name:
        return str(bad_name)
    if stat.S_ISDIR(mode):
        return "it is a directory"
    return "" if os.access(path, os.W_OK) else os.strerror(errno.EACCES)
