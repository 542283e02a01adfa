"""Transcripts: a config on the left, every line that lbproxy says about it on the right.

Columns count from 1. `${WORD}` is "many" and `${EMPTY}` is set but empty in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lbproxy.config.loader import ConfigError, load_file, load_text

ENVIRON = {"EMPTY": "", "WORD": "many"}


@dataclass(frozen=True)
class Transcript:
    name: str
    config: list[str]
    said: list[str]

    @property
    def text(self) -> str:
        return "".join(line + "\n" for line in self.config)


REFUSED = [
    Transcript(
        'empty file',
        [
        ],
        [
            'lb.yaml:1:1: the file is empty; it needs at least `listeners` and `pools`',
        ],
    ),
    Transcript(
        'only comments',
        [
            '# nothing',
        ],
        [
            'lb.yaml:1:1: the file is empty; it needs at least `listeners` and `pools`',
        ],
    ),
    Transcript(
        'a list',
        [
            '- a',
            '- b',
        ],
        [
            'lb.yaml:1:1: expected a mapping with `listeners` and `pools`, got a list',
        ],
    ),
    Transcript(
        'a scalar',
        [
            'hello',
        ],
        [
            "lb.yaml:1:1: expected a mapping with `listeners` and `pools`, got 'hello'",
        ],
    ),
    Transcript(
        'tab',
        [
            'listeners:',
            '\t- bind: :5000',
        ],
        [
            "lb.yaml:2:1: is not YAML: while scanning for the next token found character '\\t' that cannot start any token; indent with spaces, not tabs",
        ],
    ),
    Transcript(
        'unclosed bracket',
        [
            'listeners: [',
        ],
        [
            "lb.yaml:2:1: is not YAML: while parsing a flow node expected the node content, but found '<stream end>'",
        ],
    ),
    Transcript(
        'colon in a value',
        [
            'listeners:',
            '  - bind: a: b',
        ],
        [
            "lb.yaml:2:12: is not YAML: mapping values are not allowed here; put a value that holds ': ' in quotes, and check the indentation",
        ],
    ),
    Transcript(
        'variable inside brackets',
        [
            'listeners:',
            '  - bind: [${HOST}:1]',
        ],
        [
            "lb.yaml:2:13: is not YAML: while parsing a flow sequence expected ',' or ']', but got '{'; inside [ ] and { } put a value that holds ${...} in quotes",
        ],
    ),
    Transcript(
        'two documents',
        [
            'listeners: []',
            '---',
            'pools: {}',
        ],
        [
            'lb.yaml:2:1: a second document begins here; a config file holds one document',
        ],
    ),
    Transcript(
        'unknown alias',
        [
            'listeners: *all',
        ],
        [
            'lb.yaml:1:12: the alias *all refers to no anchor &all before it',
        ],
    ),
    Transcript(
        'control character',
        [
            'log: {level: \x07}',
        ],
        [
            'lb.yaml:1:14: the character U+0007 is not allowed in YAML',
        ],
    ),
    Transcript(
        'recursive alias',
        [
            'listeners: &a [*a]',
        ],
        [
            'lb.yaml:1:16: the alias *a refers to no anchor &a before it',
        ],
    ),
    Transcript(
        'tag',
        [
            'workers: !!python/object:os.system 1',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:10: workers: the tag !!python/object:os.system is not known here; remove it',
        ],
    ),
    Transcript(
        'complex key',
        [
            '? [a, b]',
            ': 1',
        ],
        [
            'lb.yaml:1:1: listeners: is required',
            'lb.yaml:1:3: ?: a key is a text, not a list',
        ],
    ),
    Transcript(
        'merge key',
        [
            'base: &b {level: info}',
            'log:',
            '  <<: *b',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:1: base: unknown key; known keys: workers, admin, access_log, log, shutdown, limits, trusted_proxies, listeners, pools',
            'lb.yaml:3:3: log.<<: unknown key; merge keys are not part of YAML 1.2; use an alias for a whole value',
        ],
    ),
    Transcript(
        'duplicate key',
        [
            'log: {level: info}',
            'limits: {connections: 5}',
            'log: {format: json}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:1: log: is given twice, first in line 1; remove one of them',
        ],
    ),
    Transcript(
        'key without value',
        [
            'admin:',
            'log: {level: }',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:7: admin: has no value; write one, or remove the key',
            'lb.yaml:2:13: log.level: has no value; write one, or remove the key',
        ],
    ),
    Transcript(
        'unset variable',
        [
            "log: {level: '${NO_SUCH_LEVEL}'}",
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:14: log.level: the environment variable NO_SUCH_LEVEL is not set; set it, or write ${NO_SUCH_LEVEL:-default}',
        ],
    ),
    Transcript(
        'empty variable',
        [
            'log:',
            '  level: ${EMPTY}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:2:10: log.level: is empty after ${EMPTY} is replaced; set the variable, or give a default such as ${NAME:-off}',
        ],
    ),
    Transcript(
        'broken variable',
        [
            "log: {level: '${1}'}",
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:1:14: log.level: '${1}' holds ${ without a variable; write ${NAME} or ${NAME:-default}, or $${ for ${",
        ],
    ),
    Transcript(
        'variable of the wrong type',
        [
            'limits:',
            '  connections: ${WORD}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:2:16: limits.connections: expected a whole number from 1 to 10000000, got 'many'",
        ],
    ),
    Transcript(
        'unknown keys',
        [
            'listener:',
            '  - bind: :5000',
            'logs: {level: info}',
            'log: {lvl: info}',
            'foo: 1',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:1: listener: unknown key; did you mean listeners?',
            'lb.yaml:3:1: logs: unknown key; did you mean log?',
            'lb.yaml:4:7: log.lvl: unknown key; did you mean level?',
            'lb.yaml:5:1: foo: unknown key; known keys: workers, admin, access_log, log, shutdown, limits, trusted_proxies, listeners, pools',
        ],
    ),
    Transcript(
        'wrong types',
        [
            'admin: 5',
            'listeners: {bind: x}',
            'pools: [a]',
            'access_log: true',
            'log: on',
        ],
        [
            'lb.yaml:1:8: admin: expected a mapping, got 5',
            'lb.yaml:2:12: listeners: expected a list, got a mapping',
            'lb.yaml:3:8: pools: expected a mapping, got a list',
            'lb.yaml:4:13: access_log: expected a mapping, got true',
            "lb.yaml:5:6: log: expected a mapping, got 'on'",
        ],
    ),
    Transcript(
        'numbers',
        [
            'limits: {connections: many, buffered_bytes: 64K}',
            'shutdown: {delay: -1s, grace: soon}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:1:23: limits.connections: expected a whole number from 1 to 10000000, got 'many'",
            "lb.yaml:1:45: limits.buffered_bytes: expected a size such as 64KiB, 10MB or a number of bytes, got '64K'",
            "lb.yaml:2:19: shutdown.delay: expected a duration such as 250ms, 2s, 5m, got '-1s'",
            "lb.yaml:2:31: shutdown.grace: expected a duration such as 250ms, 2s, 5m, got 'soon'",
        ],
    ),
    Transcript(
        'out of range',
        [
            'limits: {connections: 0, buffered_bytes: 0}',
            'shutdown: {delay: 9000h}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:23: limits.connections: expected a whole number from 1 to 10000000, got 0',
            'lb.yaml:1:42: limits.buffered_bytes: must be larger than 0',
            "lb.yaml:2:19: shutdown.delay: expected a duration from 0 to 366 days, got '9000h'",
        ],
    ),
    Transcript(
        'enumerations',
        [
            'log: {level: warn, format: JSON}',
            'access_log: {format: combind}',
            'admin: {ready: both}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:1:14: log.level: expected debug, info, warning or error, got 'warn'; did you mean warning?",
            "lb.yaml:1:28: log.format: expected text or json, got 'JSON'; did you mean json?",
            "lb.yaml:2:22: access_log.format: expected json, common or combined, got 'combind'; did you mean combined?",
            "lb.yaml:3:16: admin.ready: expected any or all, got 'both'",
        ],
    ),
    Transcript(
        'booleans are not words',
        [
            'pools:',
            '  p: {servers: [127.0.0.1:1], retry: {idempotent: yes, unacked: false}}',
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            "lb.yaml:2:51: pools.p.retry.idempotent: expected true or false, got 'yes'",
            'lb.yaml:2:65: pools.p.retry.unacked: expected auto, on or off, got false; did you mean off?',
        ],
    ),
    Transcript(
        'text that looks like a boolean',
        [
            'admin: {token: true}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:16: admin.token: expected text, got true; put it in quotes: "true"',
        ],
    ),
    Transcript(
        'networks',
        [
            'trusted_proxies: [10.0.0.1/8, localhost, 10.0.0.0/8, 5]',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:1:19: trusted_proxies[0]: '10.0.0.1/8' has bits set behind the prefix; did you mean 10.0.0.0/8?",
            "lb.yaml:1:31: trusted_proxies[1]: expected a network such as 10.0.0.0/8, got 'localhost'",
            "lb.yaml:1:54: trusted_proxies[3]: expected a network such as 10.0.0.0/8, got '5'",
        ],
    ),
    Transcript(
        'no listeners',
        [
            'listeners: []',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:12: listeners: needs at least one listener',
        ],
    ),
    Transcript(
        'listener without anything',
        [
            'listeners:',
            '  - {}',
            '  - bind: []',
            '    pool: p',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:2:5: listeners[0].bind: is required',
            'lb.yaml:2:5: listeners[0].pool: is required, or `routes`',
            'lb.yaml:3:11: listeners[1].bind: needs at least one address',
        ],
    ),
    Transcript(
        'bind addresses',
        [
            'listeners:',
            "  - bind: ['*:80', 5000, '::1:80', 'host', 'host:99999', '1.2.3.400:80', 'unix:', 'http://a:1', 'a b:1', '[::g]:1']",
            '    pool: p',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:2:12: listeners[0].bind[0]: '*:80' has no host that can be bound; did you mean :80?",
            'lb.yaml:2:20: listeners[0].bind[1]: expected host:port, got 5000; did you mean :5000?',
            'lb.yaml:2:26: listeners[0].bind[2]: write an IPv6 address in brackets: [::1]:80',
            "lb.yaml:2:36: listeners[0].bind[3]: 'host' has no port; write host:port",
            "lb.yaml:2:44: listeners[0].bind[4]: '99999' is not a port (0 to 65535)",
            "lb.yaml:2:58: listeners[0].bind[5]: '1.2.3.400' is not an IPv4 address",
            'lb.yaml:2:74: listeners[0].bind[6]: a unix address needs a path: unix:/run/app.sock',
            "lb.yaml:2:83: listeners[0].bind[7]: 'http://a:1' is a URL; write host:port without http://",
            "lb.yaml:2:97: listeners[0].bind[8]: 'a b' is not a host name",
            'lb.yaml:2:106: listeners[0].bind[9]: [::g] is not an IPv6 address',
        ],
    ),
    Transcript(
        'binds overlap',
        [
            'listeners:',
            '  - {bind: 0.0.0.0:5000, pool: p}',
            '  - {bind: 127.0.0.1:5000, pool: p}',
            "  - {bind: ':8404', pool: p}",
            "  - {bind: ['[::]:5000', '[::1]:5000'], pool: p}",
            "  - {bind: ['unix:/a', 'unix:/a'], pool: p}",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:12: listeners[1].bind: 127.0.0.1:5000 and 0.0.0.0:5000 of listeners[0].bind overlap; give each its own port',
            'lb.yaml:4:12: listeners[2].bind: 0.0.0.0:8404 and 127.0.0.1:8404 of admin.bind overlap; give each its own port',
            'lb.yaml:5:26: listeners[3].bind[1]: [::1]:5000 and [::]:5000 of listeners[3].bind[0] overlap; give each its own port',
            'lb.yaml:6:24: listeners[4].bind[1]: unix:/a is bound by listeners[4].bind[0] too; give each its own port',
        ],
    ),
    Transcript(
        'loops',
        [
            'listeners:',
            "  - {bind: ':5000', pool: p}",
            'pools:',
            "  p: {servers: [127.0.0.1:4998-5002, 'localhost:5000', '127.0.0.1:8404', 10.0.0.1:5000]}",
        ],
        [
            'lb.yaml:4:17: pools.p.servers[0]: 127.0.0.1:5000 is lbproxy itself (listeners[0].bind): a loop',
            'lb.yaml:4:38: pools.p.servers[1]: localhost:5000 is lbproxy itself (listeners[0].bind): a loop',
            'lb.yaml:4:56: pools.p.servers[2]: 127.0.0.1:8404 is lbproxy itself (admin.bind): a loop',
        ],
    ),
    Transcript(
        'listener names',
        [
            'listeners:',
            "  - {bind: ':1', pool: p, name: a}",
            "  - {bind: ':2', pool: p, name: a}",
            "  - {bind: ':3', pool: p, name: a b}",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:33: listeners[1].name: listeners[0] has this name too',
            "lb.yaml:4:33: listeners[2].name: expected a name of 1 to 128 printable characters without spaces, got 'a b'",
        ],
    ),
    Transcript(
        'pool references',
        [
            'listeners:',
            "  - {bind: ':1', pool: predcit}",
            "  - {bind: ':2', pool: other}",
            'pools:',
            '  predict: {servers: [127.0.0.1:1]}',
        ],
        [
            'lb.yaml:2:24: listeners[0].pool: there is no pool predcit; did you mean predict?',
            'lb.yaml:3:24: listeners[1].pool: there is no pool other; pools: predict',
            'lb.yaml:5:23: pools.predict.servers[0]: 127.0.0.1:1 is lbproxy itself (listeners[0].bind): a loop',
        ],
    ),
    Transcript(
        'no pools',
        [
            'listeners:',
            "  - {bind: ':1', pool: p}",
            'pools: {}',
        ],
        [
            'lb.yaml:2:24: listeners[0].pool: there is no pool p; there are no pools',
        ],
    ),
    Transcript(
        'pool and routes',
        [
            'listeners:',
            "  - bind: ':1'",
            '    pool: p',
            '    routes: [{pool: p}]',
            "  - bind: ':2'",
            '    routes: []',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:5: listeners[0].pool: is given besides `routes`; make it the last route, without match',
            'lb.yaml:6:13: listeners[1].routes: needs at least one route',
        ],
    ),
    Transcript(
        'listener keys of later versions',
        [
            'listeners:',
            "  - bind: ':1'",
            '    pool: p',
            '    tls: {cert: a, key: b}',
            '    proxy_protocol: accept',
            '    timeouts: {tls_handshake: 5s}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:4:5: listeners[0].tls: is not available in this version',
            'lb.yaml:5:5: listeners[0].proxy_protocol: is not available in this version',
            'lb.yaml:6:16: listeners[0].timeouts.tls_handshake: is not available in this version',
        ],
    ),
    Transcript(
        'pool keys of later versions',
        [
            'workers: 4',
            'pools:',
            '  p:',
            "    servers: [{address: '127.0.0.1:1', backup: true}]",
            '    strategy: peak_ewma',
            '    queue: {size: oops}',
            '    circuit_breaker: off',
            '    retry: {on: [timeout], budget: {}}',
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:1:10: workers: 4 is not available in this version',
            'lb.yaml:4:40: pools.p.servers[0].backup: is not available in this version',
            'lb.yaml:5:15: pools.p.strategy: peak_ewma is not available in this version',
            'lb.yaml:6:5: pools.p.queue: is not available in this version',
            'lb.yaml:7:5: pools.p.circuit_breaker: is not available in this version',
            'lb.yaml:8:18: pools.p.retry.on[0]: timeout is not available in this version',
            'lb.yaml:8:28: pools.p.retry.budget: is not available in this version',
        ],
    ),
    Transcript(
        'route actions',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes:',
            '      - match: {path: /a}',
            '      - {pool: p, redirect: {location: /x}}',
            '      - {redirect: {location: /y}, retry: off}',
            '      - {respond: {status: 204, body: text}}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:4:9: listeners[0].routes[0].pool: is required, or `redirect`, or `respond`',
            'lb.yaml:5:9: listeners[0].routes[1]: has `pool` and `redirect`, but a route does one thing',
            'lb.yaml:6:36: listeners[0].routes[2].retry: has no meaning in a route with `redirect`',
            'lb.yaml:7:39: listeners[0].routes[3].respond.body: an answer with status 204 has no body',
        ],
    ),
    Transcript(
        'matches',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes:',
            "      - match: {path: a, path_prefix: '/a?b', path_regex: '(', methods: [get, 'G T'], host: 'a:80', headers: {'a b': c}}",
            '        pool: p',
            "      - match: {hots: a, host: '*x.com'}",
            '        pool: p',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            "lb.yaml:4:23: listeners[0].routes[0].match.path: expected a path that starts with /, got 'a'",
            "lb.yaml:4:39: listeners[0].routes[0].match.path_prefix: the path '/a?b' holds a query or fragment; match the query with `query`",
            "lb.yaml:4:59: listeners[0].routes[0].match.path_regex: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
            'lb.yaml:4:74: listeners[0].routes[0].match.methods[0]: methods are case-sensitive; did you mean GET?',
            "lb.yaml:4:79: listeners[0].routes[0].match.methods[1]: 'G T' is not a token: letters, digits and !#$%&'*+-.^_`|~ only",
            "lb.yaml:4:93: listeners[0].routes[0].match.host: a host is matched without its port, got 'a:80'",
            "lb.yaml:4:111: listeners[0].routes[0].match.headers.a b: 'a b' is not a header name: letters, digits and !#$%&'*+-.^_`|~ only",
            'lb.yaml:6:17: listeners[0].routes[1].match.hots: unknown key; did you mean host?',
            "lb.yaml:6:32: listeners[0].routes[1].match.host: expected a host name or *.name, got '*x.com'",
        ],
    ),
    Transcript(
        'redirects',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes:',
            '      - redirect: {status: 200}',
            '      - redirect: {location: "/a\\r\\nb"}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:4:9: listeners[0].routes[0].redirect.location: is required',
            'lb.yaml:4:28: listeners[0].routes[0].redirect.status: expected 301, 302, 303, 307 or 308, got 200',
            "lb.yaml:5:30: listeners[0].routes[1].redirect.location: the location '/a\\r\\nb' is empty or holds a space, a control or a non-ASCII character; percent-encode it",
        ],
    ),
    Transcript(
        'fixed answers',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes:',
            '      - respond: {status: 101, headers: {Content-Length: 5, X-A: "a\\nb"}, body: [a]}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:4:27: listeners[0].routes[0].respond.status: expected a whole number from 200 to 599, got 101',
            'lb.yaml:4:42: listeners[0].routes[0].respond.headers.Content-Length: Content-Length is managed by lbproxy itself; remove it',
            'lb.yaml:4:66: listeners[0].routes[0].respond.headers.X-A: the header value holds a control character (U+000A)',
            'lb.yaml:4:81: listeners[0].routes[0].respond.body: expected text, got a list',
        ],
    ),
    Transcript(
        'header rules',
        [
            'pools:',
            '  p:',
            '    servers: [127.0.0.1:1]',
            '    headers:',
            '      request: {set: {\'X:Y\': a, Connection: close, X-A: a, x-a: b, X-N: "\\0", X-U: \'€\'}, remove: [Host, TE, \'a b\']}',
            '      response: {add: {X-T: true}}',
            '      both: {}',
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            "lb.yaml:5:23: pools.p.headers.request.set.X:Y: 'X:Y' is not a header name: letters, digits and !#$%&'*+-.^_`|~ only",
            'lb.yaml:5:33: pools.p.headers.request.set.Connection: Connection is managed by lbproxy itself; remove it',
            'lb.yaml:5:60: pools.p.headers.request.set.x-a: is the same header as X-A; remove one of them',
            'lb.yaml:5:73: pools.p.headers.request.set.X-N: the header value holds a control character (U+0000)',
            "lb.yaml:5:84: pools.p.headers.request.set.X-U: the header value holds '€', which is not Latin-1",
            'lb.yaml:5:99: pools.p.headers.request.remove[0]: a request cannot be without Host; set it instead',
            'lb.yaml:5:105: pools.p.headers.request.remove[1]: TE is managed by lbproxy itself',
            "lb.yaml:5:109: pools.p.headers.request.remove[2]: 'a b' is not a header name: letters, digits and !#$%&'*+-.^_`|~ only",
            'lb.yaml:6:29: pools.p.headers.response.add.X-T: expected text, got true; put it in quotes: "true"',
            'lb.yaml:7:7: pools.p.headers.both: unknown key; known keys: request, response',
        ],
    ),
    Transcript(
        'tcp listener with routes',
        [
            'listeners:',
            "  - bind: ':1'",
            '    mode: tcp',
            '    routes:',
            '      - {match: {path: /a}, pool: p}',
            '      - {respond: {}}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:5:10: listeners[0].routes[0].match: is not possible on a TCP listener; use `pool` alone, or `mode: http`',
            'lb.yaml:6:10: listeners[0].routes[1].respond: is not possible on a TCP listener; use `pool` alone, or `mode: http`',
        ],
    ),
    Transcript(
        'servers',
        [
            'pools:',
            '  p:',
            "    servers: ['127.0.0.1', ':5001', '127.0.0.1:0', 'host:5004-5001', 'host:1-999', {adress: 'a:1'}, {address: 'a:1', weight: -1}, [a], 'http://a:1']",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            "lb.yaml:3:15: pools.p.servers[0].address: '127.0.0.1' has no port; write host:port",
            "lb.yaml:3:28: pools.p.servers[1].address: ':5001' has no host",
            "lb.yaml:3:37: pools.p.servers[2].address: a server's port is from 1 to 65535",
            "lb.yaml:3:52: pools.p.servers[3].address: 'host:5004-5001' is not a range of ports: the first is above 0 and below the last",
            "lb.yaml:3:70: pools.p.servers[4].address: 'host:1-999' names more than 256 servers",
            'lb.yaml:3:85: pools.p.servers[5].adress: unknown key; did you mean address?',
            'lb.yaml:3:126: pools.p.servers[6].weight: expected a whole number from 0 to 65535, got -1',
            'lb.yaml:3:131: pools.p.servers[7].address: expected text, got a list',
            "lb.yaml:3:136: pools.p.servers[8].address: 'http://a:1' is a URL; write host:port without http://",
        ],
    ),
    Transcript(
        'servers twice',
        [
            'pools:',
            '  p:',
            "    servers: [127.0.0.1:5001-5003, 127.0.0.1:5002, {address: 'a:1', name: x}, {address: 'b:1', name: x}]",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:3:36: pools.p.servers[1]: servers[0] has the address 127.0.0.1:5002 too; remove one of them',
            'lb.yaml:3:79: pools.p.servers[3]: servers[2] has the name x too; remove one of them',
        ],
    ),
    Transcript(
        'no servers',
        [
            'pools:',
            '  p: {}',
            '  q: {servers: []}',
            '  r: 5',
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:2:3: pools.p.servers: is required',
            'lb.yaml:3:16: pools.q.servers: needs at least one server',
            'lb.yaml:4:6: pools.r: expected a mapping, got 5',
        ],
    ),
    Transcript(
        'pool name',
        [
            'pools:',
            "  'a b': {servers: ['a:1']}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            "lb.yaml:2:3: pools.a b: 'a b' is not a pool name: 1 to 64 letters, digits, '.', '_' and '-'",
        ],
    ),
    Transcript(
        'strategies',
        [
            'pools:',
            "  p: {servers: ['a:1'], strategy: least_conn}",
            "  q: {servers: ['a:1'], strategy: {}}",
            "  r: {servers: ['a:1'], strategy: {name: random, seed: 5}}",
            "  s: {servers: ['a:1'], strategy: {python: nothing}}",
            "  t: {servers: ['a:1'], strategy: zzz}",
            "  u: {servers: ['a:1'], strategy: [random]}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:2:35: pools.p.strategy: there is no strategy least_conn; did you mean least_connections?',
            'lb.yaml:3:35: pools.q.strategy: needs either `name` or `python`; such as least_connections',
            'lb.yaml:4:50: pools.r.strategy.seed: unknown option; random takes none; remove it',
            "lb.yaml:5:44: pools.s.strategy.python: expected module:Class or file.py:Class, got 'nothing'",
            'lb.yaml:6:35: pools.t.strategy: there is no strategy zzz; strategies: round_robin, weighted_round_robin, least_connections, ip_hash, random, power_of_two',
            'lb.yaml:7:35: pools.u.strategy: expected a mapping, got a list',
        ],
    ),
    Transcript(
        'health checks',
        [
            'pools:',
            "  p: {servers: ['a:1'], health_check: health}",
            "  q: {servers: ['a:1'], health_check: {path: /x, expect: {status: 200}}}",
            "  r: {servers: ['a:1'], health_check: {type: http, send: a, expect: OK, rise: 0, port: 0}}",
            "  s: {servers: ['a:1'], health_check: {type: http, expect: {status: 2xx, body: '['}, interval: 0}}",
            "  t: {servers: ['a:1'], health_check: true}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            "lb.yaml:2:39: pools.p.health_check: expected off, tcp, a path that starts with /, or a mapping, got 'health'",
            'lb.yaml:3:40: pools.q.health_check.path: belongs to an HTTP check; add `type: http`',
            'lb.yaml:3:59: pools.q.health_check.expect.status: belongs to an HTTP check; add `type: http`',
            'lb.yaml:4:52: pools.r.health_check.send: belongs to a TCP check; use `body`',
            'lb.yaml:4:69: pools.r.health_check.expect: a text belongs to a TCP check; write {status: ...} or {body: REGEX}',
            'lb.yaml:4:79: pools.r.health_check.rise: expected a whole number from 1 to 100, got 0',
            'lb.yaml:4:88: pools.r.health_check.port: expected a whole number from 1 to 65535, got 0',
            "lb.yaml:5:69: pools.s.health_check.expect.status: expected statuses such as 200, 200-399 or 200,204, got '2xx'",
            "lb.yaml:5:80: pools.s.health_check.expect.body: '[' is not a regular expression: unterminated character set at position 0",
            'lb.yaml:5:96: pools.s.health_check.interval: must be longer than 0',
            'lb.yaml:6:39: pools.t.health_check: expected a mapping, got true',
        ],
    ),
    Transcript(
        'keys in the wrong section',
        [
            'pools:',
            '  p:',
            "    servers: ['a:1']",
            '    interval: 5s',
            '    attempts: 3',
            '    idle: 4',
            "bind: ':80'",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:4:5: pools.p.interval: unknown key; did you mean dns.interval or health_check.interval?',
            'lb.yaml:5:5: pools.p.attempts: unknown key; did you mean retry.attempts?',
            'lb.yaml:6:5: pools.p.idle: unknown key; did you mean keep_alive.idle?',
            'lb.yaml:7:1: bind: unknown key; did you mean admin.bind?',
        ],
    ),
    Transcript(
        'timeouts cannot be off',
        [
            'pools:',
            '  p:',
            "    servers: ['a:1']",
            '    timeouts: {read: off, connect: 0}',
            '    fail_open: 50',
            '    keep_alive: {idle: 0, max_age: never}',
            '    retry: {attempts: 99, on: connect}',
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:4:22: pools.p.timeouts.read: cannot be off; write a long duration such as 24h',
            'lb.yaml:4:36: pools.p.timeouts.connect: must be longer than 0',
            'lb.yaml:5:16: pools.p.fail_open: expected a number from 0 to 1, got 50',
            'lb.yaml:6:24: pools.p.keep_alive.idle: expected a whole number from 1 to 65535, got 0',
            "lb.yaml:6:36: pools.p.keep_alive.max_age: expected a duration such as 250ms, 2s, 5m, got 'never'",
            'lb.yaml:7:23: pools.p.retry.attempts: expected a whole number from 0 to 10, got 99',
            "lb.yaml:7:31: pools.p.retry.on: expected a list, got 'connect'",
        ],
    ),
    Transcript(
        'mode bits',
        [
            'listeners:',
            "  - {bind: 'unix:/a', pool: p, mode_bits: 0660}",
            "  - {bind: 'unix:/b', pool: p, mode_bits: rw}",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:2:43: listeners[0].mode_bits: expected permission bits in quotes such as "0660", got the number 0660',
            'lb.yaml:3:43: listeners[1].mode_bits: expected permission bits in quotes such as "0660", got \'rw\'',
        ],
    ),
    Transcript(
        'everything at once',
        [
            'listeners:',
            "  - bind: ':5000'",
            '    pol: predict',
            "  - bnid: ':5001'",
            '    routes:',
            '      - {match: {methods: [get]}, pool: predcit}',
            '      - 7',
            '      - {pool: predcit}',
            "  - {bind: ['127.0.0.1:5000', '*:1'], mode: tpc, pool: predict}",
            'pools:',
            '  predict:',
            "    servers: ['127.0.0.1:5000', {adress: x}]",
            '    stratgy: random',
            "    health_check: {timeout: '${NOT_SET}'}",
        ],
        [
            'lb.yaml:3:5: listeners[0].pol: unknown key; did you mean pool?',
            'lb.yaml:4:5: listeners[1].bnid: unknown key; did you mean bind?',
            'lb.yaml:6:28: listeners[1].routes[0].match.methods[0]: methods are case-sensitive; did you mean GET?',
            'lb.yaml:6:41: listeners[1].routes[0].pool: there is no pool predcit; did you mean predict?',
            'lb.yaml:7:9: listeners[1].routes[1]: expected a mapping, got 7',
            'lb.yaml:8:16: listeners[1].routes[2].pool: there is no pool predcit; did you mean predict?',
            'lb.yaml:9:13: listeners[2].bind[0]: 127.0.0.1:5000 and 0.0.0.0:5000 of listeners[0].bind overlap; give each its own port',
            "lb.yaml:9:31: listeners[2].bind[1]: '*:1' has no host that can be bound; did you mean :1?",
            "lb.yaml:9:45: listeners[2].mode: expected http or tcp, got 'tpc'; did you mean tcp?",
            'lb.yaml:12:15: pools.predict.servers[0]: 127.0.0.1:5000 is lbproxy itself (listeners[0].bind): a loop',
            'lb.yaml:12:34: pools.predict.servers[1].adress: unknown key; did you mean address?',
            'lb.yaml:13:5: pools.predict.stratgy: unknown key; did you mean strategy?',
            'lb.yaml:14:29: pools.predict.health_check.timeout: the environment variable NOT_SET is not set; set it, or write ${NOT_SET:-default}',
        ],
    ),
]

WARNED = [
    Transcript(
        'unused pool',
        [
            'pools:',
            "  p: {servers: ['a:1']}",
            "  q: {servers: ['a:1']}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:3:3: pools.q: no listener uses this pool',
        ],
    ),
    Transcript(
        'weights that nobody reads',
        [
            'pools:',
            "  p: {strategy: round_robin, servers: [{address: 'a:1', weight: 3}, {address: 'b:1', weight: 0}]}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:2:65: pools.p.servers[0].weight: the strategy round_robin ignores weights; use weighted_round_robin',
        ],
    ),
    Transcript(
        'slow checks',
        [
            'pools:',
            "  p: {servers: ['a:1'], health_check: {timeout: 5s}}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:2:49: pools.p.health_check.timeout: the timeout (5s) is longer than the interval (2s)',
        ],
    ),
    Transcript(
        'short interval',
        [
            'pools:',
            "  p: {servers: ['a:1'], health_check: {interval: 1s}}",
            "listeners: [{bind: ':5000', pool: p}]",
        ],
        [
            'lb.yaml:2:50: pools.p.health_check.interval: the timeout (2s) is longer than the interval (1s)',
        ],
    ),
    Transcript(
        'route after the default',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes: [{pool: p}, {match: {path: /a}, pool: p}]',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:25: listeners[0].routes[1]: is never reached: routes[0] takes every request',
        ],
    ),
    Transcript(
        'same match twice',
        [
            'listeners:',
            "  - bind: ':1'",
            '    routes: [{match: {path: /a}, pool: p}, {match: {path: /a}, respond: {}}, {match: {}, pool: p}]',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:3:44: listeners[0].routes[1]: is never reached: routes[0] has the same match',
        ],
    ),
    Transcript(
        'HTTP keys on a TCP listener',
        [
            'listeners:',
            "  - bind: ':1'",
            '    mode: tcp',
            '    pool: p',
            "    mode_bits: '0600'",
            '    half_close: answer',
            '    timeouts: {request_head: 1s, write: 5s}',
            '    limits: {headers: 5, connections_per_ip: 5}',
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:5:5: listeners[0].mode_bits: has no effect: no bind is a unix socket',
            'lb.yaml:6:5: listeners[0].half_close: has no effect on a TCP listener',
            'lb.yaml:7:16: listeners[0].timeouts.request_head: has no effect on a TCP listener',
            'lb.yaml:8:14: listeners[0].limits.headers: has no effect on a TCP listener',
        ],
    ),
    Transcript(
        'delay beyond grace',
        [
            'shutdown: {delay: 30s, grace: 10s}',
            "listeners: [{bind: ':5000', pool: p}]",
            "pools: {p: {servers: ['10.0.0.1:80']}}",
        ],
        [
            'lb.yaml:1:19: shutdown.delay: is longer than `grace`, which includes it: no request can finish in peace',
        ],
    ),
]


@pytest.mark.parametrize("transcript", REFUSED, ids=lambda transcript: transcript.name)
def test_a_bad_config_is_refused_with_every_problem_at_its_place(transcript: Transcript) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(transcript.text, "lb.yaml", ENVIRON)
    assert [str(problem) for problem in raised.value.problems] == transcript.said
    assert str(raised.value) == "\n".join(transcript.said)


@pytest.mark.parametrize("transcript", WARNED, ids=lambda transcript: transcript.name)
def test_what_is_legal_but_hardly_meant_is_a_warning(transcript: Transcript) -> None:
    loaded = load_text(transcript.text, "lb.yaml", ENVIRON)
    assert [str(problem) for problem in loaded.warnings] == transcript.said


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load_file(path, {})
    return str(raised.value)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: there is no such file"
    assert refusal(tmp_path) == f"{tmp_path}: is a directory, not a file"
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert refusal(loop) == f"{loop}: cannot be read: Too many levels of symbolic links"
    assert refusal(Path("a\0b")) == "a\0b: cannot be read: embedded null byte"


def test_a_file_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes("a: 1\nö: ".encode() + b"\xff\n")
    assert refusal(path) == f"{path}:2:4: byte 0xff is not UTF-8; save the file as UTF-8"


def test_a_file_above_one_mebibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    assert refusal(path) == f"{path}: is larger than 1 MiB"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"\xef\xbb\xbflisteners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:2']}}\n")
    assert load_file(str(path), {}).config.listeners[0].pool == "p"


def test_an_installed_strategy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    def installed(*, group: str) -> list[EntryPoint]:
        assert group == "lbproxy.strategies"
        return [EntryPoint("longest_prefix", "somewhere:LongestPrefix", group)]

    monkeypatch.setattr("lbproxy.config.checks.entry_points", installed)
    text = "listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:2'], strategy: {name: NAME, size: 010}}}\n"
    spec = load_text(text.replace("NAME", "longest_prefix"), "lb.yaml", {}).config.pools["p"].strategy
    assert (spec.name, dict(spec.options), type(spec.options["size"])) == ("longest_prefix", {"size": 10}, int)
    with pytest.raises(ConfigError, match="there is no strategy longest_prefx; did you mean longest_prefix"):
        load_text(text.replace("NAME", "longest_prefx"), "lb.yaml", {})
