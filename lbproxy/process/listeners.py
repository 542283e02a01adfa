"""The open listeners: one for each address that is bound, and those that are no more but still have clients.

A listener of the config may bind several addresses, which share its settings. What is the same thing before and after a
reload goes by the address (process/plan.py), so that a socket, and who waits in its queue, outlives any change of what
is decided about it. Everything new is bound before anything old goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from lbproxy.address import Address
from lbproxy.config.listener_model import Listener as ListenerConfig
from lbproxy.config.model import Config
from lbproxy.control.status import ListenerStatus
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.listener import Listener
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.process.upgrade.handing import Offered
from lbproxy.process.upgrade.sockets import Given, Inherited

log = logging.getLogger("lbproxy")


NOTHING: Final = Inherited()


@dataclass(frozen=True, slots=True)
class Bind:
    """One address of a listener."""

    address: Address
    listener: ListenerConfig


def binds_of(config: Config) -> dict[str, Bind]:
    """Addresses by what people are told of them. Where the kernel chooses the port only the name tells them apart."""
    found: dict[str, Bind] = {}
    for listener in config.listeners:
        for address in listener.bind:
            is_chosen = not address.is_unix and address.port == 0
            found[f"{address} ({listener.name})" if is_chosen else str(address)] = Bind(address, listener)
    return found


class Listeners:
    """See the module. announces: tell the log of addresses that come and go."""

    def __init__(self, services: Services, gate: ConnectionGate, *, announces: bool = True) -> None:
        self._announces = announces
        self._services = services
        self._gate = gate
        self._open: dict[str, Listener] = {}
        self._leaving: list[Listener] = []
        self._others: set[str] = set()  # names of those whose sockets a service manager has, too
        self._names: set[str] = set()  # that had counters at the last sweep, or since

    def __iter__(self) -> Iterator[Listener]:
        """The open ones."""
        return iter(self._open.values())

    def named(self, name: str) -> Listener | None:
        """One with this name, rather an open one than one that is about to go."""
        return next((listener for listener in (*self, *self._leaving) if listener.runtime.name == name), None)

    # --- a start ----------------------------------------------------------------------------------------------------

    def bind(
        self, wanted: Mapping[str, Bind], runtimes: Mapping[str, ListenerRuntime], inherited: Inherited | None = None
    ) -> None:
        """Bind every address, or take the sockets that were inherited for it. Raises BindError with a sentence; nothing
        stays open then."""
        self._open = self.prepare(wanted, runtimes, inherited or NOTHING)

    def start(self) -> None:
        """Accept."""
        for listener in self:
            listener.start()
            self._announce(listener)

    def _announce(self, listener: Listener) -> None:
        if self._announces:
            for address in listener.addresses:
                log.info("listening name=%s address=%s", listener.runtime.name, address)

    def forget_heads(self) -> None:
        """What came of a head before may not come of it now: nothing that was remembered is used."""
        for listener in self:
            listener.renew(listener.runtime.again())

    # --- a reload ---------------------------------------------------------------------------------------------------

    def prepare(
        self, wanted: Mapping[str, Bind], runtimes: Mapping[str, ListenerRuntime], inherited: Inherited = NOTHING
    ) -> dict[str, Listener]:
        """Bind what is not bound yet. Raises BindError; nothing of it stays open then. runtimes: by name.

        An address that overlaps with one that goes, such as 0.0.0.0:80 with 127.0.0.1:80, is bound beside it. What was
        inherited stays open where it comes from, its file included.
        """
        fresh: dict[str, Listener] = {}
        borrowed: list[Listener] = []
        try:
            for name, item in wanted.items():
                if name not in self._open:
                    listener = fresh[name] = Listener(self._services, runtimes[item.listener.name], self._gate)
                    passed = inherited.take(name)
                    self._others.discard(name)
                    if passed is None:
                        self._bind(listener, item, self._overlapping(item.address, wanted))
                    else:
                        borrowed.append(listener)
                        if not passed.is_ours:
                            self._others.add(name)
                        sockets = list(passed.sockets)
                        listener.inherit(sockets, passed.file, item.listener.mode_bits, is_ours=passed.is_ours)
        except BaseException:
            for listener in borrowed:
                listener.hand_over()
            self.abandon(fresh.values())
            raise
        return fresh

    def _overlapping(self, address: Address, wanted: Mapping[str, Bind]) -> list[Listener]:
        """Open listeners on this port that are about to go."""
        if address.is_unix or address.port == 0:
            return []
        return [
            listener for name, listener in self._open.items() if name not in wanted and address.port in listener.ports
        ]

    def _bind(self, listener: Listener, item: Bind, beside: list[Listener]) -> None:
        for other in beside:
            other.share_port(True)
        try:
            listener.bind((item.address,), item.listener.mode_bits, shares_port=bool(beside))
        finally:
            for other in (*beside, listener):
                other.share_port(False)

    def abandon(self, fresh: Iterable[Listener]) -> None:
        """What `prepare` gave is not wanted after all."""
        for listener in fresh:
            self._gate.remove(listener)
            listener.close_sockets()

    def adopt(
        self,
        wanted: Mapping[str, Bind],
        runtimes: Mapping[str, ListenerRuntime],
        fresh: Mapping[str, Listener],
        now: float,
    ) -> None:
        """Put runtimes in place, accept at what is new, and let go of what is not wanted any more."""
        self._names |= {listener.runtime.name for listener in self}
        before, self._open = self._open, {}
        for name, item in wanted.items():
            listener = before.pop(name, None)
            runtime = runtimes[item.listener.name]
            if listener is None:
                listener = fresh[name]
                listener.start()
                self._announce(listener)
            elif listener.runtime.mode != runtime.mode:  # who is connected goes on in the old one
                heir = Listener(self._services, runtime, self._gate)
                self._leave(listener, now, heir)
                listener = heir
                listener.start()
            else:
                listener.renew(runtime)
            listener.set_mode(item.listener.mode_bits)
            self._open[name] = listener
        for listener in before.values():
            for address in listener.addresses if self._announces else ():
                log.info("no longer listening name=%s address=%s", listener.runtime.name, address)
            self._leave(listener, now)

    def _leave(self, listener: Listener, now: float, heir: Listener | None = None) -> None:
        listener.leave(now, heir)
        self._leaving.append(listener)

    def sweep(self, now: float) -> list[str]:
        """Look after those that go. Returns the names that no listener has any more."""
        self._leaving = [listener for listener in self._leaving if not listener.sweep_leaving(now)]
        known, self._names = self._names, {listener.runtime.name for listener in (*self, *self._leaving)}
        return sorted(known - self._names)

    # --- the end ----------------------------------------------------------------------------------------------------

    @property
    def has_queued(self) -> bool:
        """Does somebody wait to be accepted?"""
        return any(listener.has_queued for listener in self)

    @property
    def filenos(self) -> list[int]:
        """The descriptors of all open sockets."""
        return [fileno for listener in self for fileno in listener.filenos()]

    def close(self, *, is_last: bool = True) -> None:
        """Accept nobody any more. is_last: no other lbproxy may have the sockets, and go on with them."""
        for listener in self:
            listener.close(is_last=is_last)

    def offered(self) -> Offered:
        """The sockets, for another process: descriptors by name, and the files of unix sockets."""
        return {
            name: Given(listener.filenos(), listener.socket_file, name not in self._others)
            for name, listener in self._open.items()
        }

    def hand_over(self, taken: Set[str], now: float) -> None:
        """Another process accepts at the names in `taken`; those that it does not know end as after a reload."""
        for name, listener in list(self._open.items()):
            if name in taken:
                listener.hand_over()
            else:
                del self._open[name]
                self._leave(listener, now)

    def close_sockets(self) -> None:
        """The start has failed."""
        for listener in self:
            listener.close_sockets()

    # --- what is told -----------------------------------------------------------------------------------------------

    def connections(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_client_connections."""
        return self._sums(lambda listener: listener.n_connections)

    def streams(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_h2_streams."""
        return self._sums(lambda listener: listener.n_streams)

    def _sums(self, count: Callable[[Listener], int]) -> Iterator[tuple[tuple[str, ...], float]]:
        """By name: several addresses, and those that are about to go, may have the same."""
        counts: dict[str, int] = {}
        for listener in (*self, *self._leaving):
            counts[listener.runtime.name] = counts.get(listener.runtime.name, 0) + count(listener)
        for name, number in counts.items():
            yield (name,), number

    def status(self) -> list[ListenerStatus]:
        """Open ones, by name."""
        counts = {labels[0]: int(count) for labels, count in self.connections()}
        found: dict[str, ListenerStatus] = {}
        for listener in self:
            name = listener.runtime.name
            known = found.get(name)
            bind = (*(known.bind if known is not None else ()), *listener.addresses)
            found[name] = ListenerStatus(name, listener.runtime.mode, bind, counts[name])
        return list(found.values())
