"""The controller as a process of its own: process/controller.py on its own loop, beside workers that it speaks to.

It has pools of its own, which the checks and discovery tell of servers, and never a byte of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from pathlib import Path

from lbproxy import __version__
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.explain_api import ExplainApi
from lbproxy.control.explaining import Moment
from lbproxy.control.kept_data import Unreadable
from lbproxy.control.kept_state import SUCCESSION, UPGRADE
from lbproxy.control.metrics import Registry
from lbproxy.control.status import ListenerStatus
from lbproxy.control.upgrade_api import UpgradeApi
from lbproxy.dataplane.listener import BindError, admin_connections, bind_message
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.dataplane.services import SWEEP_S
from lbproxy.process import loop_errors
from lbproxy.process.applying import CannotApply
from lbproxy.process.controller import Controller
from lbproxy.process.listeners import binds_of
from lbproxy.process.manager import Manager
from lbproxy.process.reload_requests import ReloadRequests
from lbproxy.process.reloading import Reloading
from lbproxy.process.tuning import tune_gc
from lbproxy.process.upgrade.handing import Heir
from lbproxy.process.upgrade.sockets import admin_name
from lbproxy.process.upgrade.taking_over import unreadable
from lbproxy.process.wiring import Wiring
from lbproxy.process.worker import StartError
from lbproxy.process.workers.crew import CONFIRM_S, Crew
from lbproxy.process.workers.known import Known
from lbproxy.process.workers.lines import Said
from lbproxy.process.workers.messages import Found
from lbproxy.process.workers.part import Part
from lbproxy.process.workers.past import CrewPast
from lbproxy.process.workers.sockets import Door, Doors, flat, open_door
from lbproxy.process.workers.station import Setup, Station
from lbproxy.process.workers.succession import Succession
from lbproxy.shared.columns import Folding
from lbproxy.tasks import Tasks
from lbproxy.telemetry import log as operator_log
from lbproxy.telemetry.slots import PROCESS, Row, Slots

log = logging.getLogger("lbproxy")


class ControlProcess:
    """`run` returns the exit status. doors: what is bound; the descriptors are the supervisor's."""

    def __init__(self, setup: Setup, doors: Doors) -> None:
        self._setup = setup
        self._config = setup.config
        self._doors = doors
        self._end = asyncio.Event()
        self._adopted = asyncio.Event()  # by the supervisor: the config in force
        self._serves = False
        self._wants_reload = False
        self._is_orphan = False
        self._is_leaving = False
        self._tasks = Tasks(self._crashed)
        self._slots = Slots()
        self._registry = Registry(__version__)
        self._row = self._slots.allocate(PROCESS)
        self._registry.add(PROCESS, (), self._row)
        self._crew = Crew(
            setup.board, setup.line, setup.config, setup.generation, self._heard, self._tasks, self._internal_error
        )
        self._past = CrewPast(self._crew, lambda: self._config)
        self._runtimes: list[ListenerRuntime] = []
        self._wiring: Wiring
        self._part: Part
        self._sweep_timer: asyncio.TimerHandle
        self._controller: Controller
        self._requests: ReloadRequests
        self._known: Known
        self._succession: Succession
        self._station = Station(
            setup,
            {
                "peer": self._crew.peer,
                "reload": self._told_to_reload,
                "running": self._running,
                "stop": self._told_to_stop,
                "update": lambda said: self._succession.update(said),
                "serve": lambda said: self._succession.serve(said),
                "adopted": lambda said: self._adopted.set(),
                "upgrade": lambda said: self._succession.signalled(said),
                "last": lambda said: self._succession.last(said),
                "no-upgrade": lambda said: self._succession.failed(said),
                "leave": lambda said: self._succession.handed_over(said),
                "now": lambda said: self._end.set(),
            },
            self._orphaned,
        )

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Until it is told to end. Raises StartError."""
        loop = asyncio.get_running_loop()
        loop_errors.install(loop, self._internal_error)
        self._build()
        try:
            await self._controller.start(self._setup.known, UPGRADE if self._setup.is_first else SUCCESSION)
        except Unreadable as states_error:
            raise StartError(unreadable(states_error)) from None
        except OSError as error:
            assert self._config.admin.bind is not None  # else nothing was bound
            raise StartError(bind_message("admin.bind", self._config.admin.bind, error)) from None
        self._offer_admin()
        tune_gc()
        self._station.start(loop)
        self._sweep(loop)
        self._part.attach(loop)
        if self._setup.waits:
            await self._succession.take_over()
        if not self._end.is_set():
            await self._controller.admin.serve()
            self._station.serving()
            self._serves = True
            if self._wants_reload:
                self._requests.signal()
            self._requests.watch(self._config.watch)
            self._known.tell()
        await self._end.wait()
        self._sweep_timer.cancel()
        self._part.detach(loop)
        self._requests.watch(False)
        if self._is_orphan:  # another lbproxy may have the address, too
            await self._controller.handed_over(self._controller.admin.offered.keys())
        await self._controller.stop()
        await self._tasks.cancel_all()
        self._station.stop(loop)
        return 0

    def _build(self) -> None:
        setup, config = self._setup, self._config
        part = self._part = Part(setup.share, setup.board.n_workers, time.monotonic)
        self._wiring = wiring = Wiring(
            config,
            self._slots,
            self._registry,
            rng=random.Random(),
            dial_failed=lambda pool, server, fault: None,
            strategy_failed=lambda pool, error: None,
            base_dir=str(Path(setup.config_path).parent) if setup.config_path else ".",
            tls=setup.tls,
            part=part,
        )
        try:
            wiring.build_pools()
            self._runtimes = [wiring.build_listener(item) for item in config.listeners]
        except Unusable as error:
            raise StartError(setup.shown(error), 2) from None
        self._registry.pools = pools = {name: runtime.pool for name, runtime in wiring.pools.items()}
        reloading = Reloading(
            config,
            setup.config_path,
            os.environ,
            self._apply,
            self._row,
            lambda text, by: self._controller.events.add("reload", text, by=by),
            kept=setup.kept,
        )
        manager = Manager(self._notify)
        self._requests = ReloadRequests(reloading, manager, self._tasks, setup.config_path)
        self._registry.readers |= {
            "tls_certificate_expiry_timestamp_seconds": wiring.certificate_expiries,
            "config_last_reload_successful": reloading.was_successful,
            "config_last_reload_success_timestamp_seconds": reloading.succeeded_at,
            "buffered_limit_bytes": lambda: [((), self._config.limits.buffered_bytes)],
            "worker_up": self._crew.up,
            "worker_restarts_total": self._crew.restarts,
            "worker_cpu_seconds_total": self._crew.cpu_seconds,
            "worker_resident_memory_bytes": self._crew.memory,
        }
        rng = random.Random()
        self._controller = Controller(
            config,
            pools,
            self._registry,
            parts=wiring,
            reload=self._requests.call,
            listeners=self._listeners,
            clock=time.monotonic,
            overloaded=self._crew.overloaded,
            admin_limit=admin_connections(),
            admin_sockets=setup.sockets.take(admin_name(config.admin.bind)),
            admin_routes=(
                *ExplainApi(
                    lambda: self._runtimes,
                    lambda: Moment(time.monotonic(), rng, self._crew.overloaded(), False),
                    self._past,
                ).routes(),
                *UpgradeApi(lambda caller: self._succession.call(caller)).routes(),
            ),
            config_path=setup.config_path,
            look=part.look,
            workers=lambda: self._crew.told(time.monotonic(), part.connections_of),
        )
        self._succession = Succession(
            setup,
            self._controller,
            self._tasks,
            reloading.lock,
            self._row,
            self._counted,
            self._end,
            self._leave,
        )
        self._known = Known(self._controller.keeping.snapshot, setup.line, time.monotonic)
        self._controller.keeping.on_change = self._known.changed

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """What time brings to servers, and what workers have counted."""
        self._sweep_timer = loop.call_later(SWEEP_S, self._sweep, loop)
        now = time.monotonic()
        self._wiring.sweep(now)
        self._part.sweep(now)

    def _offer_admin(self) -> None:
        """The supervisor keeps the sockets of the admin address for the next controller."""
        for name, (fds, file, _) in self._controller.admin.offered.items():
            at = None if file is None else [str(file.path), file.device, file.inode]
            self._setup.line.say("admin", json.dumps({"name": name, "file": at}).encode(), fds)

    # --- what is asked ----------------------------------------------------------------------------------------------

    def _listeners(self) -> list[ListenerStatus]:
        """Open ones, by name."""
        found: dict[str, ListenerStatus] = {}
        connections = dict(self._part.client_connections())
        modes = {item.name: item.mode for item in self._config.listeners}
        for door in self._doors.open.values():
            known = found.get(door.listener)
            bind = (*(known.bind if known is not None else ()), *door.addresses)
            n_clients = connections.get((door.listener,), 0)
            found[door.listener] = ListenerStatus(door.listener, modes.get(door.listener, "http"), bind, int(n_clients))
        return list(found.values())

    # --- the supervisor's words -------------------------------------------------------------------------------------

    def _told_to_reload(self, _said: Said) -> None:
        if self._serves:
            self._requests.signal()
        else:  # it came during the start, which may have read the file before it was changed
            self._wants_reload = True

    def _told_to_stop(self, _said: Said) -> None:
        self._controller.draining()
        self._succession.stopping()

    def _orphaned(self) -> None:
        self._is_orphan = True
        self._end.set()

    def _leave(self, heir: Heir) -> None:
        """Another lbproxy serves: its controller has the admin address, and soon checks alone."""
        self._is_leaving = True
        self._requests.hand_over(heir.pid)
        self._tasks.spawn(self._controller.handed_over(heir.taken), "the admin address of who serves now")
        asyncio.get_running_loop().call_later(self._config.shutdown.grace, self._controller.rest)

    def _counted(self) -> Row:
        """The PROCESS counters of all that were here."""
        self._part.count()
        try:
            return self._part.process_total()
        except Folding:  # a process has just died: without what it counted
            return self._row

    def _notify(self, data: bytes) -> None:
        self._setup.line.say("notify", data)  # the supervisor is who the service manager listens to

    def _running(self, _said: Said) -> None:
        self._controller.running()

    def _heard(self, number: int, message: object) -> None:
        """What a worker tells that is not about configs."""
        if isinstance(message, Found):
            self._past.heard(number, message)
            return
        self._part.heard(message, self._controller)

    # --- another config ---------------------------------------------------------------------------------------------

    async def _apply(self, old: Config, new: Config) -> None:
        """See Applying: all of it, in all processes, or nothing."""
        wiring, controller = self._wiring, self._controller
        if self._is_leaving:
            raise CannotApply("lbproxy is stopping")
        wiring.is_drafting = True
        fresh: dict[str, Door] = {}
        admin = None
        try:
            draft = await asyncio.to_thread(wiring.draft, new)
            wanted = binds_of(new)
            ports = self._doors.ports()
            for name, item in wanted.items():
                if name not in self._doors.open:
                    is_beside = item.address.port in ports
                    fresh[name] = open_door(item, self._doors.n_workers, is_beside=is_beside)
            for name, door in fresh.items():
                told, fds = flat({name: door})
                self._setup.line.say("sockets", json.dumps(told).encode(), fds)
            try:
                admin = await controller.admin.prepare(new.admin)
            except OSError as error:
                assert new.admin.bind is not None
                raise CannotApply(bind_message("admin.bind", new.admin.bind, error)) from None
            generation = await self._crew.prepare(new, tuple(fresh))
        except BaseException as error:
            wiring.is_drafting = False
            await controller.admin.abandon(admin)
            for door in fresh.values():
                door.close()
            self._setup.line.say("unwanted")
            if isinstance(error, BindError):
                raise CannotApply(str(error)) from None
            raise
        try:
            wiring.adopt(draft, time.monotonic())
            pools = {name: runtime.pool for name, runtime in wiring.pools.items()}
            controller.adopt(new, pools, admin)
        finally:
            wiring.is_drafting = False
        gone = [name for name in self._doors.open if name not in wanted]
        self._change_doors(fresh, gone)
        self._runtimes = list(draft.listeners.values())
        self._config = new
        operator_log.change(new.log.level, new.log.format)
        self._adopted.clear()
        self._setup.line.say_all("config", (generation, new, gone))
        await self._crew.commit(new, generation)
        with contextlib.suppress(TimeoutError):  # it closes what is gone, or nobody would be refused there
            async with asyncio.timeout(CONFIRM_S):
                await self._adopted.wait()
        if admin is not None:
            self._offer_admin()
        self._requests.watch(new.watch)
        await controller.files_read()

    def _change_doors(self, fresh: dict[str, Door], gone: list[str]) -> None:
        for name, door in fresh.items():
            for address in door.addresses:
                log.info("listening name=%s address=%s", door.listener, address)
            door.close(keeps_file=True)  # the supervisor has them
            self._doors.open[name] = door
        for name in gone:
            door = self._doors.open.pop(name)
            for address in door.addresses:
                log.info("no longer listening name=%s address=%s", door.listener, address)

    # --- defects ----------------------------------------------------------------------------------------------------

    def _crashed(self, error: BaseException) -> None:
        self._row[PROCESS.column("internal_errors_total")] += 1

    def _internal_error(self, where: str, error: BaseException) -> None:
        self._crashed(error)
        log.error("internal error in %s: %r", where, error, exc_info=error)
