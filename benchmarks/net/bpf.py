"""As much of bpf(2) as a generator of frames needs: assemble, load, run (linux/bpf.h)."""

import ctypes
import os
import struct
from typing import Final, NamedTuple

_SYSCALL: Final = 321  # x86-64
_PROG_LOAD, _PROG_TEST_RUN = 5, 10
_XDP: Final = 6  # BPF_PROG_TYPE_XDP
_LIVE_FRAMES: Final = 2  # BPF_F_TEST_XDP_LIVE_FRAMES
_XDP_TX: Final = 3
_RANDOM: Final = 7  # BPF_FUNC_get_prandom_u32
_LOG_SIZE: Final = 1 << 16
_BATCH: Final = 64

_LOAD_WORD: Final = 0x61  # dst = *(u32 *)(src + offset)
_STORE_WORD: Final = 0x62  # *(u32 *)(dst + offset) = immediate
_STORE_HALF: Final = 0x6A
_STORE_HALF_REGISTER: Final = 0x6B  # *(u16 *)(dst + offset) = src
_MOVE: Final = 0xBF
_MOVE_IMMEDIATE: Final = 0xB7
_ADD_IMMEDIATE: Final = 0x07
_XOR_IMMEDIATE: Final = 0xA7
_SHIFT_RIGHT: Final = 0x77
_JUMP_GREATER: Final = 0x2D  # if dst > src
_CALL: Final = 0x85
_EXIT: Final = 0x95
_FRAME, _SCRATCH, _END, _REST, _CHANCE = 6, 2, 3, 7, 0  # registers


class Spread(NamedTuple):
    """A place in a frame that gets 16 random bits, and where they are taken off again.

    What stands there is all ones less the bits, so that checksums over both stay right.
    """

    place: int
    taken_off: tuple[int, ...]


def _instruction(
    code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0
) -> bytes:
    return struct.pack("<BBhi", code, to | source << 4, offset, number)


def _word(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def assemble(frame: bytes, spreads: tuple[Spread, ...]) -> bytes:
    """Return a program that writes ``frame``, whatever was made of it before, and sends it.

    Of spreads there may be two: there are 32 random bits.
    """
    assert len(frame) % 2 == 0
    program = [
        _instruction(_LOAD_WORD, _FRAME, 1, 0),  # xdp_md.data
        _instruction(_LOAD_WORD, _END, 1, 4),  # xdp_md.data_end
        _instruction(_MOVE, _SCRATCH, _FRAME),
        _instruction(_ADD_IMMEDIATE, _SCRATCH, number=len(frame)),
        _instruction(_JUMP_GREATER, _SCRATCH, _END, 1),
    ]
    body = []
    for at in range(0, len(frame) & ~3, 4):
        (number,) = struct.unpack("<I", frame[at : at + 4])
        body.append(_instruction(_STORE_WORD, _FRAME, offset=at, number=_word(number)))
    if len(frame) % 4:
        at = len(frame) & ~3
        (number,) = struct.unpack("<H", frame[at:])
        body.append(_instruction(_STORE_HALF, _FRAME, offset=at, number=number))
    if spreads:
        body.append(_instruction(_CALL, number=_RANDOM))
    for place, taken_off in spreads:
        body.append(_instruction(_STORE_HALF_REGISTER, _FRAME, _CHANCE, place))
        body.append(_instruction(_MOVE, _REST, _CHANCE))
        body.append(_instruction(_XOR_IMMEDIATE, _REST, number=0xFFFF))
        body += [_instruction(_STORE_HALF_REGISTER, _FRAME, _REST, at) for at in taken_off]
        body.append(_instruction(_SHIFT_RIGHT, _CHANCE, number=16))
    leave = [_instruction(_MOVE_IMMEDIATE, 0, number=_XDP_TX), _instruction(_EXIT)]
    abort = [_instruction(_MOVE_IMMEDIATE, 0, number=1), _instruction(_EXIT)]  # XDP_DROP
    return b"".join([*program, _instruction(0x05, offset=2), *abort, *body, *leave])


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(_SYSCALL, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def load(program: bytes) -> int:
    """Return a descriptor of a loaded program; raises OSError with what the verifier said."""
    code = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"MIT")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attributes = struct.pack(
        "<IIQQIIQ",
        _XDP,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_text),
        1,
        _LOG_SIZE,
        ctypes.addressof(log),
    )
    try:
        return _call(_PROG_LOAD, attributes)
    except OSError as error:
        said = log.value.decode(errors="replace").strip()
        raise OSError(error.errno, f"{error.strerror}: {said}") from None


class Sender:
    """Has the kernel send what a program writes, by an interface, as often as is asked for."""

    def __init__(self, descriptor: int, interface: int, size: int) -> None:
        self._frame = ctypes.create_string_buffer(size)
        # xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        self._context = ctypes.create_string_buffer(struct.pack("<6I", 0, size, 0, interface, 0, 0))
        self._descriptor = descriptor
        self._size = size

    def send(self, count: int) -> None:
        """Send frames; raises OSError."""
        attributes = struct.pack(
            "<IIIIQQIIIIQQIII",
            self._descriptor,
            0,
            self._size,
            0,
            ctypes.addressof(self._frame),
            0,
            count,
            0,
            24,
            0,
            ctypes.addressof(self._context),
            0,
            _LIVE_FRAMES,
            0,
            _BATCH,
        )
        _call(_PROG_TEST_RUN, attributes)
