"""The controller, as a worker knows it: what it says, and how a config comes in force that it has planned.

A worker makes everything of the next config when it hears `Prepare`, and puts it in force at `Commit`, so that all
workers, or none, change. It goes on without a controller: its successor has the same words for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.explain_api import Past
from lbproxy.process.applying import Applying, CannotApply, Prepared
from lbproxy.process.upgrade.sockets import Inherited, Passed
from lbproxy.process.workers import messages
from lbproxy.process.workers.channel import Channel, Failed
from lbproxy.process.workers.lines import Said
from lbproxy.process.workers.shares import share_of
from lbproxy.process.workers.station import Setup, close_all
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy")

SOCKETS_S: Final = 5.0
"""For the sockets of a config, which come another way than the config."""


class Agent:
    """applying: the parts that a config decides about. read_files: certificates that have changed. failed: a defect.

    welcomed: set when the controller has said all that a new worker must know. is_open: to be set when this worker
    accepts.
    """

    def __init__(
        self,
        setup: Setup,
        applying: Applying,
        read_files: Callable[[], Awaitable[None]],
        tasks: Tasks,
        failed: Failed,
    ) -> None:
        self._setup = setup
        self._applying = applying
        self._read_files = read_files
        self._tasks = tasks
        self._failed = failed
        self._past = Past(applying.logs)
        self._channel: Channel | None = None
        self._passed = dict(setup.sockets.waiting)  # of configs that are not in force here yet
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._prepared: tuple[int, Config, Config, Prepared] | None = None
        self.welcomed = asyncio.Event()
        self.is_open = asyncio.Event()
        self.config = setup.config
        self.generation = setup.generation

    def send(self, message: object) -> None:
        """To the controller, if there is one."""
        if self._channel is not None:
            self._channel.send(message)

    # --- the supervisor's words -------------------------------------------------------------------------------------

    def peer(self, said: Said) -> None:
        """There is a controller."""
        self._tasks.spawn(self._connect(said.fds[0]), "controller")

    async def _connect(self, fd: int) -> None:
        channel = Channel(self.heard, self._ended, self._failed)
        old, self._channel = self._channel, channel
        if old is not None:
            old.close()
        await channel.open(socket.socket(fileno=fd))
        channel.send(messages.Hello(self.generation))

    def _ended(self, channel: Channel) -> None:
        if channel is self._channel:
            self._channel = None
            if not self._applying.is_stopping():
                log.warning("the controller is gone: servers are used as it said last, until there is another one")
            self._tasks.spawn(self._forget(None), "config of a controller that is gone")

    def sockets(self, said: Said) -> None:
        """Sockets of the next config. data: how many there are of each name, and whether they are lbproxy's own, as
        JSON."""
        left = list(said.fds)
        for name, (count, is_ours) in json.loads(said.data).items():
            own, left = left[:count], left[count:]
            self._drop(name)
            self._passed[name] = Passed(tuple(_listening(fd) for fd in own), is_ours=is_ours)
        close_all(tuple(left))
        self._news.set()

    def unwanted(self, said: Said) -> None:
        """They are of a config that will not be: its controller is dead. data: their names, as JSON."""
        for name in json.loads(said.data):
            self._drop(name)

    def take_sockets(self, names: Iterable[str]) -> Inherited:
        """Those of the config that this worker begins with, as far as there are some."""
        return Inherited({name: self._passed.pop(name) for name in names if name in self._passed})

    def _drop(self, name: str) -> None:
        known = self._passed.pop(name, None)
        if known is not None:
            known.close()

    # --- the controller's -------------------------------------------------------------------------------------------

    def heard(self, message: object) -> None:
        """The controller says something."""
        match message:
            case messages.Welcome():
                self.welcomed.set()
            case messages.Find():
                self._tasks.spawn(self._find(message), "requests that have been")
            case messages.Prepare():
                self._tasks.spawn(self._prepare(message), "config")
            case messages.Commit():
                asked = message.generation
                self._tasks.spawn(self._commit(asked) if message.is_wanted else self._forget(asked), "config")

    async def _prepare(self, asked: messages.Prepare) -> None:
        await self.is_open.wait()
        async with self._turn:
            await self._forget_prepared()
            setup = self._setup
            own = share_of(asked.config, setup.number - 1, setup.board.n_workers)
            try:
                inherited = await self._sockets_of(asked.doors)
                prepared = await self._applying.prepare(self._own(), own, inherited)
                inherited.close()
            except Unusable as error:
                self.send(messages.Prepared(asked.generation, str(error)))
            except CannotApply as refused:
                self.send(messages.Prepared(asked.generation, str(refused)))
            else:
                self._prepared = asked.generation, asked.config, own, prepared
                self.send(messages.Prepared(asked.generation))

    def _own(self) -> Config:
        return share_of(self.config, self._setup.number - 1, self._setup.board.n_workers)

    async def _find(self, asked: messages.Find) -> None:
        past = self._past
        records = () if past.why else tuple(await past.find(asked.request_id))
        self.send(messages.Found(asked.number, records, past.n_lines))

    async def _sockets_of(self, names: tuple[str, ...]) -> Inherited:
        """Raises CannotApply."""
        try:
            async with asyncio.timeout(SOCKETS_S):
                while not self._passed.keys() >= set(names):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise CannotApply(f"{self._setup.name} got no sockets for new addresses") from None
        passed, self._passed = self._passed, {}
        return Inherited(passed)

    async def _commit(self, generation: int) -> None:
        async with self._turn:
            if self._prepared is None or self._prepared[0] != generation:
                return  # the controller sees that it is not confirmed
            _, self.config, own, prepared = self._prepared
            self._prepared = None
            self._applying.adopt(own, prepared)
            self.generation = generation
            self._setup.board.keeps_to(self._setup.number, generation)
            self.send(messages.Committed(generation))
        await self._read_files()

    async def _forget(self, generation: int | None) -> None:
        """A config is not wanted; None: whichever waits."""
        async with self._turn:
            if self._prepared is not None and generation in (None, self._prepared[0]):
                await self._forget_prepared()
            for name in list(self._passed) if generation is not None else ():
                self._drop(name)

    async def _forget_prepared(self) -> None:
        if self._prepared is not None:
            prepared, self._prepared = self._prepared[3], None
            await self._applying.abandon(prepared)


def _listening(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock
