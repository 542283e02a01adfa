"""docs/configuration.md, printed from the models: every key, what it means, how it is written and its default.

`python -m lbproxy.config.manual` prints it; a test compares the file with the models.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lbproxy.config.availability import UNAVAILABLE_KEYS, UNAVAILABLE_VALUES
from lbproxy.config.kinds import KINDS
from lbproxy.config.model import Config
from lbproxy.config.notation import Notation, Shorthand
from lbproxy.config.sections import available_fields, available_sections
from lbproxy.config.server_model import StrategySpec

INTRODUCTION: Final = """\
# Configuration

<!-- Printed by `python -m lbproxy.config.manual`. Change the descriptions in lbproxy/config/, not this file. -->

One YAML file says everything. The smallest useful one:

```yaml
listeners:
  - bind: 0.0.0.0:5000
    pool: predict
pools:
  predict:
    servers: [127.0.0.1:5001, 127.0.0.1:5002, 127.0.0.1:5003]
```

`lbproxy check -c FILE` validates it. Every problem is reported in one run as `FILE:LINE:COL: path.to.key: what is
wrong; did you mean ...`, with exit status 2. Warnings point out what is legal but hardly meant. Editors that speak
JSON Schema complete and check keys; `lbproxy schema` prints the schema, docs/lbproxy.schema.json is a copy.

## How values are written

| value | written as |
|---|---|
| duration | `250ms`, `2s`, `1.5m`, `1h`, or a number of seconds |
| size | `64KiB`, `10MB`, `512B` (KB, MB, GB are powers of 1000, KiB, MiB, GiB of 1024), or a number of bytes |
| rate | `100 in 10s`: so many within that time |
| boolean | `true` or `false` only: `on`, `off`, `yes` and `no` are texts, as in YAML 1.2 |
| `off` | disables what the key describes, where the table allows it; `false` is the same there |
| environment | `${VAR}`, or `${VAR:-default}` where VAR may be unset or empty; `$${` stands for a literal `${` |

`off` and `false` both mean off wherever off is allowed, since tools that speak YAML 1.1 rewrite one into the other.

A default may hold variables in turn: `${A:-${B:-c}}`. Variables are replaced inside values after the YAML was parsed,
so a value never adds keys or lists; keys are taken as they are. An unquoted value gets its type after the replacement:
`${PORT}` may be a number. Inside `[ ]` and `{ }` put quotes around `${...}`. A file has at most 1 MiB, 10,000 nodes
(aliases expanded) and 64 levels; keys given twice are refused, and so are `<<` merge keys. JSON is fine, with tabs too;
UTF-8, or UTF-16 with a byte order mark.

```yaml
listeners:
  - bind: ${BIND:-127.0.0.1:5000}
    pool: predict
admin:
  bind: unix:/run/lbproxy/admin.sock
pools:
  predict:
    strategy: weighted_round_robin
    servers:
      - 10.0.0.7:5001-5004
      - {address: "unix:/run/predict.sock", name: local, weight: 4}
    health_check: {type: http, path: /health, interval: 5s, timeout: 2s}
    timeouts: {response_head: 2m}
    retry: {idempotent: true}
```
"""


def config_markdown() -> str:
    """The page as committed."""
    parts = [INTRODUCTION, "## Top level", "", *_table(Config, "")]
    for path, section in available_sections():
        heading = "#" * min(2 + path.replace(".*", "").count("."), 4)
        parts += ["", f"{heading} `{_shown(path)}`", "", *_table(section, path)]
    parts += ["", "## Kinds", "", *_kinds()]
    parts += ["", "## Not available in this version", "", *_unavailable()]
    return "\n".join(parts) + "\n"


def _shown(path: str) -> str:
    """`pools.*.servers.*` as the manual writes it: `pools.NAME.servers[]`."""
    for names in ("pools", "admin.tokens"):
        path = path.replace(f"{names}.*", f"{names}.NAME")
    return path.replace("given.*", "given.SERVER").replace(".*", "[]")


def _table(section: type[BaseModel], path: str) -> list[str]:
    rows = ["| key | meaning | value | default |", "|---|---|---|---|"]
    for name, info in available_fields(section, path):
        refused = {v for key in (f"{path}.{name}", f"{path}.{name}.*") for v in UNAVAILABLE_VALUES.get(key, ())}
        cells = (f"`{name}`", info.description or "", _words(info, refused), _default(info))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _words(info: FieldInfo, refused: set[str]) -> str:
    """How the value of a field is written."""
    for marker in info.metadata:
        if isinstance(marker, (Notation, Shorthand)):
            return marker.words
    return _type_words(info.annotation, refused)


def _type_words(annotation: Any, refused: set[str]) -> str:
    for marker in getattr(annotation, "__metadata__", ()):
        if isinstance(marker, (Notation, Shorthand)):
            return marker.words
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments if choice not in refused)
    if origin is tuple:
        return f"list: {_type_words(arguments[0], refused)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_type_words(arguments[0], refused)} to {_type_words(arguments[1], refused)}"
    if arguments:
        return _type_words(arguments[0], refused)
    return "mapping"


def _default(info: FieldInfo) -> str:
    value = info.default
    if info.is_required():
        return "required"
    if isinstance(value, StrategySpec):
        return f"`{value.name}`"
    if isinstance(value, BaseModel):
        return "as below"
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, dict)):
        return f"`[{', '.join(map(str, value))}]`" if value else "none"
    needs_quotes = isinstance(value, str) and value.isdigit()
    return f'`"{value}"`' if needs_quotes else f"`{value}`"


def _kinds() -> list[str]:
    """What each kind sets, and why."""
    lines = [
        "What `pools.NAME.kind` sets where the pool has no such key. A key of the pool's own wins, and the rest of the",
        "section stays: `health_check: {interval: 10s}` keeps the path of the kind. `off` and `tcp` win over a whole",
        "section. In brackets is what the program has if it is started with its defaults. `lbproxy status -v` shows",
        "what is in force.",
        "",
        "| kind | key | value | because |",
        "|---|---|---|---|",
    ]
    for kind, defaults in KINDS.items():
        lines += [f"| `{kind}` | `{item.key}` | `{_default_text(item.value)}` | {item.why} |" for item in defaults]
    return lines


def _default_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unavailable() -> list[str]:
    """What is planned and refused."""
    if not UNAVAILABLE_KEYS and not UNAVAILABLE_VALUES:
        return ["Nothing: every key that is not refused as unknown works."]
    lines = ["These keys and values are planned and refused until they work:", ""]
    lines += [f"- `{_shown(line)}`" for line in UNAVAILABLE_KEYS]
    for line, values in UNAVAILABLE_VALUES.items():
        lines.append(f"- `{_shown(line)}`: " + ", ".join(f"`{value}`" for value in values))
    return lines


if __name__ == "__main__":
    sys.stdout.write(config_markdown())
