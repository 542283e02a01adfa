"""Strategies that lbproxy did not bring: a class in a file, in a module, or offered by an installed package.

A plug-in is a class `Class(options, rng)` with `rebuild(servers)` and `pick(eligible, ctx, now)`
(docs/strategies.md). All that can be found wrong without traffic is found here, at start, and told in one sentence; a
plug-in that fails later is the pool's business. Loading runs the plug-in's code: whoever may write the config may run
code as lbproxy.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final, cast

from lbproxy.domain.strategies.base import Strategy
from lbproxy.request_key import FORMS, read_key

GROUP: Final = "lbproxy.strategies"


class PluginError(ValueError):
    """A plug-in cannot be used; the message says which, why and what to do."""


def load_python(reference: str, options: Mapping[str, object], rng: random.Random, *, base_dir: str) -> Strategy:
    """A strategy from `module:Class` or `file.py:Class`; a relative file is looked up in `base_dir`.

    Raises PluginError. A file is read again each time, so that a reload takes up its changes; a module is imported once
    per process.
    """
    place, colon, name = reference.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise PluginError(f"strategy {reference!r}: write module:Class or file.py:Class")
    is_file = place.endswith(".py") or "/" in place
    module = _load_file(reference, Path(base_dir, place)) if is_file else _import(reference, place)
    return _construct(reference, _attribute(reference, module, name), options, rng)


def load_entry_point(name: str, options: Mapping[str, object], rng: random.Random) -> Strategy:
    """A strategy that an installed package offers under `lbproxy.strategies`. Raises PluginError."""
    points = {(point.name, point.value): point for point in entry_points(group=GROUP)}  # a package may be found twice
    found = [point for point in points.values() if point.name == name]
    if not found:
        offered = sorted({point.name for point in points.values()})
        from difflib import get_close_matches  # 0.7 MB that only a mistake needs

        close = get_close_matches(name, offered, n=1)
        hint = (
            f"; did you mean {close[0]!r}?" if close else f" (installed packages offer: {', '.join(offered) or 'none'})"
        )
        raise PluginError(f"there is no strategy {name!r}{hint}")
    if len(found) > 1:
        values = " and ".join(sorted(point.value for point in found))
        raise PluginError(f"strategy {name!r} is offered more than once ({values}); name one as `python: module:Class`")
    label = f"{name} ({found[0].value})"
    try:
        factory = found[0].load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"strategy {label!r} cannot be imported: {_describe(error)}") from error
    return _construct(label, factory, options, rng)


def _load_file(reference: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"strategy {reference!r}: there is no file {path}")
    # Two files of one name must not meet in sys.modules, where dataclasses and pickle look modules up.
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
    name = f"lbproxy_strategy_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"strategy {reference!r}: {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        # Not exec_module: it would believe a cached .pyc that is as old, to the second, as a file just written.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise PluginError(f"strategy {reference!r} cannot be loaded: {_describe(error)}") from error
    return module


def _import(reference: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            hint = "install it beside lbproxy, put its directory on PYTHONPATH, or write file.py:Class"
            raise PluginError(f"strategy {reference!r}: there is no module {missing!r}; {hint}") from error
        raise PluginError(f"strategy {reference!r} cannot be imported: {_describe(error)}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"strategy {reference!r} cannot be imported: {_describe(error)}") from error


def _attribute(reference: str, module: ModuleType, name: str) -> object:
    try:
        return cast(object, getattr(module, name))
    except AttributeError:
        own = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        from difflib import get_close_matches  # 0.7 MB that only a mistake needs

        close = get_close_matches(name, own, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"classes there: {', '.join(own) or 'none'}"
        raise PluginError(
            f"strategy {reference!r}: no {name!r} in {module.__file__ or module.__name__}; {hint}"
        ) from None


def _construct(label: str, factory: object, options: Mapping[str, object], rng: random.Random) -> Strategy:
    if not isinstance(factory, type):
        raise PluginError(f"strategy {label!r} is not a class")
    _check_call(label, factory, "the constructor", "(options, rng)", ({}, rng))
    try:
        instance: object = factory(options, rng)
    except (Exception, SystemExit) as error:
        # A ValueError is meant for the user: an option is unknown or out of range.
        told = str(error) if type(error) is ValueError else _describe(error)
        raise PluginError(f"strategy {label!r}: {told}") from error
    _check_call(label, getattr(instance, "rebuild", None), "rebuild", "(servers)", ((),))
    _check_call(label, getattr(instance, "pick", None), "pick", "(eligible, ctx, now)", ((), None, 0.0))
    _default_hash_on(label, instance)
    return cast(Strategy, instance)


def _check_call(label: str, function: object, name: str, parameters: str, arguments: tuple[object, ...]) -> None:
    """Complain unless `function` can be called, at once and not as a coroutine, with these arguments."""
    if not callable(function):
        raise PluginError(f"strategy {label!r} has no method {name}{parameters}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise PluginError(f"strategy {label!r}: {name} must be a plain function, without async or yield")
    try:
        signature = inspect.signature(cast(Callable[..., object], function))
    except (TypeError, ValueError):
        return  # written in C without a signature: the first call will tell
    try:
        signature.bind(*arguments)
    except TypeError:
        raise PluginError(f"strategy {label!r}: {name} must take {parameters}, it takes {signature}") from None


def _default_hash_on(label: str, instance: object) -> None:
    """A plug-in that does not hash need not say so."""
    if not hasattr(instance, "hash_on"):
        try:
            instance.hash_on = ""  # type: ignore[attr-defined]
        except AttributeError:
            raise PluginError(
                f'strategy {label!r} has __slots__ and no hash_on; add `hash_on = ""` to the class'
            ) from None
    hash_on = getattr(instance, "hash_on", None)
    if not isinstance(hash_on, str):
        raise PluginError(f"strategy {label!r}: hash_on must be text: nothing, {FORMS}")
    try:
        if hash_on:
            read_key(hash_on)
    except ValueError as error:
        raise PluginError(f"strategy {label!r}: hash_on: {error}") from None


def _describe(error: BaseException) -> str:
    """`ValueError: text (file.py:7)`, with the place in the plug-in where it happened."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
