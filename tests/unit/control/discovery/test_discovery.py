import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.aws_model import Aws
from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.config.model import Dns, ServerSpec
from lbproxy.config.model import Pool as PoolConfig
from lbproxy.control.discovery import discovery as module
from lbproxy.control.discovery.discovery import Discovery, Wanted
from lbproxy.control.discovery.source import MAX_SERVERS, Answer, Emit, Found, Source, Trouble
from lbproxy.control.discovery.srv import Record
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import PROCESS, Slots


def specs(*texts: str) -> tuple[ServerSpec, ...]:
    return tuple(ServerSpec(address=parse_address(text), name=text) for text in texts)


class Bench:
    """One pool, whose names are answered by `answers` (a name that is not there fails).

    Sources look when the test says so; whoever else sleeps does so until `pass_time`.
    """

    def __init__(self, *servers: str, is_checked: bool = True) -> None:
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("predict", [], strategy, strategy)
        self.answers: dict[str, Sequence[str]] = {}
        self.tasks = Tasks()
        self.row = Slots().allocate(PROCESS)
        self.now = 100.0
        self.sleepers: list[tuple[float, asyncio.Event]] = []
        self.given: list[tuple[str, str, int]] = []
        self.asked: list[str] = []
        self.discovery = Discovery(
            self,
            self.tasks,
            self.row,
            lambda: self.now,
            resolve=self.resolve,
            wall=lambda: self.now + 1000.0,
            sleep=self.sleep,
            pause=self.pause,
        )
        self.wanted = Wanted(specs(*servers), is_checked=is_checked)

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(1, "Name or service not known")
        return self.answers[host]

    async def sleep(self, delay_s: float) -> None:
        event = asyncio.Event()
        self.sleepers.append((self.now + delay_s, event))
        await event.wait()

    async def pause(self, woken: asyncio.Event, wait_s: float) -> None:
        await woken.wait()
        woken.clear()

    async def start(self) -> list[str]:
        self.discovery.add_pool(self.pool, self.wanted)
        await self.discovery.start()
        return self.members()

    async def start_watching(self) -> None:
        """As `start` does, without waiting for answers."""
        self.discovery._is_started = True
        for watch in self.discovery._pools.values():
            for item in watch.watched.values():
                self.discovery._spawn(watch, item)
        await self.idle()

    async def idle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> list[str]:
        """Let the time pass, and whoever sleeps wake at his time."""
        end = self.now + seconds
        await self.idle()
        while due := [item for item in self.sleepers if item[0] <= end]:
            first = min(due, key=lambda item: item[0])
            self.sleepers.remove(first)
            self.now = max(self.now, first[0])
            first[1].set()
            await self.idle()
        self.now = end
        return self.members()

    async def look(self, host: str = "", wait_s: float = 1.0) -> list[str]:
        """The names are looked up again, one or all; the members when that is in force."""
        for (_, name), item in self.discovery._pools["predict"].watched.items():
            if host in ("", name):
                item.source.wake()
        return await self.pass_time(wait_s)

    def members(self) -> list[str]:
        return [f"{server.name} {server.shown}" for server in self.pool.servers]

    def add(self, pool: Pool, server: Server) -> None:
        pool.add(server, self.now)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server, self.now)
        self.discovery.left(pool, server)

    def give(self, pool: Pool, server: Server, key: str, value: int) -> None:
        if getattr(server, key) != value:
            self.given.append((server.name, key, value))
            setattr(server, key, value)

    def pass_checks(self) -> None:
        for server in self.pool.servers:
            self.pool.set_health(server, Health.UP, "", "", self.now)


Make = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def new(*servers: str, is_checked: bool = True) -> Bench:
        made.append(Bench(*servers, is_checked=is_checked))
        return made[-1]

    yield new
    for bench in made:
        await bench.tasks.cancel_all()


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_the_first_answer_makes_servers_that_take_traffic(make: Make) -> None:
    bench = make("model:5001")
    bench.answers["model"] = ["10.0.0.1", "10.0.0.2"]
    assert await bench.start() == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 up"]
    assert [server.health for server in bench.pool.servers] == [Health.UNKNOWN] * 2
    assert [server.host for server in bench.pool.servers] == ["model"] * 2


async def test_a_later_address_is_down_until_its_first_pass(make: Make) -> None:
    bench = make("model:5001")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    bench.answers["model"] = ["10.0.0.1", "10.0.0.2"]
    assert await bench.look() == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 down"]


async def test_without_health_checks_a_later_address_takes_traffic_at_once(make: Make) -> None:
    bench = make("model:5001", is_checked=False)
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    bench.answers["model"] = ["10.0.0.1", "10.0.0.2"]
    assert await bench.look() == ["model:5001/10.0.0.1 up", "model:5001/10.0.0.2 up"]


async def test_the_last_good_answer_is_kept(make: Make) -> None:
    bench = make("model:5001")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    del bench.answers["model"]
    assert await bench.look() == ["model:5001/10.0.0.1 up"]
    assert bench.row[PROCESS.column("dns_failures_total")] == 1


async def test_a_look_up_is_logged_when_its_result_changes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make("model:5001")
    with caplog.at_level(logging.INFO):
        await bench.start()
        for _ in range(4):
            await bench.look(wait_s=10.0)
        bench.answers["model"] = ["10.0.0.1"]
        for _ in range(2):
            await bench.look()
        del bench.answers["model"]
        for _ in range(5):
            await bench.look(wait_s=10.0)
    assert caplog.messages == [
        "pool predict: looking up model failed: Name or service not known; it has no server yet",
        "pool predict: server model:5001/10.0.0.1 joins",
        "pool predict: model resolves again, to 1 addresses",
        "pool predict: looking up model failed: Name or service not known; the last good answer stays in use",
    ]
    assert bench.row[PROCESS.column("dns_failures_total")] == 10


async def test_a_burst_of_answers_is_one_change(make: Make) -> None:
    """The last one counts, when it has stood for a while; a burst that does not end is cut short."""
    bench = make("model:5001", is_checked=False)
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    for last in range(2, 5):
        bench.answers["model"] = [f"10.0.0.{last}"]
        assert await bench.look(wait_s=0.1) == ["model:5001/10.0.0.1 up"]
    assert await bench.pass_time(0.15) == ["model:5001/10.0.0.4 up"]
    began = bench.now
    number = 4
    while "model:5001/10.0.0.4 up" in bench.members():
        number += 1
        bench.answers["model"] = [f"10.0.0.{number}"]
        await bench.look(wait_s=0.1)
    assert module.MOST_S <= bench.now - began <= module.MOST_S + 0.2


async def test_an_answer_that_is_taken_back_changes_nothing(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make("model:5001")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    bench.answers["model"] = ["10.0.0.2"]
    await bench.look(wait_s=0.1)
    bench.answers["model"] = ["10.0.0.1"]
    with caplog.at_level(logging.INFO):
        assert await bench.look() == ["model:5001/10.0.0.1 up"]
    assert caplog.messages == []


async def test_an_answer_without_end_is_no_answer(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make("model:5001")
    bench.answers["model"] = [f"10.0.{n // 256}.{n % 256}" for n in range(MAX_SERVERS)]
    assert len(await bench.start()) == MAX_SERVERS
    bench.answers["model"] = [*bench.answers["model"], "10.1.0.0"]
    assert len(await bench.look()) == MAX_SERVERS
    assert f"it names {MAX_SERVERS + 1} servers, and {MAX_SERVERS} are the most" in caplog.text


async def test_a_name_with_several_ports_is_looked_up_once(make: Make) -> None:
    bench = make("model:5001", "model:5002")
    bench.answers["model"] = ["10.0.0.1"]
    assert await bench.start() == ["model:5001/10.0.0.1 up", "model:5002/10.0.0.1 up"]
    assert bench.asked == ["model"]


async def test_a_name_without_an_answer_is_known_to_its_pool(make: Make) -> None:
    bench = make("model:5001", "model:5002", "gone:80")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    assert [(name.host, name.servers, name.is_unresolved, name.why) for name in bench.pool.names] == [
        ("model", ("model:5001", "model:5002"), False, ""),
        ("gone", ("gone:80",), True, "Name or service not known"),
    ]
    assert bench.discovery.lacks("predict") == [], "names tell that themselves"


async def test_a_start_does_not_wait_for_who_is_late(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make("model:5001")
    monkeypatch.setattr(module, "START_S", 0.0)
    late = asyncio.Event()

    async def resolve(host: str) -> Sequence[str]:
        await late.wait()
        return ["10.0.0.2"]

    bench.discovery.resolve = resolve
    assert await bench.start() == []
    late.set()
    assert await bench.pass_time(0.0) == ["model:5001/10.0.0.2 up"]


async def test_a_failed_connect_wakes_only_the_source_of_that_server(make: Make) -> None:
    bench = make("blue:1", "green:1")
    bench.answers |= {"blue": ["10.0.0.1"], "green": ["10.0.0.2"]}
    await bench.start()
    bench.asked.clear()
    bench.discovery.kick(bench.pool, Server("other", parse_address("10.0.0.9:1")))
    await bench.pass_time(1.0)
    assert bench.asked == []
    bench.discovery.kick(bench.pool, bench.pool.servers[1])
    await bench.pass_time(1.0)
    assert bench.asked == ["green"]


# --- what is told -----------------------------------------------------------------------------------------------------


async def test_every_source_tells_its_age_and_what_is_wrong(make: Make) -> None:
    bench = make("model:5001", "gone:1")
    bench.answers["model"] = ["10.0.0.1", "10.0.0.2"]
    await bench.start()
    bench.now += 7.0
    assert bench.discovery.told("predict") == [
        {"source": "dns:model", "servers": 2, "age": 7.0, "error": None, "says": {}},
        {"source": "dns:gone", "servers": 0, "age": None, "error": "Name or service not known", "says": {}},
    ]
    assert list(bench.discovery.last_successes()) == [
        (("predict", "dns:model"), 1100.0),
        (("predict", "dns:gone"), 0.0),
    ]
    assert list(bench.discovery.errors()) == [(("predict", "dns:model"), 0), (("predict", "dns:gone"), 1)]
    await bench.look()
    assert next(iter(bench.discovery.last_successes()))[1] == 1107.0
    assert (bench.discovery.told("nowhere"), bench.discovery.lacks("nowhere")) == ([], [])


# --- other sources while it runs --------------------------------------------------------------------------------------


async def test_servers_that_remain_keep_everything(make: Make) -> None:
    bench = make("one:80", "two:80")
    bench.answers |= {"one": ["10.0.0.1"], "two": ["10.0.0.2"], "four": ["10.0.0.4"]}
    await bench.start()
    bench.pass_checks()
    one, two = bench.pool.servers
    one.requests, two.inflight = 7, 1
    bench.discovery.change_pool(bench.pool, Wanted(specs("one:80", "four:80")))
    assert bench.members() == ["one:80/10.0.0.1 up", "two:80/10.0.0.2 up"]
    assert await bench.pass_time(1.0) == ["one:80/10.0.0.1 up", "two:80/10.0.0.2 drain", "four:80/10.0.0.4 down"]
    two.inflight = 0
    await bench.pass_time(1.0)
    assert bench.pool.servers[0] is one and one.requests == 7
    assert [server.name for server in bench.pool.servers] == ["one:80/10.0.0.1", "four:80/10.0.0.4"]
    assert bench.asked == ["one", "two", "four"], "a name that stays is not asked again"


async def test_an_address_goes_from_one_source_to_another_without_a_break(make: Make) -> None:
    bench = make("old:80")
    bench.answers |= {"old": ["10.0.0.1"], "model": ["10.0.0.1"]}
    await bench.start()
    bench.pass_checks()
    (server,) = bench.pool.servers
    bench.discovery.change_pool(bench.pool, Wanted(specs("model:80")))
    assert await bench.pass_time(1.0) == ["old:80/10.0.0.1 up"]
    assert bench.pool.servers == [server] and server.host == "model"
    assert [name.host for name in bench.pool.names] == ["model"]
    assert [entry["source"] for entry in bench.discovery.told("predict")] == ["dns:model"]


async def test_old_sources_stay_until_the_new_ones_are_heard(make: Make) -> None:
    bench = make("old:80")
    bench.answers["old"] = ["10.0.0.1"]
    await bench.start()
    asked = asyncio.Event()

    async def resolve(host: str) -> Sequence[str]:
        await asked.wait()
        return ["10.0.0.2"]

    bench.discovery.resolve = resolve
    bench.discovery.change_pool(bench.pool, Wanted(specs("model:80"), is_checked=False))
    assert await bench.pass_time(1.0) == ["old:80/10.0.0.1 up"]
    asked.set()
    assert await bench.pass_time(1.0) == ["model:80/10.0.0.2 up"]


async def test_other_settings_of_a_source_that_stays(make: Make) -> None:
    bench = make("model:80")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    (server,) = bench.pool.servers
    (spec,) = specs("model:80")
    changed = spec.model_copy(update={"weight": 5})
    bench.discovery.change_pool(bench.pool, Wanted((changed, *specs("model:81")), max_inflight=3))
    await bench.pass_time(1.0)
    assert bench.members() == ["model:80/10.0.0.1 up", "model:81/10.0.0.1 down"]
    assert bench.pool.servers[0] is server and bench.pool.servers[1].max_inflight == 3
    assert bench.given == [(server.name, "max_inflight", 3), (server.name, "weight", 5)]
    assert [name.servers for name in bench.pool.names] == [("model:80", "model:81")]


async def test_two_changes_at_once_end_as_the_second_says(make: Make) -> None:
    bench = make("blue:80")
    bench.answers |= {"blue": ["10.0.0.1"], "green": ["10.0.0.2"], "red": ["10.0.0.3"]}
    await bench.start()
    (server,) = bench.pool.servers
    bench.discovery.change_pool(bench.pool, Wanted(specs("green:80")))
    bench.discovery.change_pool(bench.pool, Wanted(specs("blue:80", "red:80")))
    await bench.pass_time(1.0)
    assert bench.members() == ["blue:80/10.0.0.1 up", "red:80/10.0.0.3 down"]
    assert bench.pool.servers[0] is server
    assert [entry["source"] for entry in bench.discovery.told("predict")] == ["dns:blue", "dns:red"]


async def test_a_pool_that_is_dropped_is_left_alone(make: Make) -> None:
    bench = make("model:80")
    bench.answers["model"] = ["10.0.0.1"]
    await bench.start()
    (server,) = bench.pool.servers
    bench.discovery.drop_pool(bench.pool)
    await bench.idle()
    assert bench.members() == ["model:80/10.0.0.1 up"] and len(bench.tasks) == 0
    assert bench.discovery.source_of(server) is None and list(bench.discovery.errors()) == []
    bench.discovery.kick(bench.pool, server)
    bench.discovery.left(bench.pool, server)
    bench.discovery.drop_pool(bench.pool)


async def test_a_pool_that_is_added_later_is_looked_after_at_once(make: Make) -> None:
    bench = make()
    await bench.discovery.start()
    bench.answers["model"] = ["10.0.0.1"]
    bench.discovery.add_pool(bench.pool, Wanted(specs("model:80")))
    assert await bench.pass_time(0.0) == ["model:80/10.0.0.1 up"]


# --- files and SRV ----------------------------------------------------------------------------------------------------


class Said(Source):
    """A source that says what the test tells it to say."""

    kind = values_from = "servers_file"
    rank = 1

    def __init__(self, name: str, path: str, clock: Callable[[], float]) -> None:
        super().__init__(f"servers_file:{name}", f"servers_file {name}")
        self.path = path
        self.to_emit: Emit = lambda answer: None
        self.fails = False
        self.crash = asyncio.Event()
        self.heard_of: list[str] = []
        self.is_member: Callable[[str], bool] = lambda ip: False

    def left(self, ip: str) -> None:
        self.heard_of.append(ip)

    def emit(self, answer: Answer) -> None:
        if self.fails:
            self.crash.set()
        else:
            self.to_emit(answer)

    async def watch(self, emit: Emit) -> None:
        self.to_emit = emit
        await self.crash.wait()
        self.fails = False
        self.crash.clear()
        raise RuntimeError("injected")

    def recovered(self, n_servers: int) -> str:
        return f"{self.title} is good again"

    def gone(self) -> str:
        return f"{self.title} no longer lists it"


class FileBench:
    """A pool with a servers_file."""

    def __init__(self, bench: Bench, *servers: str) -> None:
        self.bench = bench
        self.made: list[Said] = []
        bench.discovery._make_file = self.make
        bench.wanted = self.wanted("a.yaml", *servers)

    def make(self, name: str, path: str, clock: Callable[[], float]) -> Source:
        self.made.append(Said(name, path, clock))
        return self.made[-1]

    def wanted(self, path: str, *servers: str) -> Wanted:
        return Wanted(specs(*servers), servers_file=path, base_dir="/etc")

    async def begin(self) -> None:
        self.bench.discovery.add_pool(self.bench.pool, self.bench.wanted)
        await self.bench.start_watching()

    async def say(self, *addresses: str, error: str = "", weight: int = 1) -> list[str]:
        answer: Answer = Trouble(error)
        if not error:
            answer = [Found(parse_address(text), text, weight) for text in addresses]
        self.made[-1].emit(answer)
        return await self.bench.pass_time(1.0)


async def test_a_file_that_is_not_there_yet_brings_an_empty_pool(make: Make) -> None:
    bench = make()
    files = FileBench(bench)
    await files.begin()
    assert files.made[0].path == "/etc/a.yaml"
    assert bench.discovery.lacks("predict") == ["servers_file a.yaml: no answer yet"]
    assert await files.say(error="a.yaml: there is no such file") == []
    assert bench.discovery.lacks("predict") == ["servers_file a.yaml: a.yaml: there is no such file"]
    assert await files.say("10.0.0.1:80") == ["10.0.0.1:80 up"]
    assert bench.discovery.lacks("predict") == []
    assert await files.say() == []
    assert bench.discovery.lacks("predict") == ["servers_file a.yaml: has no server"]


async def test_part_of_an_answer_that_is_lacking_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make()
    files = FileBench(bench)
    await files.begin()
    files.made[0].lacking = "its target b.org: SERVFAIL"
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await files.say("10.0.0.1:80") == ["10.0.0.1:80 up"]
        (told,) = bench.discovery.told("predict")
        assert (told["error"], told["servers"]) == ("its target b.org: SERVFAIL", 1)
        files.made[0].lacking = ""
        await files.say("10.0.0.1:80")
    assert caplog.messages == [
        "pool predict: server 10.0.0.1:80 joins",
        "pool predict: servers_file a.yaml: its target b.org: SERVFAIL; what else it has is in use",
        "pool predict: servers_file a.yaml is good again",
    ]
    assert bench.discovery.told("predict")[0]["error"] is None


async def test_who_is_on_his_way_out_gets_nothing_more_at_once(make: Make) -> None:
    """Others leave when nothing new has come for a while: they may be back in the next answer."""
    bench = make()
    files = FileBench(bench)
    await files.begin()
    await files.say("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
    bench.pass_checks()
    for server in bench.pool.servers:
        server.inflight = 1
    source = files.made[0]
    source.emit([Found(parse_address(f"10.0.0.{number}:80"), f"10.0.0.{number}:80") for number in (1, 2)])
    assert bench.members() == ["10.0.0.1:80 up", "10.0.0.2:80 up", "10.0.0.3:80 up"]
    source.going = frozenset({"10.0.0.2:80"})
    source.emit([Found(parse_address("10.0.0.1:80"), "10.0.0.1:80")])
    assert bench.members() == ["10.0.0.1:80 up", "10.0.0.2:80 drain", "10.0.0.3:80 drain"]
    for server in bench.pool.servers:
        server.inflight = 0
    assert await bench.pass_time(5.0) == ["10.0.0.1:80 up"]


async def test_a_service_of_kubernetes_is_a_source(make: Make) -> None:
    bench = make()
    made: list[tuple[str, str]] = []

    def source(wanted: Kubernetes, base_dir: str, clock: Callable[[], float]) -> Source:
        made.append((wanted.service, base_dir))
        return Said("", "", clock)

    bench.discovery._make_kubernetes = source
    wanted = {name: Wanted(kubernetes=Kubernetes(service=name), base_dir="/etc") for name in ("a", "b")}
    assert wanted["a"].has_sources and not Wanted().has_sources
    bench.discovery.add_pool(bench.pool, wanted["a"])
    bench.discovery.change_pool(bench.pool, wanted["a"])
    bench.discovery.change_pool(bench.pool, wanted["b"])
    assert [service for service, _ in made] == ["a", "a", "b"] and made[0][1] == "/etc"
    assert list(bench.discovery._pools["predict"].watched) == [("kubernetes", "")]


async def test_another_file_takes_the_place_of_the_first_when_it_is_read(make: Make) -> None:
    bench = make()
    files = FileBench(bench)
    await files.begin()
    await files.say("10.0.0.1:80", "10.0.0.2:80")
    bench.pass_checks()
    kept = bench.pool.servers[1]
    bench.discovery.change_pool(bench.pool, files.wanted("b.yaml"))
    assert await bench.pass_time(5.0) == ["10.0.0.1:80 up", "10.0.0.2:80 up"]
    old, new = files.made
    old.emit([])
    assert await bench.pass_time(1.0) == ["10.0.0.1:80 up", "10.0.0.2:80 up"], "nobody listens to the old one"
    assert await files.say("10.0.0.2:80", "10.0.0.3:80") == ["10.0.0.2:80 up", "10.0.0.3:80 down"]
    assert new.path == "/etc/b.yaml" and bench.pool.servers[0] is kept
    assert [entry["source"] for entry in bench.discovery.told("predict")] == ["servers_file:b.yaml"]


async def test_a_server_that_the_config_has_too_is_what_the_config_says(make: Make) -> None:
    """Who stands in the config file by its address, or was added by an operator, is no source's."""
    bench = make()
    files = FileBench(bench)
    first = Server("10.0.0.1:80", parse_address("10.0.0.1:80"))
    bench.add(bench.pool, first)
    await files.begin()
    await files.say("10.0.0.1:80", "10.0.0.2:80", weight=9)
    assert [(server.name, server.weight) for server in bench.pool.servers] == [("10.0.0.1:80", 1), ("10.0.0.2:80", 9)]
    second = bench.pool.servers[1]
    sources = [bench.discovery.source_of(server) for server in (first, second)]
    assert [source and source.kind for source in sources] == [None, "servers_file"]
    assert bench.discovery.keeper_of(second) is files.made[0], "removed by an operator, it would come back"
    second.inflight = 1
    await files.say("10.0.0.1:80")
    assert bench.discovery.is_leaving(second) and bench.discovery.keeper_of(second) is None


async def test_a_source_that_crashes_is_watched_again(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make()
    files = FileBench(bench)
    await files.begin()
    assert await files.say("10.0.0.1:80") == ["10.0.0.1:80 up"]
    files.made[0].fails = True
    assert await files.say("10.0.0.1:80") == ["10.0.0.1:80 up"]
    (told,) = bench.discovery.told("predict")
    assert (
        "a defect of lbproxy" in str(told["error"])
        and "task discovery:predict/servers_file:a.yaml crashed" in caplog.text
    )
    await bench.pass_time(module.AGAIN_S)
    assert await files.say("10.0.0.1:80", "10.0.0.2:80") == ["10.0.0.1:80 up", "10.0.0.2:80 down"]
    assert bench.discovery.told("predict")[0]["error"] is None


async def test_a_change_that_ends_another_forgets_nothing(make: Make) -> None:
    """The first waits for a check of the new server when the second comes."""
    bench = make("old:80")
    bench.answers |= {"old": ["10.0.0.2"], "three": ["10.0.0.3"], "four": ["10.0.0.4"]}
    await bench.start()
    bench.pass_checks()
    bench.discovery.change_pool(bench.pool, Wanted(specs("three:80")))
    await bench.pass_time(1.0)
    assert bench.members() == ["old:80/10.0.0.2 up", "three:80/10.0.0.3 down"]
    bench.discovery.change_pool(bench.pool, Wanted(specs("four:80")))
    await bench.pass_time(20.0)
    assert bench.members() == ["four:80/10.0.0.4 down"]
    assert [entry["source"] for entry in bench.discovery.told("predict")] == ["dns:four"]


async def test_an_srv_record_is_a_source_like_any_other(make: Make) -> None:
    bench = make()

    class Resolver:
        async def srv(self, name: str) -> Sequence[Record]:
            return [Record(0, 3, 80, "a.org")]

        async def addresses(self, target: str) -> Sequence[str]:
            return ["10.0.0.1"]

    asked: list[str] = []

    def make_resolver(servers: Sequence[Address]) -> Resolver:
        asked.extend(map(str, servers))
        return Resolver()

    bench.discovery._make_resolver = make_resolver
    bench.wanted = Wanted(dns=Dns.model_validate({"srv": "_p._tcp.org", "servers": ["10.0.0.53"]}))
    assert await bench.start() == ["a.org:80/10.0.0.1 up"]
    assert (bench.pool.servers[0].weight, asked) == (3, ["10.0.0.53:53"])
    bench.discovery.change_pool(bench.pool, Wanted(dns=Dns.model_validate({"srv": "_p._tcp.org", "hold": 9})))
    assert await bench.pass_time(1.0) == ["a.org:80/10.0.0.1 up"]
    bench.answers["model"] = ["10.0.0.5"]
    bench.discovery.change_pool(bench.pool, Wanted(specs("model:80")))
    await bench.pass_time(0.5)
    bench.pass_checks()
    assert await bench.pass_time(1.0) == ["model:80/10.0.0.5 up"]


async def test_aws_is_a_source_like_any_other(make: Make) -> None:
    bench = make()
    made: list[Said] = []

    def make_aws(aws: Aws, clock: Callable[[], float], is_member: Callable[[str], bool]) -> Source:
        made.append(Said(f"{aws.auto_scaling_group}", "", clock))
        made[-1].is_member = is_member
        return made[-1]

    bench.discovery._make_aws = make_aws
    first = Aws.model_validate({"auto_scaling_group": "first", "port": 80})
    bench.discovery.add_pool(bench.pool, Wanted(aws=first))
    await bench.start_watching()
    made[0].says = {"10.0.0.1:80": "Unhealthy"}
    made[0].emit([Found(parse_address(f"10.0.0.{number}:80"), f"i-{number}") for number in (1, 2)])
    assert await bench.pass_time(1.0) == ["i-1 up", "i-2 up"]
    assert bench.discovery.told("predict")[0]["says"] == {"10.0.0.1:80": "Unhealthy"}
    assert made[0].is_member("10.0.0.1") and not made[0].is_member("10.0.0.3")
    bench.pool.servers[0].inflight = 1
    made[0].emit([])
    await bench.pass_time(1.0)
    assert made[0].heard_of == ["10.0.0.2"] and made[0].is_member("10.0.0.1")
    bench.pool.servers[0].inflight = 0
    await bench.pass_time(1.0)
    assert made[0].heard_of == ["10.0.0.2", "10.0.0.1"] and not made[0].is_member("10.0.0.1")
    bench.discovery.change_pool(bench.pool, Wanted(aws=first, max_inflight=3))
    item = bench.discovery._pools["predict"].watched["aws", ""]
    assert item.source is made[0], "nothing of it has changed"
    bench.discovery.change_pool(bench.pool, Wanted(aws=first.model_copy(update={"port": 81})))
    assert item.source is made[-1] and item.source is not made[0]


def test_what_is_wanted_stands_in_the_config() -> None:
    pool = PoolConfig.model_validate(
        {
            "servers": ["10.0.0.1:80", "model.test:80"],
            "servers_file": "s.yaml",
            "max_inflight": 4,
            "health_check": "off",
            "discovery": {"aws": {"auto_scaling_group": "predict", "port": 80}},
        }
    )
    wanted = Wanted.of(pool, "/etc")
    assert wanted.aws is not None and wanted.aws.auto_scaling_group == "predict"
    assert Wanted(aws=wanted.aws).has_sources and not Wanted().has_sources
    assert (wanted.servers_file, wanted.base_dir, wanted.max_inflight, wanted.is_checked) == (
        "s.yaml",
        "/etc",
        4,
        False,
    )
    assert (wanted.specs, wanted.dns) == (pool.servers[1:], pool.dns), "what has an address needs no source"
