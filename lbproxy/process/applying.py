"""How another config comes in force while traffic flows: all of it or nothing.

Whatever can fail is done first, and changes nothing: TLS, strategies and routes are made in a thread, new addresses are
bound, the new log is opened. What follows are references that are swapped, on the loop, without a wait in between: no
request sees half of a config.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lbproxy.config.model import Config
from lbproxy.control.admin import AdminServer
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.listener import BindError, Listener, bind_message, plan_connections
from lbproxy.dataplane.net.splice import CAN_SPLICE
from lbproxy.dataplane.services import Services
from lbproxy.process.access_log import CLOSE_S, AccessLogs, open_access_log
from lbproxy.process.controller import Controller
from lbproxy.process.listeners import NOTHING, Listeners, binds_of
from lbproxy.process.upgrade.sockets import Inherited
from lbproxy.process.wiring import Draft, Wiring
from lbproxy.telemetry import log as operator_log
from lbproxy.telemetry.log_writer import LogWriter

log = logging.getLogger("lbproxy")


class CannotApply(Exception):
    """The config is good, and can't be put in place here and now. The text says why; nothing was changed."""


@dataclass(slots=True)
class Prepared:
    """All that could fail has been done. has_log: another access log was opened, or it is to be none."""

    draft: Draft
    fresh: dict[str, Listener]
    admin: AdminServer | None
    writer: LogWriter | None
    has_log: bool


@dataclass(slots=True)
class Applying:
    """The parts of a running process that a config decides about. controller: None where another process has it.
    shares_logs: other processes write to the same files."""

    services: Services
    wiring: Wiring
    listeners: Listeners
    controller: Controller | None
    gate: ConnectionGate
    logs: AccessLogs
    is_stopping: Callable[[], bool]
    shares_logs: bool = False

    async def apply(self, old: Config, new: Config) -> None:
        """Raises Unusable or CannotApply, and then nothing was changed. One at a time."""
        self.adopt(new, await self.prepare(old, new))
        if self.controller is not None:
            await self.controller.files_read()

    async def prepare(self, old: Config, new: Config, inherited: Inherited = NOTHING) -> Prepared:
        """Do all that can fail; `adopt` or `abandon` has to follow. inherited: sockets of new addresses that are open
        already. Raises Unusable or CannotApply, and then nothing was changed."""
        self.wiring.is_drafting = True
        try:
            prepared = await self._prepare(old, new, inherited)
            if self.is_stopping():
                await self._abandon(prepared.fresh, prepared.writer, prepared.admin)
                raise CannotApply("lbproxy is stopping")
        except BaseException:
            self.wiring.is_drafting = False
            raise
        return prepared

    async def abandon(self, prepared: Prepared) -> None:
        """It is not wanted after all."""
        self.wiring.is_drafting = False
        await self._abandon(prepared.fresh, prepared.writer, prepared.admin)

    def adopt(self, new: Config, prepared: Prepared) -> None:
        """Put it in force. Nothing here waits, and nothing here may fail."""
        try:
            self._adopt(new, prepared)
        finally:
            self.wiring.is_drafting = False

    async def _prepare(self, old: Config, new: Config, inherited: Inherited) -> Prepared:
        draft = await asyncio.to_thread(self.wiring.draft, new)
        try:
            fresh = self.listeners.prepare(binds_of(new), draft.listeners, inherited)
        except BindError as error:
            raise CannotApply(str(error)) from None
        has_log = (old.access_log and old.access_log.path) != (new.access_log and new.access_log.path)
        writer: LogWriter | None = None
        try:
            writer = open_access_log(new.access_log, is_shared=self.shares_logs) if has_log else None
            admin = None if self.controller is None else await self.controller.admin.prepare(new.admin)
        except BaseException as error:
            await self._abandon(fresh, writer, None)
            if isinstance(error, OSError) and new.admin.bind is not None:
                raise CannotApply(bind_message("admin.bind", new.admin.bind, error)) from None
            raise
        return Prepared(draft, fresh, admin, writer, has_log)

    async def _abandon(
        self, fresh: Mapping[str, Listener], writer: LogWriter | None, admin: AdminServer | None
    ) -> None:
        self.listeners.abandon(fresh.values())
        if self.controller is not None:
            await self.controller.admin.abandon(admin)
        if writer is not None:
            await asyncio.to_thread(writer.close, CLOSE_S)

    def _adopt(self, new: Config, prepared: Prepared) -> None:
        services, draft = self.services, prepared.draft
        now = services.clock()
        self.wiring.adopt(draft, now)
        pools = {name: runtime.pool for name, runtime in self.wiring.pools.items()}
        if self.controller is not None:
            self.controller.adopt(new, pools, prepared.admin)
        self.listeners.adopt(binds_of(new), draft.listeners, prepared.fresh, now)
        warning = limit_connections(new, self.gate, services)
        if warning:
            log.warning("%s", warning)
        services.pressure.limit_to(new.limits.buffered_bytes)
        operator_log.change(new.log.level, new.log.format)
        services.access_writer = prepared.writer if prepared.has_log else self.logs.writer
        replaced = self.logs.use(services.access_writer, new)
        if replaced is not None:
            services.tasks.spawn(asyncio.to_thread(replaced.close, CLOSE_S), "the old access log")


def limit_connections(config: Config, gate: ConnectionGate, services: Services) -> str:
    """Have `limits.connections` hold, as far as the limit on open files allows; what there is to say about that."""
    wanted = config.limits.connections
    plan = plan_connections(wanted, has_admin=config.admin.bind is not None, n_processes=gate.n_sharing)
    gate.limit_to(plan.limit * gate.n_sharing if wanted is None else wanted, plan.limit)
    services.pipes.limit = plan.flows if CAN_SPLICE else 0
    return plan.warning
