from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.control.discovery.kubernetes.access import Access, NoAccess
from lbproxy.control.discovery.kubernetes.client import Cut, Reply
from lbproxy.control.discovery.kubernetes.source import KubernetesSource
from lbproxy.control.discovery.kubernetes.watching import Ask
from lbproxy.control.discovery.source import Answer, Trouble
from tests.support.kubernetes_objects import bookmark, endpoint, endpoint_slice, event, node, page, status

NODE = "/api/v1/nodes/node-1"
PATH = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
ONE = endpoint_slice("s", endpoint("10.0.0.1"), endpoint("10.0.0.2", terminating=True))


class Said:
    """An answer: chunks, and what ends them."""

    def __init__(
        self, *chunks: bytes, code: int = 200, retry_after_s: float = 0.0, end: Exception | None = None
    ) -> None:
        self.status = code
        self.retry_after_s = retry_after_s
        self._chunks = chunks
        self._end = end

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._chunks:
            yield chunk
        if self._end is not None:
            raise self._end


class Script:
    """An API server that says one thing after the other, and then nothing for ever. It keeps what it was asked."""

    def __init__(self, *says: Said | OSError, token: str = "t", **wanted: object) -> None:
        self._says = list(says)
        self.now = 0.0
        self.tokens: list[str | OSError] = [token]  # as they are read; the last one stays
        self.asked: list[tuple[str, str, bool]] = []
        self.waits: list[float] = []
        self.environ = {"NODE_NAME": "node-1"}
        self.heard: list[str] = []
        self.far: list[str] = []  # by answer, who is in another zone
        self.is_closed = False
        self.over = asyncio.Event()
        self.source = KubernetesSource(
            Kubernetes.model_validate({"service": "predict", **wanted}),
            clock=lambda: self.now,
            rng=lambda: 1.0,
            read=self._read,
            make_api=lambda: self,
            in_thread=self._in_thread,
            pause=self._pause,
            environ=self.environ,
        )

    def _read(self) -> Access:
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, OSError):
            raise token
        return Access("https://k8s", "of-the-pod", token)

    async def _in_thread(self, function: Callable[[], Access]) -> Access:
        return function()

    async def _pause(self, woken: asyncio.Event, wait_s: float) -> None:
        self.waits.append(wait_s)

    @asynccontextmanager
    async def get(self, access: Access, path: str, ask: Ask) -> AsyncIterator[Reply]:
        self.asked.append((path, access.token, ask.watches))
        if not self._says:
            self.over.set()
            await asyncio.Event().wait()
        said = self._says.pop(0)
        if isinstance(said, OSError):
            raise said
        yield said

    async def close(self) -> None:
        self.is_closed = True

    def _emit(self, answer: Answer) -> None:
        if isinstance(answer, Trouble):
            self.heard.append(answer.why)
        else:
            self.heard.append(" ".join(found.address.host for found in answer))
            self.far.append(" ".join(found.address.host for found in answer if found.far))

    async def run(self) -> Script:
        task = asyncio.get_running_loop().create_task(self.source.watch(self._emit))
        async with asyncio.timeout(10.0):
            await self.over.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert self.is_closed
        return self


async def test_a_list_and_a_watch_say_who_the_servers_are() -> None:
    added = event("ADDED", endpoint_slice("t", endpoint("10.0.0.3"), version="11")) + b"\n"
    script = await Script(Said(page("10", ONE)), Said(added[:9], added[9:] + bookmark("12") + b"\n")).run()
    assert script.heard == ["10.0.0.1", "10.0.0.1", "10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3"]
    assert [watches for _, _, watches in script.asked] == [False, True, True]
    assert script.source.going == {"10.0.0.2:8080"}
    assert script.waits == [1.0], "between the beginnings of two watches"


@pytest.mark.parametrize(("wanted", "namespace"), [("auto", "of-the-pod"), ("models", "models")])
async def test_the_namespace_is_the_pod_s_or_the_config_s(wanted: str, namespace: str) -> None:
    script = await Script(namespace=wanted).run()
    assert [path for path, _, _ in script.asked] == [PATH.format(namespace)]


async def test_a_watch_that_is_cut_goes_on() -> None:
    script = await Script(Said(page("10", ONE)), Said(end=Cut("lost")), Said()).run()
    assert script.heard == ["10.0.0.1"] * 3, "nothing is wrong"
    assert [watches for _, _, watches in script.asked] == [False, True, True, True]


async def test_half_a_line_is_no_line() -> None:
    half = event("ADDED", endpoint_slice("t", endpoint("10.0.0.3"), version="11"))[:-5]
    script = await Script(Said(page("10", ONE)), Said(half, end=Cut("lost"))).run()
    assert script.heard == ["10.0.0.1"] * 2


@pytest.mark.parametrize(
    "gone", [Said(event("ERROR", status(410, "too old")) + b"\n"), Said(b'{"message": "too old"}', code=410)]
)
async def test_a_version_that_is_gone_is_listed_anew_at_once(gone: Said) -> None:
    other = endpoint_slice("s", endpoint("10.0.0.9"))
    script = await Script(Said(page("10", ONE)), gone, Said(page("20", other))).run()
    assert [watches for _, _, watches in script.asked] == [False, True, False, True]
    assert script.heard[-1] == "10.0.0.9" and set(script.heard) == {"10.0.0.1", "10.0.0.9"} and script.waits == []


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (OSError("cannot reach https://k8s: Connection refused"), "cannot reach https://k8s: Connection refused"),
        (TimeoutError(), "the API server does not answer in time"),
        (Said(b"boom", code=500), "the API server said 500"),
        (Said(b"{"), "the API server's answer is no JSON"),
        (Said(end=Cut("the connection to the API server was lost")), "the connection to the API server was lost"),
    ],
)
async def test_trouble_is_told_and_tried_again(says: Said | OSError, why: str) -> None:
    script = await Script(says, says, Said(page("10", ONE))).run()
    assert script.heard == [why, why, "10.0.0.1"]
    assert script.waits == [2.0, 4.0]


async def test_a_line_of_a_watch_that_is_none_makes_the_list_due() -> None:
    script = await Script(Said(page("10", ONE)), Said(b"nonsense\n"), Said(page("11", ONE))).run()
    assert script.heard == ["10.0.0.1", "10.0.0.1", "the API server's answer is no JSON", "10.0.0.1"]
    assert [watches for _, _, watches in script.asked] == [False, True, False, True]


async def test_the_api_server_says_when_to_come_back() -> None:
    script = await Script(Said(b"{}", code=429, retry_after_s=9.0)).run()
    assert script.waits == [9.0]


async def test_a_token_that_was_replaced_meanwhile_is_tried_at_once() -> None:
    script = Script(Said(b"{}", code=401), Said(page("10", ONE)))
    script.tokens = ["old", "new"]
    await script.run()
    assert [token for _, token, _ in script.asked] == ["old", "new", "new"]
    assert (script.heard, script.waits) == (["10.0.0.1"], [])


async def test_a_token_that_is_refused_is_trouble() -> None:
    refused = Said(b"{}", code=401)
    script = await Script(refused, refused, Said(page("10", ONE))).run()
    assert script.heard == ["the API server said 401: the credentials are not valid, or no longer"] * 2 + ["10.0.0.1"]
    assert script.waits == [2.0, 4.0]


async def test_tokens_that_are_all_refused_do_not_hurry() -> None:
    """However fast they change, a wait comes after the second one."""
    refused = Said(b"{}", code=401)
    script = Script(*[refused] * 4, Said(page("10", ONE)))
    script.tokens = list("aabcddef")
    await script.run()
    assert script.waits == [2.0, 4.0, 8.0] and script.heard[-1] == "10.0.0.1"


async def test_an_access_that_cannot_be_read_is_trouble() -> None:
    for error, why in (
        (NoAccess("config: there is no current-context"), "config: there is no current-context"),
        (FileNotFoundError(2, "No such file or directory", "/t"), "/t: No such file or directory"),
    ):
        script = Script(Said(page("10", ONE)))
        script.tokens = [error, "t"]
        await script.run()
        assert (script.heard, script.waits) == ([why, "10.0.0.1"], [2.0])


async def test_a_service_that_is_not_there_is_told() -> None:
    script = await Script(Said(page("10"))).run()
    assert script.source.lacking == "there is no EndpointSlice of a service predict" and script.heard == [""]


def test_it_has_words_for_what_happens() -> None:
    source = Script().source
    assert (source.name, source.title, source.kind) == ("kubernetes:predict", "Kubernetes (predict)", "kubernetes")
    assert source.recovered(2) == "Kubernetes (predict) is followed again, with 2 servers"
    assert source.gone() == "Kubernetes (predict) no longer has it"
    assert Script(namespace="models").source.name == "kubernetes:models/predict"


# --- zones ------------------------------------------------------------------------------------------------------------

TWO_ZONES = page("10", endpoint_slice("s", endpoint("10.0.0.1", zone="eu-1a"), endpoint("10.0.0.2", zone="eu-1b")))


async def test_without_the_key_nobody_asks_for_a_node_and_nobody_is_far() -> None:
    script = await Script(Said(TWO_ZONES)).run()
    assert script.far == [""] and NODE not in [path for path, _, _ in script.asked]


async def test_a_zone_that_the_config_names_is_not_asked_for() -> None:
    script = await Script(Said(TWO_ZONES), prefer_zone=True, zone="eu-1b").run()
    assert script.far == ["10.0.0.1"] and NODE not in [path for path, _, _ in script.asked]


async def test_the_node_says_which_zone_this_is_once() -> None:
    said = Said(json.dumps(node("node-1", "eu-1a")).encode())
    script = await Script(said, Said(TWO_ZONES), Said(bookmark("12") + b"\n"), prefer_zone=True).run()
    assert set(script.far) == {"10.0.0.2"} and script.source.lacking == ""
    assert [path for path, _, _ in script.asked].count(NODE) == 1


async def test_until_the_zone_is_known_all_are_used_and_the_status_says_why() -> None:
    refused = Said(b"{}", code=403)
    script = await Script(refused, Said(TWO_ZONES), OSError("cannot reach it"), prefer_zone=True).run()
    assert script.far[-1] == "" and script.heard[-1] == "10.0.0.1 10.0.0.2"
    assert script.source.lacking == "which zone is this? the API server said 403: grant `get` on nodes; set `zone`"
    said = Said(json.dumps(node("node-1", "eu-1b")).encode())
    script = await Script(refused, Said(TWO_ZONES), said, Said(bookmark("12") + b"\n"), prefer_zone=True).run()
    assert script.far[0] == "" and script.far[-1] == "10.0.0.1" and script.source.lacking == ""


async def test_a_pod_that_does_not_know_its_node_asks_nobody() -> None:
    script = Script(Said(TWO_ZONES), prefer_zone=True)
    script.source._node = ""
    await script.run()
    assert script.far == [""] and "$NODE_NAME does not say on which node this is" in script.source.lacking
