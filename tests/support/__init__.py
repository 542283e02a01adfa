"""Both ends of the proxy for scenario tests: a scripted server, a raw client, a launcher for the real daemon."""
