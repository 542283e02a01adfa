"""For tests of programs behind lbproxy: a real lbproxy on free ports, and servers that misbehave to order.

With pytest there are the fixtures `lbproxy` and `faulty_server` (docs/testing.md); without it `Proxy` and
`FaultyServer` do the same as context managers.
"""

from lbproxy.testing.faulty_server import Answer, FaultyServer, Request
from lbproxy.testing.proxy import Proxy, StartError

__all__ = ["Answer", "FaultyServer", "Proxy", "Request", "StartError"]
