"""Servers from a Kubernetes service: its ready endpoints, one server each, followed by a watch.

watching.py decides what to ask and what answers mean, client.py asks, access.py says whom and as who. What fails takes
nothing away: the last good answer stays, whatever the API server does.

A failed connect is no reason to ask sooner while a watch is open, as news come by themselves; it ends the wait between
two tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from lbproxy.config.kubernetes_model import AUTO, Kubernetes
from lbproxy.control.discovery.kubernetes.access import Access, Read, reader
from lbproxy.control.discovery.kubernetes.client import (
    HEAD_S,
    MAX_ERROR_BYTES,
    MAX_PAGE_BYTES,
    Api,
    Cut,
    HttpApi,
    Lines,
    MakeApi,
    Reply,
    whole,
)
from lbproxy.control.discovery.kubernetes.slices import Malformed
from lbproxy.control.discovery.kubernetes.watching import Ask, Refused, Watching, refusal
from lbproxy.control.discovery.kubernetes.zone import NODE_NAME, node_path, zone_of
from lbproxy.control.discovery.source import Emit, Pause, Source, Trouble, pause

log = logging.getLogger("lbproxy.control.discovery")

OK = 200
UNAUTHORIZED = 401
MAX_NODE_BYTES = 2 << 20  # etcd keeps objects of 1.5 MiB


class KubernetesSource(Source):
    """wanted: as the config has it. base_dir: where a relative `kubeconfig` begins. The rest is for tests."""

    kind = values_from = "kubernetes"
    rank = 3

    def __init__(
        self,
        wanted: Kubernetes,
        base_dir: str = ".",
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        *,
        read: Read | None = None,
        make_api: MakeApi = HttpApi,
        in_thread: Callable[..., Any] = asyncio.to_thread,
        pause: Pause = pause,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        where = wanted.service if wanted.namespace == AUTO else f"{wanted.namespace}/{wanted.service}"
        super().__init__(f"kubernetes:{where}", f"Kubernetes ({where})", pause)
        self._wanted = wanted
        kubeconfig = None if wanted.kubeconfig is None else str(Path(base_dir) / wanted.kubeconfig)
        self._read = read if read is not None else reader(kubeconfig, wanted.context)
        self._make_api = make_api
        self._in_thread = in_thread
        self._state = Watching(wanted.service, wanted.port, wanted.family, wanted.interval, clock, rng)
        self._is_second_try = False  # with another token, at once, after the first was refused
        self._node = environ.get(NODE_NAME, "")
        self._seeks_zone = wanted.prefer_zone and wanted.zone == AUTO
        self._zone_trouble = ""
        if wanted.prefer_zone and wanted.zone != AUTO:
            self._state.prefer(wanted.zone)

    async def watch(self, emit: Emit) -> None:
        api = self._make_api()
        try:
            while True:
                await self._ask(api, emit)
                if self._state.wait_s:
                    await self._pause(self.woken, self._state.wait_s)
        finally:
            await api.close()

    async def _ask(self, api: Api, emit: Emit) -> None:
        """One request, and all of its answer."""
        state = self._state
        self.woken.clear()
        access: Access | None = None
        try:
            access = await self._in_thread(self._read)
            if self._seeks_zone:
                await self._learn_zone(api, access)
            namespace = access.namespace if self._wanted.namespace == AUTO else self._wanted.namespace
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            await self._converse(api, access, path, state.ask(), emit)
        except Refused as refused:
            if refused.status == UNAUTHORIZED and access is not None and not self._is_second_try:
                self._is_second_try = await self._has_another(access.token)  # written since this one was read
                if self._is_second_try:
                    return
            if state.failed(refused.status, refused.retry_after_s):
                emit(Trouble(refused.why))
        except Malformed as malformed:
            state.misunderstood()
            emit(Trouble(str(malformed)))
        except OSError as failure:  # also a time-out, and what is wrong with the files
            state.failed(0)
            emit(Trouble(_words(failure)))

    async def _learn_zone(self, api: Api, access: Access) -> None:
        """Of the node on which this runs. Until it is known endpoints of all zones are used; each request to the API
        server is a chance to learn it."""
        try:
            path = node_path(self._node)
            async with asyncio.timeout(HEAD_S), api.get(access, path, Ask(())) as reply:
                zone = zone_of(reply.status, await whole(reply, MAX_NODE_BYTES), self._node)
        except (OSError, Malformed) as error:
            words = _words(error) if isinstance(error, OSError) else str(error)
            self._zone_trouble = f"which zone is this? {words}; set `zone`"
            return
        self._seeks_zone, self._zone_trouble = False, ""
        self._state.prefer(zone)
        log.info("%s: endpoints of the zone %s come first", self.title, zone)

    async def _converse(self, api: Api, access: Access, path: str, ask: Ask, emit: Emit) -> None:
        """Raises Refused, Malformed and OSError."""
        async with asyncio.timeout(HEAD_S) as head, api.get(access, path, ask) as reply:
            head.reschedule(None)
            if reply.status != OK:
                refused = refusal(reply.status, await whole(reply, MAX_ERROR_BYTES))
                refused.retry_after_s = reply.retry_after_s
                raise refused
            if ask.watches:
                await self._follow(reply, emit)
            elif self._state.page(await whole(reply, MAX_PAGE_BYTES)):
                self._tell(emit)

    async def _follow(self, reply: Reply, emit: Emit) -> None:
        """A watch, to its end. A connection that is cut is an end like any other."""
        self._state.began()
        self._tell(emit)
        lines = Lines()
        with contextlib.suppress(Cut):  # nothing is lost: the next watch begins where this one was
            async with aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    for line in lines.feed(chunk):
                        self._state.line(line)
                        self._tell(emit)
        self._state.ended()

    async def _has_another(self, token: str) -> bool:
        try:
            access: Access = await self._in_thread(self._read)
        except OSError:
            return False
        return access.token != token

    def _tell(self, emit: Emit) -> None:
        self._is_second_try = False
        view = self._state.view
        self.lacking, self.going = "; ".join(filter(None, (view.lacking, self._zone_trouble))), view.going
        emit(view.answer)

    def recovered(self, n_servers: int) -> str:
        return f"{self.title} is followed again, with {n_servers} servers"

    def gone(self) -> str:
        return f"{self.title} no longer has it"


def _words(failure: OSError) -> str:
    if isinstance(failure, TimeoutError):
        return "the API server does not answer in time"
    return f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure)
