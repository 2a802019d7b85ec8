"""The API's own description: OpenAPI 3.1, made of the operations and the types they speak."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from pylvs import __version__
from pylvs.control.api.answers import Refusal
from pylvs.control.api.handling import Handler

_REF: Final = "#/components/schemas/{name}"
_ADDRESS: Final = r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])"
_NAMES: Final = {
    "service": {
        "type": "string",
        "pattern": rf"^((tcp|udp|sctp):{_ADDRESS}:\d{{1,5}}|mark6?:\d{{1,10}})$",
    },
    "server": {"type": "string", "pattern": rf"^{_ADDRESS}(:\d{{1,5}})?$"},
}
_REFUSALS: Final = {
    "400": "not what this API speaks",
    "404": "what is named does not exist",
    "409": "refused, and nothing has changed",
    "503": "the host does not allow it, or too much is asked at a time",
}


class Operation(NamedTuple):
    """What can be asked: ``bodies`` and ``answer`` are types, ``query`` JSON schemas by name."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: Any
    bodies: tuple[Any, ...] = ()  # one of these
    query: dict[str, dict[str, Any]] = {}
    needs_query: bool = False


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": _NAMES[name]}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    return named + [
        {"name": name, "in": "query", "required": operation.needs_query, "schema": schema}
        for name, schema in operation.query.items()
    ]


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document."""
    listed = list(operations)
    types = [Refusal, *(one.answer for one in listed)]
    types += [body for one in listed for body in one.bodies]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    shown = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in listed:
        told: dict[str, Any] = {
            "summary": one.summary,
            "parameters": _parameters(one),
            "responses": {
                "200": {"description": "done", "content": _content(shown[repr(one.answer)])},
                **{
                    status: {"description": why, "content": _content(shown[repr(Refusal)])}
                    for status, why in _REFUSALS.items()
                },
            },
        }
        if one.bodies:
            any_of = {"anyOf": [shown[repr(body)] for body in one.bodies]}
            told["requestBody"] = {"required": True, "content": _content(any_of)}
        paths.setdefault(one.path, {})[one.method.lower()] = told
    return {
        "openapi": "3.1.0",
        "info": {"title": "pylvs", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }
