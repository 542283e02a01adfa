"""A server that did not come from a file: the same rules, the same complaints."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from lbproxy.config.loader import load_text
from lbproxy.config.problems import ConfigError
from lbproxy.config.server_model import ServerSpec

_PLACE: Final = "pools.p.servers[0]"


def read_server(value: object) -> tuple[ServerSpec, ...]:
    """What stands for one item of `servers`: an address, or a mapping; a range of ports is several servers.

    value: plain data, as from JSON. Raises ConfigError: in place of a file each problem names the key.
    """
    document = {"listeners": [{"bind": "unix:/p", "pool": "p"}], "pools": {"p": {"servers": [value]}}}
    try:
        loaded = load_text(json.dumps(document).replace("${", "$${"), "", {})
    except ConfigError as error:
        problems = ((item.path.removeprefix(_PLACE).lstrip("."), item) for item in error.problems)
        raise ConfigError(
            tuple(replace(item, file=key or "server", line=0, path="") for key, item in problems)
        ) from None
    return loaded.config.pools["p"].servers
