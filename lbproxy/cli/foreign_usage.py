"""Commands and options that people know from other programs, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _words(table: Mapping[str, str]) -> dict[str, str]:
    """`{"a b": "x"}` is `{"a": "x", "b": "x"}`."""
    return {word: ours for words, ours in table.items() for word in words.split()}


COMMANDS: Final = _words(
    {
        "start serve server up daemon proxy": "did you mean run?",
        "stop shutdown quit kill exit terminate": "Ctrl-C or SIGTERM (kill PID, systemctl stop lbproxy) stops one",
        "restart": "did you mean reload (its config file is read again) or upgrade (another process takes over)?",
        "validate lint verify configtest config": "did you mean check?",
        "list ls ps show stats info servers pools backends": "did you mean status?",
        "events watch monitor logs log tail": "lbproxy top shows what happens while it happens, and stderr keeps it",
        "enable undrain activate resume": "did you mean ready?",
        "disable deactivate pause": "did you mean drain or maint?",
        "version": "lbproxy --version prints it",
        "health ping probe live": "did you mean healthcheck?",
        "init new generate": "lbproxy run --to ADDRESS --print prints a config file",
        "metrics": "they are at /metrics of the admin address",
        "route routes why trace": "did you mean explain?",
        "canary shift traffic": "did you mean split?",
        "delete rm": "did you mean remove?",
    }
)
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("--port", "--listen", "-p", "-l", "--host", "--address", "--frontend"), ("--bind", "--admin")),
    **dict.fromkeys(
        ("--server", "--backend", "--backends", "--upstream", "--upstreams", "--target", "--from", "-b", "-s"),
        ("--to",),
    ),
    **dict.fromkeys(("-f", "--file", "--config-file", "--configfile", "--conf", "-C"), ("--config",)),
    **dict.fromkeys(("--algorithm", "--balance", "--policy", "--lb-policy", "--method"), ("--strategy",)),
    **dict.fromkeys(("-t", "--test", "--check", "--validate", "--check-config"), ("`lbproxy check FILE` does that",)),
    **dict.fromkeys(
        ("-d", "--daemon", "--daemonize", "-D"), ("it stays in the foreground; systemd, Docker or & start it",)
    ),
    **dict.fromkeys(("--health-check", "--healthcheck", "--health-path"), ("--health",)),
    **dict.fromkeys(("--max-inflight", "--maxconn", "--max-conns", "--concurrency"), ("--slots",)),
    **dict.fromkeys(("--url", "--addr", "-a"), ("--admin", "--bind")),
    **dict.fromkeys(("--proto", "--protocol", "--tcp"), ("--mode",)),
    **dict.fromkeys(("--dry", "-n", "--check-only", "--diff"), ("--dry-run",)),
    **dict.fromkeys(("--pidfile", "--pid"), ("--pid-file",)),
    **dict.fromkeys(("--format", "-o", "--output"), ("--json",)),
}
"""Other programs' option -> ours that may be meant, of which the first that the command has is named; or a sentence."""
