"""Pools in virtual time: what balancing comes to, without a socket, a clock or a second process."""
