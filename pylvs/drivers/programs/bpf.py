"""BPF: programs assembled in Python, loaded, run and attached.  No compiler, no library.

    Program().load(4, R2, R1).jump_if("!=", R2, 1, "pass")...label("pass").set(R0, PASS).exit()

Sources: linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst, x86-64's numbers.
"""

import contextlib
import ctypes
import os
import struct
from typing import Final, Self

# fmt: off
R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME_POINTER = range(11)

# What a program of type XDP answers, and what it is given (struct xdp_md).
XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4
CONTEXT_BEGIN, CONTEXT_END, CONTEXT_QUEUE = 0, 4, 16
_CONTEXT_SIZE: Final = 24
# Likewise of one that comes later, when packet sockets have their copy (struct __sk_buff).
TC_NEXT, TC_DROP, TC_REDIRECT = -1, 2, 7
TC_CONTEXT_SIZE, TC_CONTEXT_KIND, TC_CONTEXT_PROTOCOL, TC_CONTEXT_TAGGED = 0, 4, 16, 20
TC_CONTEXT_BEGIN, TC_CONTEXT_END, TC_CONTEXT_SEGMENT_SIZE = 76, 80, 176
KIND_HOST: Final = 0  # PACKET_HOST

# Helpers.
MAP_LOOKUP: Final = 1
MAP_UPDATE: Final = 2
TIME_NS: Final = 5
RANDOM_U32: Final = 7
PROCESSOR: Final = 8
MEND_CHECKSUM: Final = 11  # bpf_l4_csum_replace; that which follow are its flags
PSEUDO_HEADER, ZERO_IS_NONE = 0x10, 0x20
REDIRECT: Final = 23
INWARDS: Final = 1  # as if the interface had received it
LOAD_BYTES: Final = 26
CHANGE_TAIL: Final = 38
PULL_DATA: Final = 39
MOVE_BEGIN: Final = 44  # bpf_xdp_adjust_head
SET_HASH: Final = 48
RESIZE: Final = 50  # bpf_skb_adjust_room; then where, and what it is for
BEHIND_ETHERNET: Final = 1
FOR_OUTER: Final = {4: 0x02, 6: 0x04}
FOR_INNER: Final = {4: 0x80, 6: 0x100}  # what is left when room is taken away
REDIRECT_MAP: Final = 51
MOVE_END: Final = 65  # bpf_xdp_adjust_tail
LOAD_BYTES_FROM: Final = 68  # bpf_skb_load_bytes_relative; then where from
FROM_NETWORK_HEADER: Final = 1
COARSE_TIME_NS: Final = 160
XDP_LENGTH: Final = 188
XDP_LOAD_BYTES: Final = 189

HASH, ARRAY, ARRAY_A_CPU, RECENT, SOCKETS = 1, 2, 6, 9, 17  # types of maps; RECENT forgets the rest
_NO_PREALLOCATION: Final = 1
_SHARED: Final = 1 << 10  # BPF_F_MMAPABLE

_SYSCALL: Final = 321
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_PROGRAM_LOAD, _PROGRAM_RUN, _LINK_CREATE = 5, 10, 28
TYPE_SOCKET, TYPE_TC, TYPE_XDP = 1, 3, 6
_ATTACHES: Final = {TYPE_TC: 46, TYPE_XDP: 37}  # BPF_TCX_INGRESS, BPF_XDP
AHEAD: Final = 8  # BPF_F_BEFORE: of all other programs, for TC
_LIVE_FRAMES: Final = 2
_LIVE_BATCH: Final = 64
_LOG_SIZE: Final = 1 << 16
ATTACH_GENERIC, ATTACH_NATIVE = 2, 4  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE

_SIZES: Final = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}
_LOAD, _STORE_NUMBER, _STORE, _MEMORY, _ATOMIC = 0x01, 0x02, 0x03, 0x60, 0xC0
_EXCHANGE: Final = 0xF1  # BPF_CMPXCHG
_JUMP, _ARITHMETIC, _REGISTER = 0x05, 0x07, 0x08
_CODES: Final = (0x00, 0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xB0)
_SIGNS: Final = ("+", "-", "*", "|", "&", "<<", ">>", "%", "^", "=")
_SWAP: Final = 0xDC  # BPF_END, to big-endian
_OPERATORS: Final = dict(zip(_SIGNS, _CODES, strict=True))
_CONDITIONS: Final = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<=": 0xB0}
_CALL, _EXIT, _LOAD_MAP = 0x85, 0x95, 0x18
_PSEUDO_MAP: Final = 1
# fmt: on


class Program:
    """Instructions, one a call; jumps name labels that come later."""

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._jumps: list[tuple[int, str]] = []
        self._labels: dict[str, int] = {}

    def _put(
        self, code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0
    ) -> Self:
        signed = (number + (1 << 31)) % (1 << 32) - (1 << 31)
        self._code.append(struct.pack("<BBhi", code, to | source << 4, offset, signed))
        return self

    def load(self, size: int, to: int, source: int, offset: int = 0) -> Self:
        """to = the ``size`` bytes at source + offset, as the machine orders them."""
        return self._put(_LOAD | _MEMORY | _SIZES[size], to, source, offset)

    def store(self, size: int, to: int, offset: int, source: int) -> Self:
        return self._put(_STORE | _MEMORY | _SIZES[size], to, source, offset)

    def store_number(self, size: int, to: int, offset: int, number: int) -> Self:
        return self._put(_STORE_NUMBER | _MEMORY | _SIZES[size], to, 0, offset, number)

    def compute(self, to: int, operator: str, number: int) -> Self:
        """to = to operator number, of 64 bits; ``=`` sets it."""
        return self._put(_ARITHMETIC | _OPERATORS[operator], to, number=number)

    def compute_with(self, to: int, operator: str, source: int) -> Self:
        return self._put(_ARITHMETIC | _REGISTER | _OPERATORS[operator], to, source)

    def set(self, to: int, number: int) -> Self:
        return self.compute(to, "=", number)

    def copy(self, to: int, source: int) -> Self:
        return self.compute_with(to, "=", source)

    def add_to(self, size: int, to: int, offset: int, source: int) -> Self:
        """The 4 or 8 bytes at to + offset += source, whoever else does so at the time."""
        return self._put(_STORE | _ATOMIC | _SIZES[size], to, source, offset)

    def exchange(self, size: int, to: int, offset: int, source: int) -> Self:
        """If the 4 or 8 bytes at to + offset are what R0 is, they = source; R0 = what they were."""
        return self._put(_STORE | _ATOMIC | _SIZES[size], to, source, offset, _EXCHANGE)

    def swap(self, register: int, bits: int) -> Self:
        """Turn the register's low bits, as they were loaded, from the network's order."""
        return self._put(_SWAP, register, number=bits)

    def set_wide(self, to: int, number: int) -> Self:
        """to = a number of 64 bits."""
        self._put(_LOAD_MAP, to, number=number & 0xFFFF_FFFF)
        return self._put(0, number=number >> 32 & 0xFFFF_FFFF)

    def load_map(self, to: int, descriptor: int) -> Self:
        return self._put(_LOAD_MAP, to, _PSEUDO_MAP, 0, descriptor)._put(0)

    def look_up(self, known: int, at: int) -> Self:
        """R0 = where the value of the key at that place on the stack is in a map, or 0.

        Registers up to R5 are lost, as by every call.
        """
        self.copy(R2, FRAME_POINTER).compute(R2, "+", at).load_map(R1, known)
        return self.call(MAP_LOOKUP)

    def call(self, helper: int) -> Self:
        return self._put(_CALL, number=helper)

    def exit(self) -> Self:
        return self._put(_EXIT)

    def jump(self, label: str) -> Self:
        self._jumps.append((len(self._code), label))
        return self._put(_JUMP)

    def jump_if(self, register: int, condition: str, number: int, label: str) -> Self:
        self._jumps.append((len(self._code), label))
        return self._put(_JUMP | _CONDITIONS[condition], register, number=number)

    def jump_if_register(self, register: int, condition: str, other: int, label: str) -> Self:
        self._jumps.append((len(self._code), label))
        return self._put(_JUMP | _REGISTER | _CONDITIONS[condition], register, other)

    def label(self, name: str) -> Self:
        assert name not in self._labels
        self._labels[name] = len(self._code)
        return self

    def assemble(self) -> bytes:
        """Return the instructions, eight bytes each."""
        code = list(self._code)
        for at, label in self._jumps:
            distance = struct.pack("<h", self._labels[label] - at - 1)
            code[at] = code[at][:2] + distance + code[at][4:]
        return b"".join(code)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(_SYSCALL, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def load(program: bytes, kind: int = TYPE_XDP) -> int:
    """Return a descriptor of a loaded program; raises OSError with what the verifier said."""
    code = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"MIT")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    places = [ctypes.addressof(one) for one in (code, license_text, log)]
    request = struct.pack("<IIQQ", kind, len(program) // 8, *places[:2])
    try:
        return _call(_PROGRAM_LOAD, request)
    except OSError as error:
        refusal = error
    with contextlib.suppress(OSError):
        os.close(_call(_PROGRAM_LOAD, request + struct.pack("<IIQ", 1, _LOG_SIZE, places[2])))
    said = log.value.decode(errors="replace").strip()
    raise OSError(refusal.errno, f"{refusal.strerror}: {said}" if said else refusal.strerror)


def attach(program: int, interface: int, kind: int = TYPE_XDP, how: int = 0) -> int:
    """Have an interface run a program for what it receives, until the descriptor returned closes.

    ``how`` is ``ATTACH_NATIVE`` or ``ATTACH_GENERIC`` for XDP's, ``AHEAD`` for one of tcx that is
    to come first.  Raises OSError.
    """
    return _call(_LINK_CREATE, struct.pack("<IIII", program, interface, _ATTACHES[kind], how))


class Map:
    """A table shared with programs; keys and values are bytes of stated sizes.

    One that is ``shared`` may be mapped into memory.
    """

    def __init__(
        self, kind: int, key_size: int, value_size: int, capacity: int, shared: bool = False
    ) -> None:
        how = _NO_PREALLOCATION if kind == HASH else _SHARED if shared else 0
        request = struct.pack("<IIIII", kind, key_size, value_size, capacity, how)
        self.descriptor = _call(_MAP_CREATE, request)
        self._value_size = value_size

    def _do(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        place = ctypes.create_string_buffer(key, len(key))
        there = ctypes.addressof(value) if value is not None else 0
        _call(command, struct.pack("<IIQQQ", self.descriptor, 0, ctypes.addressof(place), there, 0))

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._do(_MAP_UPDATE, key, ctypes.create_string_buffer(value, self._value_size))

    def __getitem__(self, key: bytes) -> bytes:
        value = ctypes.create_string_buffer(self._value_size)
        try:
            self._do(_MAP_LOOKUP, key, value)
        except FileNotFoundError:
            raise KeyError(key) from None
        return value.raw

    def __delitem__(self, key: bytes) -> None:
        try:
            self._do(_MAP_DELETE, key, None)
        except FileNotFoundError:
            raise KeyError(key) from None

    def close(self) -> None:
        os.close(self.descriptor)


class LiveFrames:
    """Has the kernel run a program on frames of its own, which the program may have it send."""

    def __init__(self, program: int, interface: int, size: int) -> None:
        self._frame = ctypes.create_string_buffer(size)
        self._context = ctypes.create_string_buffer(struct.pack("<6I", 0, size, 0, interface, 0, 0))
        self._program = program
        self._size = size

    def run(self, count: int) -> None:
        """Run the program so often; raises OSError."""
        frame, context = ctypes.addressof(self._frame), ctypes.addressof(self._context)
        words = (self._program, 0, self._size, 0, frame, 0, count, 0, _CONTEXT_SIZE, 0, context, 0)
        layout = "<IIIIQQIIIIQQIII"
        _call(_PROGRAM_RUN, struct.pack(layout, *words, _LIVE_FRAMES, 0, _LIVE_BATCH))
