"""Speaks to the director of this network namespace; as a program it is ``ipvsadm``.

    python -m pylvs.control.client [--control PATH] -Ln

Imports next to nothing: scripts call it a thousand times.
"""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pylvs.control.ipvsadm.usage import HELP
from pylvs.control.network.instance import find_control
from pylvs.errors import HostError, UsageError

_CANNOT: Final = 2
_CHUNK: Final = 1 << 16
_NO_DIRECTOR: Final = (
    "Can't initialize ipvs: no director runs in this network namespace\n"
    "Start one, as in: pylvs run --iface eth0\n"
)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def exchange(path: pathlib.Path, method: str, where: str, body: str = "") -> tuple[int, Any]:
    """Return the HTTP status of one request, and its answer; raises OSError, ValueError."""
    with contextlib.closing(_Connection(path)) as connection:
        connection.request(method, where, body.encode())
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def speak(method: str, where: str, body: str = "", control: str | None = None) -> Any:
    """Return a running director's answer; raises HostError, and UsageError if it refuses."""
    try:
        path = pathlib.Path(control) if control else find_control()
        status, answer = exchange(path, method, where, body)
    except (FileNotFoundError, ConnectionRefusedError):
        raise HostError(
            "no director runs in this network namespace; start one, as in: pylvs run --iface eth0"
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HostError(f"the director cannot be reached: {error}") from None
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise HostError(answer["error"].strip())
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise UsageError(answer["error"].strip())
    if status != http.HTTPStatus.OK:
        raise HostError(f"the director answers with HTTP status {status}")
    return answer


def _carry_out(path: pathlib.Path, words: list[str], texts: Iterable[str]) -> int:
    """Print what a command line says, and return its exit status; raises OSError.

    ``texts`` is what it reads, piece by piece: lines take effect as they come.
    """
    status = 0
    for text in texts:  # each by a connection of its own: the next may be long in coming
        _, answer = exchange(path, "POST", "/ipvsadm", json.dumps({"words": words, "text": text}))
        sys.stdout.write(answer.get("output", ""))
        sys.stderr.write(answer["error"])
        told = answer.get("status", _CANNOT)
        if told or text.strip():  # blank lines say nothing of those before
            status = told
        if answer.get("ended", True) or (told and not text):
            break
    return status


def _pieces(file: int) -> Iterator[str]:
    """Yield whole lines of a file as they can be had, and at first nothing: are the words right?"""
    yield ""
    rest = b""
    while chunk := os.read(file, _CHUNK):
        lines, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            yield (lines + end).decode()
    if rest:
        yield rest.decode()


def main(words: list[str] | None = None) -> int:
    """Carry out one command line and return its exit status."""
    words = list(sys.argv[1:] if words is None else words)
    if words in (["-h"], ["--help"]):  # also where no director runs yet
        sys.stdout.write(HELP)
        return 0
    try:
        path = _take_control(words)
        return _carry_out(path, words, _pieces(sys.stdin.fileno()) if _reads(words) else [""])
    except (FileNotFoundError, ConnectionRefusedError):
        sys.stderr.write(_NO_DIRECTOR)
        return _CANNOT
    except PermissionError:
        sys.stderr.write("Can't initialize ipvs: Permission denied (you must be root)\n")
        return _CANNOT
    except (OSError, ValueError, http.client.HTTPException, HostError) as problem:
        sys.stderr.write(f"Can't initialize ipvs: {problem}\n")
        return _CANNOT


def _take_control(words: list[str]) -> pathlib.Path:
    """Take ``--control PATH`` from the front of the words, and return whom to speak to."""
    if words and words[0].startswith("--control="):
        return pathlib.Path(words.pop(0).partition("=")[2])
    if len(words) > 1 and words[0] == "--control":
        del words[0]
        return pathlib.Path(words.pop(0))
    return find_control()


def _reads(words: list[str]) -> bool:
    return bool(words) and (words[0] == "--restore" or words[0].startswith("-R"))


if __name__ == "__main__":
    sys.exit(main())
