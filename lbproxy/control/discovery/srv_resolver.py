"""Questions to DNS that getaddrinfo cannot ask: SRV records, and resolvers of one's own choice.

dnspython asks, over UDP and, where an answer is too long for that, over TCP. /etc/resolv.conf is read for each
question, so a new one counts at once; its search list and `ndots` hold for the SRV name as for any other, unless the
config names the resolvers. /etc/hosts and the rest of nsswitch.conf do not count here.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lbproxy.address import Address
from lbproxy.control.discovery.srv import NoSuchName, Record

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.resolver import Answer

LIBRARY = "dns.asyncresolver"
ONE_S = 1.0  # for an answer of one resolver, before the next is asked
ALL_S = 3.0  # for an answer of any


class DnsPython:
    """servers: resolvers to ask in place of those of /etc/resolv.conf."""

    def __init__(self, servers: Sequence[Address] = ()) -> None:
        self._servers = tuple(servers)

    async def srv(self, name: str) -> list[Record]:
        """The SRV records of a name. Raises OSError."""
        answer = await self._ask(name, "SRV")
        return [
            Record(item.priority, item.weight, item.port, item.target.to_text(omit_final_dot=True).lstrip(".").lower())
            for item in answer
        ]

    async def addresses(self, target: str) -> list[str]:
        """The addresses of a target, IPv4 first. Raises OSError."""
        found: list[str] = []
        problem: OSError | None = None
        for kind in ("A", "AAAA"):
            try:
                found += [item.address for item in await self._ask(f"{target}.", kind)]
            except NoSuchName as error:
                problem = problem or error
            except OSError as failure:
                problem = failure
        if problem is not None and (not found or not isinstance(problem, NoSuchName)):
            raise problem
        return sorted(set(found), key=lambda text: (":" in text, int(ip_address(text))))

    async def _ask(self, name: str, kind: str) -> Answer:
        if LIBRARY not in sys.modules:  # 2 MB and 50 ms that only who has an SRV name needs
            await asyncio.to_thread(importlib.import_module, LIBRARY)
        import dns.exception
        import dns.resolver

        try:
            return await self._resolver().resolve(name, kind, search=not self._servers)
        except dns.resolver.NXDOMAIN:
            raise NoSuchName("there is no such name") from None
        except dns.resolver.NoAnswer:
            raise NoSuchName(f"the name has no {kind} record") from None
        except dns.resolver.LifetimeTimeout:
            raise TimeoutError(f"no answer within {ALL_S:g} s") from None
        except dns.resolver.NoNameservers as refused:
            raise OSError(_words(refused)) from None
        except dns.exception.DNSException as other:
            raise OSError(str(other) or type(other).__name__) from None

    def _resolver(self) -> Resolver:
        from dns.asyncresolver import Resolver
        from dns.nameserver import Do53Nameserver

        made = Resolver(configure=not self._servers)
        if self._servers:
            made.nameservers = [Do53Nameserver(item.host, item.port) for item in self._servers]
        made.timeout, made.lifetime = ONE_S, ALL_S
        return made


def _words(error: Exception) -> str:
    """What the last resolver said: SERVFAIL, REFUSED, ... The library's own text tells every try."""
    tries = getattr(error, "kwargs", {}).get("errors") or ()
    last = tries[-1] if tries else None
    return f"the resolver {last[0]} said {last[3]}" if last is not None and last[3] else "no resolver could answer"
