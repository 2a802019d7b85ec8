"""A stream of what changes, for whoever keeps a connection open (server-sent events).

    event: changes
    data: {"changes": ["-A -t 192.0.2.10:80 -s wrr"]}

A listener who does not keep up is let go, and sees that its stream has ended.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Final

from pylvs.control.ipvsadm import render
from pylvs.control.model import Command

_WAITING_LIMIT: Final = 1_000  # events
_BEAT_S: Final = 15.0  # a comment this often keeps a stream alive


class Events:
    """Hands on, to every listener, what a thread tells."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[str], asyncio.AbstractEventLoop] = {}

    def tell(self, commands: Sequence[Command]) -> None:
        """Tell of changes that were carried out; from any thread."""
        if not commands or not self._listeners:
            return
        changes = [render.command(one) for one in commands]
        text = f"event: changes\ndata: {json.dumps({'changes': changes})}\n\n"
        for queue, loop in list(self._listeners.items()):
            loop.call_soon_threadsafe(self._put, queue, text)

    def _put(self, queue: asyncio.Queue[str], text: str) -> None:
        try:
            queue.put_nowait(text)
        except asyncio.QueueFull:
            self._listeners.pop(queue, None)

    async def listen(self) -> AsyncIterator[str]:
        """Yield the stream of one listener."""
        queue: asyncio.Queue[str] = asyncio.Queue(_WAITING_LIMIT)
        self._listeners[queue] = asyncio.get_running_loop()
        try:
            yield ": listening\n\n"
            while queue in self._listeners or not queue.empty():
                try:
                    yield await asyncio.wait_for(queue.get(), _BEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.pop(queue, None)
