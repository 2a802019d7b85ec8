"""One request, as whoever answers it sees it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pylvs.errors import UsageError


class Asked(NamedTuple):
    """What a request's path and query name, and its body."""

    path: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes = b""


class NotFoundError(UsageError):
    """What a request names does not exist."""


class MalformedError(UsageError):
    """A request is not what the API speaks; one that is, and cannot be had, is a UsageError."""


Handler = Callable[[Asked], Any]
