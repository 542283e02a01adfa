"""Words of other balancers, and what they are called here.

A value is a key, or where it has a space a sentence. Names are compared without case, and `-` is `_`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final


def _words(table: Mapping[str, str]) -> dict[str, str]:
    """`{"a b": "x"}` is `{"a": "x", "b": "x"}`."""
    return {word: ours for words, ours in table.items() for word in words.split()}


_NO_DEFAULTS: Final = "there is no section of defaults; what holds for all stands at the top level"
_NO_INCLUDE: Final = "a config is one file; YAML anchors repeat parts of it"
_OF_THE_HOST: Final = "remove it; the service manager (systemd, Docker) decides that"

_TOP: Final = _words(
    {
        "frontend frontends listen listener server virtual_host virtual_hosts vhost vhosts entrypoint entrypoints "
        "http tcp stream proxy proxies web gateway": "listeners",
        "backend backends upstream upstreams cluster clusters service services servers targets target_groups farm "
        "farms origins origin nodes load_balancer load_balancers loadbalancer load_balancing": "pools",
        "port address host addr": "listeners[].bind",
        "worker_processes nbproc nbthread threads processes concurrency cpus": "workers",
        "maxconn max_conn max_conns max_connections worker_connections": "limits.connections",
        "stats metrics dashboard api prometheus status management monitoring": "admin",
        "log_level loglevel error_log verbosity debug": "log.level",
        "accesslog access_logs request_log": "access_log",
        "router routers routes rules acl acls location locations server_name": "listeners[].routes",
        "timeout timeouts": "listeners[].timeouts or pools.NAME.timeouts",
        "balance algorithm lb_policy lb_method": "pools.NAME.strategy",
        "health healthcheck health_checks check": "pools.NAME.health_check",
        "ssl certificates certificate certs ssl_certificate": "listeners[].tls",
        "graceful_timeout shutdown_timeout drain_timeout terminate_timeout grace": "shutdown.grace",
        "set_real_ip_from real_ip trusted_ips trusted_proxy": "trusted_proxies",
        "global defaults default settings config common options": _NO_DEFAULTS,
        "events daemon user group pid pidfile pid_file chroot": _OF_THE_HOST,
        "version apiversion kind metadata": "remove it; a config file has no version",
        "include includes import imports": _NO_INCLUDE,
        "rate_limit ratelimit limit_req limit_req_zone throttle throttling": "rate_limits",
        "api_key apikeys apikey key_auth keys": "api_keys",
        "proxy_pass default_backend": "listeners[].pool",
    }
)
_LISTENER: Final = _words(
    {
        "address listen port host addr bind_address listen_address socket endpoint": "bind",
        "backend backends upstream upstreams default_backend use_backend proxy_pass target service cluster "
        "default_pool forward_to destination": "pool",
        "servers server nodes targets": "pools.NAME.servers",
        "ssl https certificate cert key crt ssl_certificate ssl_certificate_key tls_cert certs certificates": (
            "tls.cert"
        ),
        "protocol type proto": "mode",
        "location locations acl acls rules route path paths virtual_hosts vhosts server_name rewrite match": "routes",
        "max_body_size client_max_body_size body_limit max_request_size": "limits.body_bytes",
        "keepalive keepalive_timeout keep_alive idle_timeout keep_alive_timeout": "timeouts.keep_alive",
        "timeout client_timeout timeout_client": "timeouts",
        "timeout_http_request client_header_timeout header_timeout": "timeouts.request_head",
        "client_body_timeout body_timeout read_timeout": "timeouts.request_body",
        "send_timeout write_timeout": "timeouts.write",
        "maxconn max_conn max_conns max_connections": "limits.connections (at the top level)",
        "accept_proxy proxy": "proxy_protocol",
        "balance algorithm strategy lb_policy": "pools.NAME.strategy",
        "health health_check healthcheck": "pools.NAME.health_check",
        "rate_limit rate_limits ratelimit limit_req": "rate_limits (at the top level)",
        "redirect respond return": "routes[].redirect or routes[].respond",
        "headers header": "routes[].headers",
        "access_log log": "access_log (at the top level)",
    }
)
_POOL: Final = _words(
    {
        "balance algorithm method lb_method lb_policy lb_algorithm load_balancing load_balancer loadbalancer balancer "
        "policy scheduler scheduling lb_policy_name load_balancing_policy distribution": "strategy",
        "backend backends upstream upstreams server nodes node targets target hosts members endpoints instances "
        "addresses urls destinations origins workers proxy_pass": "servers",
        "max_conn maxconn max_conns max_connections concurrency slots max_concurrency max_concurrent limit_conn "
        "max_pending_requests parallel": "max_inflight",
        "weight weights weightx": "servers[].weight",
        "check health healthcheck health_checks healthchecks httpchk http_check option active_health_check "
        "active_health_checks probe readiness liveness health_uri health_path": "health_check",
        "timeout proxy_timeout": "timeouts",
        "connect_timeout timeout_connect proxy_connect_timeout dial_timeout": "timeouts.connect",
        "read_timeout proxy_read_timeout timeout_server server_timeout": "timeouts.response_head or timeouts.read",
        "send_timeout write_timeout proxy_send_timeout": "timeouts.write",
        "total_timeout request_timeout response_timeout": "timeouts.total",
        "timeout_queue queue_timeout": "queue.timeout",
        "max_queue maxqueue queue_size queue_length backlog": "queue.size",
        "max_fails": "circuit_breaker.failures",
        "fail_timeout": "circuit_breaker.open",
        "outlier_detection passive_health_check passive_health_checks ejection": "circuit_breaker",
        "retries num_retries max_retries tries attempts proxy_next_upstream_tries": "retry.attempts",
        "retry_on redispatch proxy_next_upstream": "retry.on",
        "keepalive keepalive_connections keep_alives": "keep_alive",
        "idle_timeout keepalive_timeout": "keep_alive.idle_timeout",
        "ssl https tls_verify cert certs ssl_verify": "tls",
        "resolver resolvers dns_interval dns_refresh_rate": "dns",
        "send_proxy send_proxy_v2 proxy": "proxy_protocol",
        "proto http_version proxy_http_version http2 h2": "protocol",
        "sticky_session sticky_sessions stickiness session_affinity affinity cookie stick_table": "sticky",
        "ip_hash hash hash_key hash_policy consistent_hash": "strategy",
        "backup backups backup_servers fallback": "servers[].backup",
        "panic_threshold healthy_panic_threshold min_healthy": "fail_open",
        "rate_limit rate_limits ratelimit limit_req": "rate_limits (at the top level)",
        "frontend frontends listen bind port": "listeners[].bind",
        "routes route rules": "listeners[].routes",
        "mode": "listeners[].mode",
        "preset type framework flavor app_server server_type engine": "kind",
    }
)
_SERVER: Final = _words(
    {
        "host ip url uri addr server target endpoint hostname socket dest destination": "address",
        "port ports": "write it behind the address, `address: host:port`",
        "max_conns max_conn maxconn slots max_connections concurrency": "max_inflight",
        "max_fails": "pools.NAME.circuit_breaker.failures",
        "fail_timeout": "pools.NAME.circuit_breaker.open",
        "check health health_check healthcheck": "pools.NAME.health_check",
        "id label title": "name",
        "disabled down drain draining maintenance maint enabled active": "`weight: 0` takes a server out",
        "tls ssl": "pools.NAME.tls",
        "slow_start slowstart": "pools.NAME.slow_start",
        "timeout timeouts": "pools.NAME.timeouts",
        "cookie": "pools.NAME.sticky",
    }
)
_BY_SECTION: Final = {
    "Config": _TOP,
    "Listener": _LISTENER,
    "Pool": _POOL,
    "ServerSpec": _SERVER,
    "HealthCheck": _words(
        {
            "uri url endpoint target http_path": "path",
            "fails unhealthy_threshold failures max_fails failure_threshold unhealthy": "fall",
            "passes healthy_threshold successes success_threshold healthy": "rise",
            "inter period every frequency delay": "interval",
            "status expected_status expect_status match codes code http_status": "expect.status",
            "protocol mode kind": "type",
            "hostname": "host",
            "enabled disabled": "`health_check: off` turns the checks off",
        }
    ),
    "PoolTimeouts": _words(
        {
            "connection dial connect_timeout": "connect",
            "server response request first_byte header head response_header": "response_head",
            "client": "listeners[].timeouts",
            "idle body": "read",
            "send": "write",
            "queue": "queue.timeout",
        }
    ),
    "ListenerTimeouts": _words(
        {
            "client read body request": "request_body",
            "header head": "request_head",
            "idle keepalive": "keep_alive",
            "send": "write",
            "connect server total response_head": "pools.NAME.timeouts",
        }
    ),
    "Admin": _words(
        {"address listen port host addr": "bind", "password secret auth api_key key": "token", "enabled": "bind: off"}
    ),
    "AccessLog": _words({"file filename output dest": "path", "style type": "format", "enabled": "access_log: off"}),
    "Log": _words(
        {"file path output": "own messages go to stderr; send that to a file", "loglevel verbosity": "level"}
    ),
    "Limits": _words(
        {"maxconn max_conn max_connections conns": "connections", "memory max_memory buffers": "buffered_bytes"}
    ),
    "Retry": _words(
        {
            "count max tries num_retries max_attempts retries": "attempts",
            "status_codes codes retry_on_status statuses http_codes": "status",
            "true conditions retry_on causes errors": "on",
            "delay interval wait": "backoff",
        }
    ),
    "Queue": _words(
        {
            "max length limit depth max_size maxqueue": "size",
            "wait max_wait": "timeout",
            "fair fairness fair_key by key flow": "fair_by",
            "priorities classes class": "priority",
        }
    ),
    "Priority": _words({"field name": "header", "levels values": "classes", "trust": "from"}),
    "CircuitBreaker": _words(
        {
            "threshold max_fails consecutive_failures consecutive_errors consecutive_5xx": "failures",
            "sleep timeout cooldown open_time fail_timeout base_ejection_time": "open",
            "max_ejection_percent": "max_ejected",
            "codes statuses": "status",
        }
    ),
    "KeepAlive": _words({"timeout": "idle_timeout", "connections max_idle size": "idle", "requests": "max_requests"}),
    "Route": _words(
        {
            "backend upstream service cluster proxy_pass target use_backend servers": "pool",
            "path": "match.path",
            "prefix path_prefix location uri": "match.path_prefix",
            "regex path_regex": "match.path_regex",
            "host hosts hostname": "match.host",
            "method methods": "match.methods",
            "query": "match.query",
            "return": "respond",
            "weights weighted_clusters split_clients traffic_split canary splits weighted_target_groups": "split",
            "json body": "match.json",
        }
    ),
    "Split": _words({"key hash hash_on sticky": "by", "weights shares clusters backends targets": "pools"}),
    "Match": _words(
        {
            "prefix path_beg": "path_prefix",
            "regex path_reg pattern": "path_regex",
            "uri location url": "path",
            "hosts hostname server_name domain": "host",
            "params args": "query",
            "body json_body body_json jsonpath json_query": "json",
        }
    ),
    "ListenerTls": _words(
        {
            "certificate crt cert_file certfile ssl_certificate chain": "cert",
            "private_key key_file keyfile ssl_certificate_key": "key",
            "ca client_ca_file ca_file": "client_ca",
            "verify client_auth": "client_verify",
            "protocols versions ssl_protocols": "min_version",
        }
    ),
    "PoolTls": _words(
        {"insecure skip_verify": "write verify: false", "ca_file": "ca", "sni servername": "server_name"}
    ),
}
_STRATEGIES: Final = _words(
    {
        "rr roundrobin": "round_robin",
        "wrr static_rr weighted weightedroundrobin weighted_rr smooth_weighted_round_robin": "weighted_round_robin",
        "leastconn least_conn lc wlc least_request least_requests least_outstanding_requests "
        "weighted_least_connections least_connection least_load": "least_connections",
        "source iphash client_ip source_ip sticky src": "ip_hash",
        "p2c two_choices random_two pick_two power_of_two_choices": "power_of_two",
        "ewma least_time least_response_time latency fastest response_time": "peak_ewma",
        "uri url maglev ring_hash consistent hash_ring ketama rendezvous chash hash": "consistent_hash",
        "first_available fill sequential": "first",
        "rand": "random",
    }
)


_PROGRAMS: Final = {
    "Envoy": {"static_resources", "dynamic_resources", "layered_runtime", "overload_manager"},
    "Traefik": {"entrypoints", "certificatesresolvers", "serverstransport", "providers"},
    "Kubernetes": {"apiversion", "kind"},
    "Docker Compose": {"services", "networks", "volumes"},
    "Kong": {"_format_version", "_transform"},
}
"""Keys at the top level that only these programs have; of Kubernetes and Compose it takes two."""


def program_of_keys(data: object) -> str:
    """The program for which a mapping at the top level of a file is, "" if that is not sure."""
    if not isinstance(data, Mapping) or {"listeners", "pools"} & set(data):
        return ""
    keys = {str(key).lower() for key in data}
    traefik = any(isinstance(data.get(key), Mapping) and {"routers", "services"} & set(data[key]) for key in _TRAEFIK)
    for program, words in _PROGRAMS.items():
        needed = 2 if program in ("Kubernetes", "Docker Compose") else 1
        if len(keys & words) >= needed:
            return program
    return "Traefik" if traefik else ""


_TRAEFIK: Final = ("http", "tcp", "udp")


def program_of_text(text: str) -> str:
    """The program for which a file is that is one text to YAML, "" if that is not sure."""
    if re.match(r"(global|defaults|frontend|backend|listen)\s", text):
        return "haproxy"
    if re.search(r"\b(reverse_proxy|handle|respond|file_server|encode)\b", text) and ";" not in text:
        return "Caddy"
    return "nginx" if "{" in text and ";" in text else ""


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def key(section: str, name: str) -> str:
    """What an unknown key of a section (the name of its model) is called here, "" if nobody knows."""
    ours = _BY_SECTION.get(section, {}).get(_plain(name), "")
    is_sentence = " " in ours.replace(" or ", "").replace(" (at the top level)", "")
    return ours if is_sentence or not ours else f"did you mean {ours}?"


def strategy(name: str) -> str:
    """The strategy that another balancer calls so, or ""."""
    return _STRATEGIES.get(_plain(name), "")
