"""`lbproxy completion`: scripts with which a shell completes commands, options, and names of a running lbproxy.

The scripts are made from the parser of the command line, so that no option can be forgotten. What they cannot know, the
names of servers, pools and listeners, they ask for with `lbproxy completion servers` and the like: a short call, and
silence where nobody answers. The line that is being typed goes along in LBPROXY_LINE, for its --admin, --token and
--config.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy import _client
from lbproxy.cli import asking, streams
from lbproxy.cli.common import FAILURE, OK, ConfigRefused, UsageError

LINE: Final = "LBPROXY_LINE"
SHELLS: Final = ("bash", "zsh", "fish")
NAMES: Final = ("servers", "pools", "listeners")  # that a running lbproxy is asked for
FILES: Final = "files"
_TIMEOUT_S: Final = 1.0
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BY_METAVAR: Final[Mapping[str, str]] = {"FILE": FILES, "POOL/SERVER": "servers", "POOL/ADDRESS": "pools"}


@dataclass(frozen=True, slots=True)
class Value:
    """What can stand somewhere. source: FILES or one of NAMES, "" if it is not known. words: that are known."""

    source: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """names: with their dashes. value None: it takes none."""

    names: tuple[str, ...]
    text: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Words:
    """A command: its options, and what may stand beside them."""

    name: str
    text: str
    options: tuple[Option, ...]
    values: tuple[Value, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar=f"{{{','.join((*SHELLS, *NAMES))}}}",
        choices=(*SHELLS, *NAMES),
        help="a shell: print the script for it; servers, pools, listeners: print the names of a running lbproxy",
    )
    asking.add_options(parser, _TIMEOUT_S, "wait this long for names (default 1)")


# --- the words of the command line ------------------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser) -> list[Words]:
    """All commands of the parser, in its order."""
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return [words_of(name, texts.get(name, ""), command) for name, command in action.choices.items()]


def words_of(name: str, text: str, parser: argparse.ArgumentParser) -> Words:
    """The options and values of one parser."""
    options: list[Option] = []
    values: list[Value] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        if action.option_strings:
            value = None if action.nargs == 0 else _value(action)
            options.append(Option(tuple(action.option_strings), action.help or "", value))
        else:
            values.append(_value(action))
    return Words(name, text, tuple(options), tuple(values))


def _value(action: argparse.Action) -> Value:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.choices is not None:
        return Value(words=tuple(str(choice) for choice in action.choices))
    if action.dest == "strategy":
        from lbproxy.domain import strategies

        return Value(words=strategies.NAMES)
    if action.dest == "listener":
        return Value("listeners")
    if action.dest == "request":
        return Value(words=_METHODS)
    return Value(_BY_METAVAR.get(metavar, ""), tuple(word for word in metavar.split("|") if word.islower()))


# --- scripts ----------------------------------------------------------------------------------------------------------

_BASH: Final = """\
# Completion of lbproxy for bash: source <(lbproxy completion bash)

_lbproxy_reply() {{ # source, words, what is there
    local found item broken
    case $1 in
        files) compopt -o filenames 2>/dev/null; found=$(compgen -f -- "$3") ;;
        ?*) found=$({line}="$COMP_LINE" lbproxy completion "$1" 2>/dev/null | grep -F -- "$3") ;;
    esac
    found+=$'\\n'$(compgen -W "$2" -- "$3")
    broken=${{3%"${{3##*[:=]}}"}} # bash takes what stands before a colon for another word
    while IFS= read -r item; do
        [[ -n $item && $item == "$3"* ]] || continue
        item=${{item#"$broken"}}
        [[ $1 == files ]] || printf -v item %q "$item"
        COMPREPLY+=("$item")
    done <<<"$found"
    [[ $1 == pools ]] && compopt -o nospace 2>/dev/null
    return 0
}}

_lbproxy() {{
    local line=${{COMP_LINE:0:COMP_POINT}} words now before command options sources choices source
    COMPREPLY=()
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    now=${{words[${{#words[@]}} - 1]}}
    if ((${{#words[@]}} <= 2)); then
        _lbproxy_reply files "{commands}" "$now"
        return
    fi
    command=${{words[1]}} before=${{words[${{#words[@]}} - 2]}}
    if [[ $now == --*=* ]]; then
        before=${{now%%=*}} now=${{now#*=}}
    fi
    case $command in
{cases}
        *) sources=files ;;
    esac
    if [[ $now == -* ]]; then
        _lbproxy_reply "" "$options" "$now"
        return
    fi
    for source in ${{sources:-none}}; do
        _lbproxy_reply "${{source#none}}" "$choices" "$now"
        choices=
    done
}}

complete -F _lbproxy lbproxy
"""


def bash(program: Words, found: Sequence[Words]) -> str:
    """The script for bash."""
    names = [command.name for command in found] + [name for option in program.options for name in option.names]
    cases = []
    for command in found:
        lines = [f"        {command.name})", '            case "$before" in']
        for option in command.options:
            if option.value is not None:
                reply = f'_lbproxy_reply "{option.value.source}" "{" ".join(option.value.words)}" "$now"; return'
                lines.append(f"                {'|'.join(option.names)}) {reply} ;;")
        lines.append("            esac")
        lines.append(f'            options="{" ".join(name for option in command.options for name in option.names)}"')
        lines.append(f'            sources="{" ".join(value.source for value in command.values if value.source)}"')
        lines.append(f'            choices="{" ".join(word for value in command.values for word in value.words)}" ;;')
        cases.append("\n".join(line for line in lines))
    text = _BASH.format(line=LINE, commands=" ".join(names), cases="\n".join(cases))
    return text.replace('            case "$before" in\n            esac\n', "")


def zsh(program: Words, found: Sequence[Words]) -> str:
    """The script for zsh."""
    lines = [
        "#compdef lbproxy",
        "# Completion of lbproxy for zsh: source <(lbproxy completion zsh), or a file _lbproxy in the fpath",
        "",
        "_lbproxy_names() {",
        "    local -a names",
        f'    names=(${{(f)"$({LINE}="$_lbproxy_line" lbproxy completion $1 2>/dev/null)"}})',
        '    if [[ $1 == pools ]]; then compadd -S "" -a names; else compadd -a names; fi',
        "}",
        "",
        "_lbproxy() {",
        '    local context state state_descr line _lbproxy_line="${(j: :)words}"',
        "    typeset -A opt_args",
        "    _arguments -C \\",
        *[f"        {spec} \\" for option in program.options for spec in _zsh_specs(option)],
        "        '1: :->command' '*:: :->rest'",
        "    case $state in",
        "        command)",
        "            local -a commands",
        "            commands=(",
        *[f"                {_quoted(f'{command.name}:{command.text}')}" for command in found],
        "            )",
        "            _describe command commands",
        "            _files ;;",
        "        rest)",
        "            case $words[1] in",
    ]
    for command in found:
        values = [f"'*: :{_zsh_values(command.values)}'"] if command.values else []
        specs = [spec for option in command.options for spec in _zsh_specs(option)] + values
        lines.append(f"                {command.name}) _arguments \\")
        lines += [f"                    {spec} \\" for spec in specs]
        lines[-1] = lines[-1].removesuffix(" \\") + " ;;"
    return "\n".join(
        [
            *lines,
            "            esac ;;",
            "    esac",
            "}",
            "",
            'if [[ $funcstack[1] == _lbproxy ]]; then _lbproxy "$@"; else compdef _lbproxy lbproxy; fi',
            "",
        ]
    )


def _zsh_specs(option: Option) -> list[str]:
    text = "".join(f"\\{char}" if char in "[]:\\" else char for char in option.text)
    value = "" if option.value is None else f": :{_zsh_values([option.value])}"
    equals = {name: "=" if value and name.startswith("--") else "" for name in option.names}
    return [_quoted(f"*{name}{equals[name]}[{text}]{value}") for name in option.names]


def _zsh_values(values: Sequence[Value]) -> str:
    """An action of _arguments."""
    parts = []
    words = [word for value in values for word in value.words]
    for source in dict.fromkeys(value.source for value in values if value.source):
        # With a space in front it is called as it is; else options of compadd are put before its argument.
        parts.append("_files" if source == FILES else f" _lbproxy_names {source}")
    if words and not parts:
        return f"({' '.join(words)})"
    if words:
        parts.append(f"compadd {' '.join(words)}")
    return parts[0] if len(parts) == 1 else f"{{{'; '.join(parts)}}}" if parts else " "


def fish(program: Words, found: Sequence[Words]) -> str:
    """The script for fish."""
    lines = [
        "# Completion of lbproxy for fish: lbproxy completion fish | source",
        "",
        "function __lbproxy_command",
        "    set -l words (commandline -opc)",
        '    test (count $words) -ge 2; and test "$words[2]" = "$argv[1]"',
        "end",
        "function __lbproxy_no_command",
        "    test (count (commandline -opc)) -lt 2",
        "end",
        "complete -c lbproxy -f",
        "complete -c lbproxy -n __lbproxy_no_command -F",
        *[_fish_option("__lbproxy_no_command", option) for option in program.options],
    ]
    for command in found:
        is_it = f"__lbproxy_command {command.name}"
        lines.append(f"complete -c lbproxy -n __lbproxy_no_command -a {command.name} -d {_fish_quoted(command.text)}")
        lines += [_fish_option(is_it, option) for option in command.options]
        for value in command.values:
            lines += [f"complete -c lbproxy -n '{is_it}' {words}" for words in _fish_values(value)]
    return "\n".join([*lines, ""])


def _fish_option(condition: str, option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = "" if option.value is None else " -r" if option.value.source == FILES else " -x"
    for words in _fish_values(option.value) if option.value is not None else ():
        value += f" {words}"
    return f"complete -c lbproxy -n '{condition}' {' '.join(names)}{value} -d {_fish_quoted(option.text)}"


def _fish_values(value: Value) -> list[str]:
    found = ["-F"] if value.source == FILES else []
    words = list(value.words)
    if value.source in NAMES:
        words.append(f"({LINE}=(commandline -cp) lbproxy completion {value.source} 2>/dev/null)")
    return [*found, f"-a '{' '.join(words)}'"] if words else found


def _quoted(text: str) -> str:
    """One word of a POSIX shell, whatever is in it."""
    return shlex.quote(text)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- the command ------------------------------------------------------------------------------------------------------


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for one of SHELLS."""
    make = {"bash": bash, "zsh": zsh, "fish": fish}[shell]
    return make(words_of("lbproxy", "", parser), commands(parser))


def names(what: str, status: Mapping[str, object]) -> list[str]:
    """The names of one of NAMES in a status. Those of pools end in a slash, as an address follows."""
    if what == "listeners":
        return [str(item.get("name")) for item in asking.objects(status.get("listeners"))]
    pools = asking.objects(status.get("pools"))
    if what == "pools":
        return [f"{pool.get('name')}/" for pool in pools]
    return [
        f"{pool.get('name')}/{server.get('name')}" for pool in pools for server in asking.objects(pool.get("servers"))
    ]


def with_line(args: argparse.Namespace, line: str) -> argparse.Namespace:
    """The same, with --admin, --token and --config of the line that is being typed where there are none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    asking.add_options(parser)
    words = line.split()
    typed = argparse.Namespace()
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        pair = [option, value] if equals else words[index : index + 2]
        try:
            if option in ("--admin", "--token", "--config", "-c") and len(pair) == 2:
                parser.parse_args([f"{pair[0]}={pair[1]}"] if option != "-c" else pair, typed)
        except argparse.ArgumentError:
            continue  # it is not typed to its end
    for key in ("admin", "token", "config"):
        if getattr(args, key) is None:
            setattr(args, key, getattr(typed, key, None))
    return args


def complete(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.what in SHELLS:
        streams.write(script(args.what, parser))
        return OK
    try:
        address, token = asking.admin_of(with_line(args, os.environ.get(LINE, "")), os.environ)
        status = _client.get_object(address, "/api/v1/status", token=token, timeout_s=args.timeout)
    except (_client.AdminError, ConfigRefused, UsageError):
        return FAILURE  # somebody is typing: a complaint would stand in the middle of their line
    for name in names(args.what, status):
        streams.say(name)
    return OK
