"""Privileges given up, and the service manager told."""

import socket
import subprocess
import sys

from pylvs.control.network import system

SCRIPT = """
from pylvs.control.network import system
before = system.capabilities()
system.keep_capabilities()
print(sorted(before & {12, 13}), sorted(system.capabilities()))
system.keep_capabilities((13,))
print(sorted(system.capabilities()))
"""


def test_all_capabilities_but_the_needed_are_given_up():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    had = first.partition("] ")[0] + "]"
    assert first == f"{had} {had}"
    assert second in ("[13]", "[]")


def test_the_service_manager_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    system.notify("READY=1")  # nobody asked
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        system.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0pylvs-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@pylvs-test-notify")
        system.notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"
