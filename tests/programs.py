"""BPF programs run by the kernel on frames of ours, once, with nothing attached."""

import ctypes
import os
import struct

_SYSCALL, _RUN = 321, 10
_GROWTH = 64  # a tunnel's headers


def run(program, frame):
    """Return what a loaded program answers to a frame, and what it made of it."""
    library = ctypes.CDLL(None, use_errno=True)
    data = ctypes.create_string_buffer(frame, len(frame))
    made = ctypes.create_string_buffer(len(frame) + _GROWTH)
    places = ctypes.addressof(data), ctypes.addressof(made)
    request = struct.pack("<IIIIQQ", program, 0, len(frame), len(made), *places)
    buffer = ctypes.create_string_buffer(request, 128)
    assert library.syscall(_SYSCALL, _RUN, buffer, 128) == 0, os.strerror(ctypes.get_errno())
    answer, _, size = struct.unpack_from("<iII", buffer.raw, 4)
    return answer, made.raw[:size]
