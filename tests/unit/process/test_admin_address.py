"""Who may call the admin address, and what becomes of it with another config, or in an upgrade."""

from __future__ import annotations

from typing import Any, cast

from aiohttp import web

from lbproxy.address import Address
from lbproxy.config.model import Admin
from lbproxy.control.access import Access
from lbproxy.control.admin import AdminServer
from lbproxy.process.admin_address import AdminAddress, access
from lbproxy.process.upgrade.sockets import Passed, admin_name
from lbproxy.tasks import Tasks


class Opened:
    """In place of an AdminServer: writes down what happens to it."""

    def __init__(self, bind: Address, rules: Access, may_move: bool, passed: Passed | None) -> None:
        self.bound = [bind]
        self.filenos = [7]
        self.socket_file = None
        self.did: list[object] = []

    async def start(self) -> None:
        self.did.append("start")

    async def serve(self) -> None:
        self.did.append("serve")

    async def stop(self, *, keeps_file: bool = False) -> None:
        self.did.append("stop, keeps its file" if keeps_file else "stop")

    def allow(self, rules: Access) -> None:
        self.did.append("allow")


def address(bind: str) -> tuple[AdminAddress, list[Opened]]:
    made: list[Opened] = []

    def make(*given: Any) -> AdminServer:
        made.append(Opened(*given))
        return cast(AdminServer, made[-1])

    crashes: list[BaseException] = []
    return AdminAddress(admin(bind), make, Tasks(crashes.append)), made


def admin(bind: str) -> Admin:
    return Admin.model_validate({"bind": bind})


async def test_an_address_that_stays_only_hears_who_may_call() -> None:
    subject, [server] = address("127.0.0.1:5009")
    await subject.start()
    assert await subject.prepare(admin("127.0.0.1:5009")) is None
    subject.use(None, admin("127.0.0.1:5009"))
    assert server.did == ["start", "allow"]


async def test_another_address_is_open_before_the_first_one_is_closed() -> None:
    subject, made = address("127.0.0.1:5009")
    await subject.start()
    fresh = await subject.prepare(admin("127.0.0.1:5010"))
    assert [server.did for server in made] == [["start"], ["start"]]
    subject.use(fresh, admin("127.0.0.1:5010"))
    await subject._tasks.cancel_all()
    await subject.stop()
    assert made[1].did == ["start", "allow", "stop"]
    assert list(subject.offered) == [admin_name(made[1].bound[0])]


async def test_what_was_opened_for_a_config_that_fails_is_closed() -> None:
    subject, made = address("127.0.0.1:5009")
    await subject.abandon(await subject.prepare(admin("127.0.0.1:5010")))
    await subject.abandon(None)
    assert (made[0].did, made[1].did) == ([], ["start", "stop"])


async def test_the_file_of_a_unix_socket_is_left_to_who_has_taken_it() -> None:
    for taken, word in ((True, "stop, keeps its file"), (False, "stop")):
        subject, [server] = address("unix:/run/admin.sock")
        await subject.handed_over(set(subject.offered) if taken else set())
        await subject.stop()
        assert server.did == [word]
        assert subject.offered == {}


async def test_there_may_be_none() -> None:
    subject, made = address("off")
    for step in (subject.start, subject.serve, subject.stop):
        await step()
    subject.use(None, admin("off"))
    assert made == [] and subject.offered == {}


def test_tokens_of_the_config_with_their_scopes() -> None:
    admin = Admin.model_validate(
        {"token": "a", "tokens": {"ci": "b", "reader": {"token": "c", "scope": "read"}, "nobody": "off"}}
    )
    rules = access(admin)

    def may(method: str, secret: str) -> bool:
        try:
            rules.check(method=method, authorization=f"Bearer {secret}", host="", origin=None, peer="192.0.2.1")
        except web.HTTPException:
            return False
        return True

    assert [may("PATCH", secret) for secret in ("a", "b", "c", "off", "")] == [True, True, False, False, False]
    assert may("GET", "c")
