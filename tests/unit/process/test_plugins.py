from __future__ import annotations

import random
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lbproxy.address import Address
from lbproxy.domain.lease import Lease
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Health
from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import PickContext, Strategy
from lbproxy.process.plugins import PluginError, load_entry_point, load_python

ROOT = Path(__file__).parents[3]

FIRST = """
class First:
    def __init__(self, options, rng):
        self.options, self.rng = options, rng
    def rebuild(self, servers): ...
    def pick(self, eligible, ctx, now):
        return eligible[0]
"""


def servers(n: int = 2) -> list[Server]:
    return [Server(f"s{i}", Address("10.0.0.1", 5001 + i)) for i in range(n)]


def load(directory: Path, source: str, reference: str = "plugin.py:First", **options: object) -> Strategy:
    (directory / "plugin.py").write_text(source)
    return load_python(reference, options, random.Random(1), base_dir=str(directory))


# --- what works -----------------------------------------------------------------------------------------------------


def test_class_from_a_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(FIRST)
    rng = random.Random(1)
    strategy = load_python("plugin.py:First", {"a": 1}, rng, base_dir=str(tmp_path))
    a, b = servers()
    assert strategy.pick([a, b], PickContext(""), 0.0) is a
    assert strategy.hash_on == ""
    assert vars(strategy) == {"options": {"a": 1}, "rng": rng, "hash_on": ""}


def test_absolute_file_needs_no_directory(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(FIRST)
    strategy = load_python(f"{tmp_path}/plugin.py:First", {}, random.Random(), base_dir="/nowhere")
    assert strategy.pick(servers(), PickContext(""), 0.0).name == "s0"


def test_file_is_read_again_each_time(tmp_path: Path) -> None:
    load(tmp_path, FIRST)
    strategy = load(tmp_path, FIRST.replace("First:", "First:\n    mark = 2"))
    assert getattr(strategy, "mark", None) == 2


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = load(tmp_path, FIRST)
    other = load(tmp_path / "other", FIRST)
    assert type(one) is not type(other)
    assert sys.modules[type(one).__module__] is not sys.modules[type(other).__module__]


def test_file_may_hold_dataclasses(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    note = "@dataclass\nclass Note:\n    text: str\n"
    strategy = load(tmp_path, head + note + FIRST.replace("return eligible[0]", "return (eligible[0], Note('x'))[0]"))
    assert strategy.pick(servers(), PickContext(""), 0.0).name == "s0"


def test_class_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_module.py").write_text(FIRST)
    monkeypatch.syspath_prepend(str(tmp_path))
    strategy = load_python("plugged_module:First", {}, random.Random(), base_dir="/nowhere")
    assert type(strategy).__module__ == "plugged_module"


DERIVED = """
from lbproxy.domain.strategies.{module} import {name}

class Mine({name}):
    hash_on = "client_ip"

    def __init__(self, options, rng):
        super().__init__({{}}, rng)
        self.asked = []

    def pick(self, eligible, ctx, now):
        self.asked.append(ctx.key)
        return super().pick(eligible, ctx, now)
"""


@pytest.mark.parametrize("name", NAMES)
def test_class_may_be_derived_from_a_strategy_of_lbproxy(name: str, tmp_path: Path) -> None:
    """Also where that one is compiled and the plug-in, of course, is not."""
    built_in = type(create(name, {}, random.Random(1)))
    source = DERIVED.format(module=built_in.__module__.rpartition(".")[2], name=built_in.__name__)
    strategy = load(tmp_path, source, "plugin.py:Mine")
    assert isinstance(strategy, built_in)
    failures: list[Exception] = []
    fallback = create("least_connections", {}, random.Random(1))
    pool = Pool("p", servers(), strategy, fallback, strategy_failed=failures.append)
    for server in pool.servers:
        pool.set_health(server, Health.UP, "", "", 0.0)
    found = [pool.acquire(PickContext("192.0.2.1", key=b"key"), (), float(i)) for i in range(4)]
    assert all(isinstance(lease, Lease) for lease in found)
    assert (failures, strategy.asked) == ([], [b"key"] * 4)  # type: ignore[attr-defined]


def test_class_may_be_derived_from_the_interface(tmp_path: Path) -> None:
    source = FIRST.replace(
        "class First:", "from lbproxy.domain.strategies.base import Strategy\nclass First(Strategy):"
    )
    strategy = load(tmp_path, source)
    assert strategy.pick(servers(), PickContext(""), 0.0).name == "s0"
    assert strategy.hash_on == ""


def test_hash_on_of_the_class_is_kept(tmp_path: Path) -> None:
    strategy = load(tmp_path, FIRST.replace("First:", "First:\n    hash_on = 'client_ip'"))
    assert getattr(strategy, "hash_on", None) == "client_ip"


# --- what is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["plugin.py", "plugin.py:", ":First", "plugin:First()", "plugin.py:a.b", ""])
def test_reference_that_is_none(reference: str) -> None:
    with pytest.raises(PluginError, match=r"write module:Class or file\.py:Class"):
        load_python(reference, {}, random.Random(), base_dir=".")


def test_missing_file_is_told_with_its_whole_path(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=re.escape(f"there is no file {tmp_path}/plugin.py")):
        load_python("plugin.py:First", {}, random.Random(), base_dir=str(tmp_path))


def test_file_that_is_not_python(tmp_path: Path) -> None:
    (tmp_path / "plugin.txt").write_text("")
    with pytest.raises(PluginError, match=r"must end in \.py"):
        load_python("./plugin.txt:First", {}, random.Random(), base_dir=str(tmp_path))


def test_missing_module_says_where_to_put_it() -> None:
    with pytest.raises(PluginError, match=r"no module 'no_such_plugin'; install it beside lbproxy, .* PYTHONPATH"):
        load_python("no_such_plugin.strategies:First", {}, random.Random(), base_dir=".")


def test_module_that_misses_another_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_needy.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"cannot be imported: ModuleNotFoundError: .*no_such_library.*needy\.py:1"):
        load_python("plugged_needy:First", {}, random.Random(), base_dir=".")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class First(:", r"SyntaxError: .* \(.*plugin\.py:1\)"),
        ("\n\n1 / 0", r"ZeroDivisionError: division by zero \(.*plugin\.py:3\)"),
        (FIRST.replace("First", "Frist"), r"no 'First' in .*plugin\.py; did you mean 'Frist'\?"),
        ("from collections import Counter\nx = 1", r"no 'First' in .*plugin\.py; classes there: none"),
        ("First = 3", "is not a class"),
        ("def First(options, rng): ...", "is not a class"),
        (FIRST.replace("(self, options, rng)", "(self)"), r"the constructor must take \(options, rng\), it takes \(\)"),
        (FIRST.replace("def pick", "def choose"), r"no method pick\(eligible, ctx, now\)"),
        (FIRST.replace("def rebuild", "def build"), r"no method rebuild\(servers\)"),
        (
            FIRST.replace("eligible, ctx, now", "eligible"),
            r"pick must take \(eligible, ctx, now\), it takes \(eligible\)",
        ),
        (FIRST.replace("def pick", "async def pick"), "pick must be a plain function, without async or yield"),
        (FIRST.replace("return eligible[0]", "yield eligible[0]"), "pick must be a plain function"),
        (FIRST.replace("First:", "First:\n    hash_on = 3"), "hash_on must be text"),
        (FIRST.replace("First:", "First:\n    __slots__ = ('options', 'rng')"), "add `hash_on = "),
    ],
)
def test_defects_are_told_at_start(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        load(tmp_path, source)
    assert str(caught.value).startswith("strategy 'plugin.py:First'")
    assert "\n" not in str(caught.value)


def test_failed_file_leaves_no_half_module(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(PluginError):
        load(tmp_path, "1 / 0")
    assert not any("lbproxy_strategy" in name for name in set(sys.modules) - before)


def test_word_of_the_constructor_is_passed_on_as_it_is(tmp_path: Path) -> None:
    source = FIRST.replace("self.options, self.rng = options, rng", "raise ValueError('room is at least 1')")
    with pytest.raises(PluginError, match=r"^strategy 'plugin.py:First': room is at least 1$"):
        load(tmp_path, source)


def test_crash_of_the_constructor_is_told_with_its_place(tmp_path: Path) -> None:
    source = FIRST.replace("self.options, self.rng = options, rng", "options['room']")
    with pytest.raises(PluginError, match=r"KeyError: 'room' \(.*plugin\.py:4\)"):
        load(tmp_path, source)


# --- entry points ---------------------------------------------------------------------------------------------------


def install(directory: Path, package: str, offers: Mapping[str, str]) -> None:
    """What an installer leaves behind: a module and the metadata that names its entry points."""
    (directory / f"{package}.py").write_text(FIRST)
    info = directory / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in offers.items())
    (info / "entry_points.txt").write_text(f"[lbproxy.strategies]\n{lines}")


def test_strategy_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "plugged_one", {"first_one": "plugged_one:First"})
    monkeypatch.syspath_prepend(str(tmp_path))
    strategy = load_entry_point("first_one", {"a": 1}, random.Random())
    assert type(strategy).__module__ == "plugged_one"
    with pytest.raises(PluginError, match="no strategy 'frist_one'; did you mean 'first_one'"):
        load_entry_point("frist_one", {}, random.Random())
    with pytest.raises(PluginError, match=r"no strategy 'zzz' .installed packages offer: .*first_one"):
        load_entry_point("zzz", {}, random.Random())


def test_name_offered_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "plugged_two", {"twice": "plugged_two:First"})
    install(tmp_path, "plugged_three", {"twice": "plugged_three:First"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"more than once .plugged_three:First and plugged_two:First."):
        load_entry_point("twice", {}, random.Random())


def test_entry_point_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "plugged_four", {"nothing": "plugged_four:Nothing"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"'nothing .plugged_four:Nothing.' cannot be imported: AttributeError"):
        load_entry_point("nothing", {}, random.Random())


# --- what the documentation shows -----------------------------------------------------------------------------------


class Request:
    """What a strategy sees of a request."""

    method, path, host, query = "POST", "/predict", "example.org", ""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers


def of_user(user: str) -> PickContext:
    return PickContext("192.0.2.1", Request({"x-user-id": user}))


def sticky(options: Mapping[str, object]) -> Strategy:
    directory = str(ROOT / "docs" / "examples")
    return load_python("sticky_by_user.py:StickyByUser", options, random.Random(1), base_dir=directory)


def test_example_keeps_a_user_on_a_server() -> None:
    strategy = sticky({})
    pool = servers(4)
    strategy.rebuild(pool)
    homes = {user: strategy.pick(pool, of_user(user), 0.0) for user in map(str, range(100))}
    assert set(homes.values()) == set(pool)
    lost = pool[0]
    for user, home in homes.items():
        home.inflight += 1
        assert strategy.pick(pool, of_user(user), 0.0) is home
        moved = strategy.pick(pool[1:], of_user(user), 0.0)
        assert (moved is home) is (home is not lost)


def test_example_spreads_a_user_over_two_servers_and_others_by_load() -> None:
    strategy = sticky({"spread": 2})
    pool = servers(5)
    strategy.rebuild(pool)
    for _ in range(10):
        strategy.pick(pool, of_user("u"), 0.0).inflight += 1
    assert sorted(server.inflight for server in pool) == [0, 0, 0, 5, 5]
    assert strategy.pick(pool, PickContext("192.0.2.1"), 0.0).inflight == 0
    assert strategy.pick(pool, of_user(""), 0.0).inflight == 0


@pytest.mark.parametrize("options", [{"spread": 0}, {"spread": "2"}, {"heador": "x"}])
def test_example_checks_its_options(options: Mapping[str, object]) -> None:
    with pytest.raises(PluginError, match="spread"):
        sticky(options)


def test_page_shows_code_that_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "strategies.md").read_text()
    plugin, usage = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "first_with_room.py").write_text(plugin)
    strategy = load_python("first_with_room.py:FirstWithRoom", {"room": 1}, random.Random(), base_dir=str(tmp_path))
    pool = servers()
    for _ in range(4):
        strategy.pick(pool, PickContext(""), 0.0).inflight += 1
    assert [server.inflight for server in pool] == [2, 2]
    exec(usage, {"FirstWithRoom": type(strategy)})


def test_page_names_every_strategy() -> None:
    page = (ROOT / "docs" / "strategies.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) >= set(NAMES)
