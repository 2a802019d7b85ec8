"""Captures: frames from a file, frames into a file (dpkt; pcap and pcapng, Ethernet only)."""

from collections.abc import Iterator
from typing import IO, Any

import dpkt

from pylvs.errors import UsageError


def read(path: str) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds since 1970, frame); raises UsageError when it is no Ethernet capture."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    with file:
        try:
            reader = dpkt.pcap.UniversalReader(file)
        except (ValueError, dpkt.dpkt.Error):
            raise UsageError(f"{path} is not a pcap or pcapng file") from None
        if reader.datalink() != dpkt.pcap.DLT_EN10MB:
            raise UsageError(
                f"{path} has link type {reader.datalink()}; only Ethernet captures can be replayed"
            )
        frames = iter(reader)
        while True:
            try:
                seconds, frame = next(frames)
            except StopIteration:
                return
            except dpkt.dpkt.Error as error:
                raise UsageError(f"{path} ends in the middle of a record: {error}") from None
            yield float(seconds), bytes(frame)


class Writer:
    """A capture being written; microsecond time stamps."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer: Any = dpkt.pcap.Writer(file)

    def write(self, seconds: float, frame: bytes) -> None:
        self._writer.writepkt(frame, ts=seconds)
