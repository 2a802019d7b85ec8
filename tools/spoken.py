"""A guest whose ipvsadm is a program of its own, speaking to this process over a control socket."""

import asyncio
import pathlib
import subprocess
import sys
import tempfile
import threading

from pylvs.control.api.events import Events
from pylvs.control.api.resources import Resources
from pylvs.control.api.server import Api
from pylvs.control.changes import Changer
from pylvs.control.ipvsadm.executor import Executor
from tools.guest import INTERFACES, Guest, Result

_ANSWER_S = 60
_IPVSADM = (sys.executable, "-m", "pylvs", "ipvsadm", "--control")


class SpokenGuest(Guest):
    """The director of a guest, as ``pylvs ipvsadm`` finds one: behind a control socket."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = pathlib.Path(self._folder.name) / "control"
        events = Events()
        changer = Changer(self.manager, tell=events.tell)
        executor = Executor(self.manager, changer=changer, interfaces=lambda: INTERFACES)
        resources = Resources(self.manager, changer=changer)
        self._api = Api(self._path, executor, resources, events)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._api.serve()), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._api.stop()
        self._thread.join(_ANSWER_S)
        self._api.close()
        self._folder.cleanup()

    def _ipvsadm(self, words: list[str], text: str) -> Result:
        spoken = subprocess.run(
            [*_IPVSADM, str(self._path), *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        )
        return Result(spoken.returncode, spoken.stdout, spoken.stderr)
