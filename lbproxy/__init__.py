"""lbproxy: a TCP/HTTP reverse-proxy load balancer for model servers."""

__version__ = "0.1.0"
