"""What the pages and examples show is what the installed lbproxy takes: every config goes through `lbproxy check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lbproxy.api_keys import hash_of
from tests.support import nursery
from tests.support.build import ROOT
from tests.support.certificates import Authority
from tests.support.pages import PAGES, blocks, name, place_certificates


def check(text: str, folder: Path) -> tuple[int, str, str]:
    """`lbproxy check` of this file, with certificates that it names, and a value for variables without default.

    Returns the exit status and what it says on standard output and error. How the command starts is not the question.
    """
    (folder / "lb.yaml").write_text(place_certificates(text, Authority(folder)))
    values = {
        name: f"{n}" if name != "STICKY_SECRET" else "0123456789abcdef"
        for n, name in enumerate(re.findall(r"(?<!\$)\$\{(\w+)\}", text), start=1)
    }
    if "python:" in text:
        values["PYTHONPATH"] = str(folder)  # where a strategy `module:Class` is found
    done = nursery.run(["check", "lb.yaml"], folder, values)
    return done.returncode, done.stdout, done.stderr


def on_pages(info: str) -> list[tuple[str, str]]:
    """Place and text of every block of this kind."""
    return [
        (f"{name(page)}:{block.line}", block.text)
        for page in PAGES
        for block in blocks(page.read_text())
        if block.info == info
    ]


def in_files() -> list[tuple[str, str]]:
    """Path and text of every lbproxy config among the examples and in what deploys it."""
    files = [*sorted((ROOT / "config").iterdir()), *sorted((ROOT / "deploy/compose").iterdir())]
    found = [(name(file), file.read_text()) for file in files]
    for file in sorted((ROOT / "deploy/kubernetes").iterdir()):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "ConfigMap":
                found += [(f"{name(file)} {key}", text) for key, text in document["data"].items()]
    return found


def wrapped(fragment: str) -> str:
    """A whole config with the fragment: the pools that it names, or what it says of one."""
    head = "listeners: [{bind: '127.0.0.1:0', pool: predict}]\n"
    if fragment.startswith("pools:"):
        return head + fragment
    return f"{head}pools:\n  predict:\n    servers: [127.0.0.1:5001]\n" + re.sub("(?m)^", "    ", fragment).rstrip(" ")


ANY_STRATEGY = """class {}:
    def __init__(self, options, rng):
        pass

    def rebuild(self, servers):
        pass

    def pick(self, eligible, ctx, now):
        return eligible[0]
"""
KUBECONFIG = """\
contexts: [{name: production, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "https://k8s.internal:6443"}}]
"""
WHOLE = [*on_pages("yaml"), *in_files()]
FRAGMENTS = [(place, wrapped(text)) for place, text in on_pages("yaml fragment")]


@pytest.mark.parametrize(("place", "text"), [*WHOLE, *FRAGMENTS], ids=[place for place, _ in [*WHOLE, *FRAGMENTS]])
def test_a_config_that_is_shown_passes_the_check(place: str, text: str, tmp_path: Path) -> None:
    for module, class_name in re.findall(r"""python: "?(\w+)(?:\.py)?:(\w+)""", text):
        shown = [source for _, source in on_pages("python") if f"class {class_name}:" in source]
        (tmp_path / f"{module}.py").write_text(shown[0] if shown else ANY_STRATEGY.format(class_name))
    for path in re.findall(r"servers_file: (\S+)", text):
        (tmp_path / Path(path).name).write_text("[10.0.0.1:5001]\n")
    if re.search(r"(?m)^api_keys:", text):
        names = [*re.findall(r"api_key: ([\w-]+)", text), "team-a"]
        (tmp_path / "keys.txt").write_text("".join(f"{name} {hash_of(name)}\n" for name in dict.fromkeys(names)))
    for path in re.findall(r"kubeconfig: (/\S+)", text):
        (tmp_path / Path(path).name).write_text(KUBECONFIG)
    text = text.replace("/var/lib/lbproxy/", f"{tmp_path}/")  # which has to be there
    status, out, err = check(text, tmp_path)
    assert (status, err) == (0, ""), place
    assert re.fullmatch(r"lb\.yaml: ok \(.* servers?\)\n", out)


def test_none_is_missed() -> None:
    places = {place.partition(":")[0].partition(" ")[0] for place, _ in WHOLE}
    assert {"README.md", "docs/tls.md", "config/every-key.yaml", "deploy/compose/lbproxy.yaml"} <= places
    assert "deploy/kubernetes/sidecar.yaml" in places
    assert FRAGMENTS
