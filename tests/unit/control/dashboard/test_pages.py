"""The files of the dashboard: what goes out with them, what they may hold, and that none is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from lbproxy.control.dashboard.pages import FOLDER, DashboardFiles

MOST_BYTES = 100 * 1024
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
SCRIPTS = {path.name: path.read_text() for path in FILES if path.suffix == ".js"}
PAGE = (FOLDER / "index.html").read_text()
assert SCRIPTS


@pytest.fixture(scope="module")
def files() -> DashboardFiles:
    return DashboardFiles()


async def ask(files: DashboardFiles, path: str, **headers: str) -> web.Response:
    answer = await files.answer(
        make_mocked_request("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})
    )
    assert isinstance(answer, web.Response)
    return answer


async def test_the_page_and_what_it_needs_are_served(files: DashboardFiles) -> None:
    assert set(files.paths) == {"/", *(f"/dashboard/{path.name}" for path in FILES if path.name != "index.html")}
    page = await ask(files, "/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.body == PAGE.encode()
    script, style, icon = [await ask(files, f"/dashboard/{name}") for name in ("app.js", "app.css", "icon.svg")]
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert icon.headers["Content-Type"] == "image/svg+xml"


async def test_nothing_but_this_address_may_be_used(files: DashboardFiles) -> None:
    for path in files.paths:
        headers = (await ask(files, path)).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert {policy[kind] for kind in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-cache"


async def test_what_the_client_has_is_not_sent_again(files: DashboardFiles) -> None:
    first = await ask(files, "/")
    tag = first.headers["ETag"]
    for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await ask(files, "/", If_None_Match=sent)
        assert (again.status, again.body, again.headers["ETag"]) == (304, None, tag)
        assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]
    assert (await ask(files, "/", If_None_Match='"other"')).status == 200
    assert (await ask(files, "/dashboard/app.js")).headers["ETag"] != tag


async def test_the_tag_is_another_one_for_other_octets(tmp_path: Path) -> None:
    tags = []
    for text in ("one", "two", "one"):
        (tmp_path / "index.html").write_text(text)
        tags.append((await ask(DashboardFiles(tmp_path), "/")).headers["ETag"])
    assert tags[0] == tags[2] != tags[1]


def test_the_files_are_those_that_were_there_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("one")
    (tmp_path / "notes.txt").write_text("not served")
    files = DashboardFiles(tmp_path)
    (tmp_path / "late.js").write_text("1")
    assert files.paths == ("/",)


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < MOST_BYTES


def test_the_page_holds_no_code_and_no_style() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", PAGE) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", PAGE) == []
    for name, text in {**SCRIPTS, "index.html": PAGE, "app.css": (FOLDER / "app.css").read_text()}.items():
        addresses = set(re.findall(r"\w+://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name


def test_texts_never_become_markup() -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    assert [name for name, text in SCRIPTS.items() if re.search(forbidden, text)] == []
    assert re.search(forbidden, "node.innerHTML = why")


def test_every_module_is_there_and_is_fetched_at_once() -> None:
    imported = {name for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    preloaded = set(re.findall(r'rel="modulepreload" href="/dashboard/([\w.]+)"', PAGE))
    assert imported == preloaded == set(SCRIPTS) - {"app.js"}


def test_every_element_that_the_scripts_look_for_is_in_the_page() -> None:
    wanted = {name for text in SCRIPTS.values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}
    ids = re.findall(r'\bid="([\w-]+)"', PAGE)
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))
