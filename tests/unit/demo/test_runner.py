"""What the demo decides before it starts anything. The running demo: tests/scenarios/demo/test_demo.py."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import cast

import pytest

from lbproxy.address import Address
from lbproxy.config import loader
from lbproxy.demo import runner
from lbproxy.demo.children import Child


def test_a_range_of_ports_is_three_addresses() -> None:
    assert [str(address) for address in runner.server_addresses("127.0.0.2:5001-5003")] == [
        "127.0.0.2:5001",
        "127.0.0.2:5002",
        "127.0.0.2:5003",
    ]
    assert runner.server_addresses("[::1]:7-9")[2] == Address("::1", 9)
    assert runner.server_addresses(":7-9")[0] == Address("127.0.0.1", 7)


def test_port_0_asks_for_three_free_ones() -> None:
    assert runner.server_addresses("127.0.0.1:0") == [Address("127.0.0.1", 0)] * 3


@pytest.mark.parametrize(
    "text", ["5001", "127.0.0.1:5001", "127.0.0.1:5001-5002", "127.0.0.1:0-2", "a:b-c", "a:1-70000"]
)
def test_other_ports_are_refused_with_the_option_s_name(text: str) -> None:
    with pytest.raises(runner.DemoError, match=f"--servers {text}: "):
        runner.server_addresses(text)


def test_a_unix_socket_is_no_address_for_the_demo() -> None:
    with pytest.raises(runner.DemoError, match=r"--admin unix:/x: the demo wants host:port"):
        runner.listen(Address("", 0, "/x"), "--admin")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.find_missing(["os", "no_such_package"]) == ["no_such_package"]
    monkeypatch.setattr(runner, "missing_packages", lambda: ["flask", "gunicorn"])
    assert runner.run(runner.Plan()) == 1
    assert capsys.readouterr().err == "the demo needs flask and gunicorn: pip install 'lbproxy[demo]'\n"


def test_the_page_has_commands_to_copy() -> None:
    server = Child("predict server 127.0.0.1:1", cast("Popen[bytes]", SimpleNamespace(pid=41)))
    page = runner.what_to_try(Address("127.0.0.1", 5000), Address("127.0.0.1", 8404), [server], pid=40)
    assert "lbproxy (pid 40) listens on 127.0.0.1:5000 and balances" in page
    assert "  predict server 127.0.0.1:1 (pid 41)" in page
    assert f"  {runner.fetch_command('http://127.0.0.1:5000/predict', runner.FLOWERS)}\n" in page
    assert f"  {runner.own_command()} status --admin 127.0.0.1:8404\n" in page
    assert "  kill -9 41 " in page


def test_the_bundled_config_takes_the_addresses_that_the_runner_sets() -> None:
    environ = runner.proxy_environ(
        {"HOME": "/"}, [Address("127.0.0.1", port) for port in (1, 2, 3)], Address("127.0.0.1", 4), Address("::1", 5)
    )
    loaded = loader.load_file(runner.BUNDLED_CONFIG, environ)
    config = loaded.config
    assert loaded.warnings == ()
    assert [str(server.address) for server in config.pools["predict"].servers] == [f"127.0.0.1:{n}" for n in (1, 2, 3)]
    assert (config.listeners[0].bind[0].port, config.admin.bind) == (4, Address("::1", 5))


def test_the_page_says_the_address_that_is_bound() -> None:
    server = Child("predict server 127.0.0.1:1", cast("Popen[bytes]", SimpleNamespace(pid=41)))
    page = runner.what_to_try(Address("0.0.0.0", 5000), Address("::", 8404), [server], pid=40)
    assert "listens on 0.0.0.0:5000, that is on every address of this machine, here 127.0.0.1:5000, and" in page
    assert "http://127.0.0.1:5000/predict" in page
    assert "http://[::1]:8404/metrics" in page


def test_commands_are_such_as_the_shell_has() -> None:
    """Without lbproxy on the PATH, or with another one there, and without curl."""
    own = str(Path(sys.executable).with_name("lbproxy"))
    assert runner.own_command(lambda _: own) == "lbproxy"
    for found in (None, "/usr/bin/lbproxy"):
        assert runner.own_command(lambda _, found=found: found) in (  # type: ignore[misc]
            shlex.quote(own),
            f"{shlex.quote(sys.executable)} -m lbproxy",
        )
    assert runner.fetch_command("http://a/", "{}", lambda _: "/usr/bin/curl") == (
        "curl http://a/ -H 'Content-Type: application/json' -d '{}'"
    )
    words = shlex.split(runner.fetch_command("http://a/", '{"x": 1}', lambda _: None))
    assert words[:2] == [sys.executable, "-c"]
    compile(words[2], "page", "exec")
