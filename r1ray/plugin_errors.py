"""Exceptions of plug-ins: where they were raised, and whether the plug-in's own code or the infrastructure is at fault.

A bug fails again on every worker, a server that is down works again later, so the two are handled differently. What decides is
where an exception comes from, never its class alone or the name of the reward that raised it. An infrastructure failure is

    a system call on a connection that failed (an OSError that names no file), below a library or directly: a refused connection,
    a timeout, a full disk; also as the cause of a library's own exception
    a server's answer 408, 425, 429 or 5xx, in whatever exception a client library puts it
    an exception of the sandbox or of Ray

Everything else is the plug-in's own, also `raise ConnectionError(...)` in its own file.
"""

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import unwrap
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, cast

OURS = str(Path(__file__).parent) + "/"
LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "purelib", "platlib")})
INFRASTRUCTURE = ("r1ray.sandbox.", "ray.")
"""Prefixes of modules whose exceptions are failures of the infrastructure."""
RETRYABLE = (408, 425, 429)
"""HTTP answers below 500 after which the same request may work later."""
MAX_MESSAGE, MAX_TRACEBACK = 500, 8000
MAX_CHAIN = 20


class PluginFailed(RuntimeError):
    """A plug-in's own code failed. Its traceback has been printed; the message has the cause, the place and the remedy."""


@contextmanager
def failing_as_plugin(what: str, *, say: Callable[[str], object] = print) -> Iterator[None]:
    """Print the traceback of an exception of a plug-in at once, and raise PluginFailed.

    Args:
        what: the plug-in and its method, for the message: "algo.name=my_algorithms:Mine (advantages)".
    """
    try:
        yield
    except PluginFailed:
        raise
    except Exception as error:
        say(f"r1ray: {what} failed:\n{traceback_of(error)}")
        raise PluginFailed(
            f"{what} failed: {message_of(error)} ({place_of(error)}). Correct it and start again; with resume=auto the run "
            "continues from its last checkpoint"
        ) from error


def users_traceback(error: BaseException) -> str | None:
    """The traceback of an exception that ends the run, where it leads through a file of the user's, also in a worker.

    None for PluginFailed, whose traceback has been printed.
    """
    for one in () if isinstance(error, PluginFailed) else _chain(error):
        remote = getattr(one, "traceback_str", None)  # Ray's, of the worker
        if isinstance(remote, str) and any(map(_is_users_file, re.findall(r'File "([^"]+)", line', remote))):
            return remote.rstrip()
        if any(is_users(frame) for frame, _ in _frames(one)):
            return traceback_of(one)
    return None


def message_of(error: BaseException) -> str:
    """Class and text in one line: "NameError: name 'lenght' is not defined"."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}"[:MAX_MESSAGE] if text else type(error).__name__


def place_of(error: BaseException) -> str:
    """The innermost line of the user's own files, else of any file: "my_rewards.py:12 in brief"."""
    frames = list(_frames(error))
    if not frames:
        return "place unknown"
    frame, line = next((found for found in reversed(frames) if is_users(found[0])), frames[-1])
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def definition_of(function: Any) -> str:
    """Where a function is defined, in the same form."""
    while isinstance(function, partial):
        function = function.func
    function = unwrap(function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code else repr(function)[:100]


def traceback_of(error: BaseException) -> str:
    """The traceback from the user's first file on; the whole one where there is none. Long ones are cut in the middle."""
    start = error.__traceback__
    while start and not is_users(start.tb_frame):
        start = start.tb_next
    lines = traceback.format_exception(type(error), error, start or error.__traceback__, chain=start is None)
    text = "".join(lines).rstrip()
    half = MAX_TRACEBACK // 2
    return text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n  ...\n{text[-half:]}"


def is_users(frame: FrameType) -> bool:
    """Whether a frame runs a file that belongs neither to r1ray nor to an installed library."""
    return _is_users_file(frame.f_code.co_filename)


def _is_users_file(name: str) -> bool:
    return not name.startswith((OURS, *LIBRARIES, "<")) and "/site-packages/" not in name


def is_outage(error: BaseException) -> bool:
    """Whether the infrastructure is at fault (see above): it may work later, or elsewhere."""
    for one in _chain(error):
        if (code := _http_status(one)) is not None:
            return code >= 500 or code in RETRYABLE
        frame = next(iter(reversed(list(_frames(one)))), (None, 0))[0]
        if frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(INFRASTRUCTURE):
            return True
        by_library = frame is not None and not is_users(frame)
        system_call = isinstance(one, OSError) and not isinstance(one, ValueError) and one.filename is None
        if system_call and (by_library or cast("OSError", one).errno is not None):
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it, outermost first; of a group every member."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < MAX_CHAIN:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += islice(one.exceptions, MAX_CHAIN)
        cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        waiting += [cause] if cause else []


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """(frame, line), the innermost last."""
    return traceback.walk_tb(error.__traceback__)


def _http_status(error: BaseException) -> int | None:
    """The status of a server's answer, where client libraries keep it: requests, httpx, aiohttp, urllib, openai."""
    if not isinstance(error, Exception):
        return None
    for holder in (getattr(error, "response", None), error):
        for name in ("status_code", "status", "code"):
            code = getattr(holder, name, None)
            if isinstance(code, int) and 400 <= code < 600:
                return code
    return None
