"""The admin address of a process: opened, moved by another config, offered to the process that takes over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set

from lbproxy.address import Address
from lbproxy.config.model import Admin
from lbproxy.control.access import Access, Token
from lbproxy.control.admin import AdminServer
from lbproxy.process.upgrade.handing import Offered
from lbproxy.process.upgrade.sockets import Given, Passed, admin_name
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy.control")

Make = Callable[[Address, Access, bool, Passed | None], AdminServer]
"""A server for an address, and who may call; may it take another port than its own; sockets that are open already."""


class AdminAddress:
    """See the module. may_move, passed: for the first address; see Make."""

    def __init__(
        self, admin: Admin, make: Make, tasks: Tasks, *, may_move: bool = False, passed: Passed | None = None
    ) -> None:
        self._config = admin
        self._make = make
        self._tasks = tasks
        self._server = self._made(admin, may_move, passed)

    def _made(self, admin: Admin, may_move: bool, passed: Passed | None) -> AdminServer | None:
        return None if admin.bind is None else self._make(admin.bind, access(admin), may_move, passed)

    async def start(self) -> None:
        """Bind it. Raises OSError."""
        if self._server is not None:
            await _open(self._server)

    async def serve(self) -> None:
        """Accept at inherited sockets."""
        if self._server is not None:
            await self._server.serve()

    async def stop(self) -> None:
        """Nobody is answered any more."""
        if self._server is not None:
            await self._server.stop()

    # --- an upgrade -------------------------------------------------------------------------------------------------

    @property
    def offered(self) -> Offered:
        """The sockets, for another process."""
        if self._server is None or self._config.bind is None:
            return {}
        file = self._server.socket_file
        return {admin_name(self._config.bind): Given(self._server.filenos, file, file is not None)}

    async def handed_over(self, taken: Set[str]) -> None:
        """Another process serves: it has the address, too, if it has taken that."""
        keeps_file = bool(taken & self.offered.keys())
        server, self._server = self._server, None
        if server is not None:
            await server.stop(keeps_file=keeps_file)

    # --- another config ---------------------------------------------------------------------------------------------

    async def prepare(self, admin: Admin) -> AdminServer | None:
        """Open the address of another config, if it is another one; None if not. Raises OSError."""
        if admin.bind is None or admin.bind == self._config.bind:
            return None
        made = self._made(admin, False, None)
        assert made is not None
        await _open(made)
        return made

    async def abandon(self, server: AdminServer | None) -> None:
        """What `prepare` opened is not wanted after all."""
        if server is not None:
            await server.stop()

    def use(self, fresh: AdminServer | None, admin: Admin) -> None:
        """Keep to another config. fresh: from `prepare`."""
        self._config, old = admin, self._server
        if fresh is not None or admin.bind is None:
            self._server = fresh
            if old is not None:
                self._tasks.spawn(old.stop(), "admin address")  # the call that has asked for this is answered first
        if self._server is not None:
            self._server.allow(access(admin))


async def _open(server: AdminServer) -> None:
    await server.start()
    for address in server.bound:
        log.info("listening name=admin address=%s", address)


def access(admin: Admin) -> Access:
    """Who may call the admin address."""
    tokens = [] if admin.token is None else [Token("admin.token", admin.token)]
    for name, item in admin.tokens.items():
        if item.token is not None:
            tokens.append(Token(name, item.token, item.scope == "write"))
    return Access(tokens, admin.hosts)
