"""What the controller and the workers say to each other (channel.py). Both are forks of one program.

Hello        worker       which config it keeps to
Welcome      controller   everything that it must know has been said: it may accept
Prepare      controller   make this config, without putting it in force; sockets of new addresses come by the line
Prepared     worker       it can; or `problem` says why not
Commit       controller   put it in force; or forget it
Committed    worker       it is in force
Find         controller   which requests had this id?
Found        worker       these, as the access log has them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbproxy.config.model import Config


@dataclass(frozen=True, slots=True)
class Hello:
    generation: int


@dataclass(frozen=True, slots=True)
class Welcome:
    pass


@dataclass(frozen=True, slots=True)
class Prepare:
    """generation: goes up with each config. doors: names of new bind addresses, whose sockets come by the line."""

    generation: int
    config: Config
    doors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """problem: "" if the config can be put in force."""

    generation: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """is_wanted: False: forget it."""

    generation: int
    is_wanted: bool = True


@dataclass(frozen=True, slots=True)
class Committed:
    generation: int


@dataclass(frozen=True, slots=True)
class Find:
    """number: of the question."""

    number: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """n_lines: that are kept."""

    number: int
    records: tuple[Mapping[str, object], ...]
    n_lines: int
