"""nftables by its own library, libnftables: an element costs 0.1 ms, a process would cost 15."""

import ctypes
import ctypes.util
import threading
from typing import Any, Final

from pylvs.errors import HostError

_NAME: Final = "libnftables.so.1"
_MISSING: Final = (
    f"{_NAME} is missing, and the host's stack must be kept off the VIPs: apt-get install nftables"
)


def _load() -> Any:
    try:
        library = ctypes.CDLL(_NAME)
    except OSError:
        raise HostError(_MISSING) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library


class Nftables:
    """This network namespace's rules."""

    def __init__(self) -> None:
        self._library = _load()
        self._lock = threading.Lock()  # a context is one thread's at a time

    def run(self, text: str) -> None:
        """Carry out commands, all or none; raises HostError with what the kernel or nft says."""
        library = self._library
        with self._lock:
            context = library.nft_ctx_new(0)
            try:
                library.nft_ctx_buffer_error(context)
                if library.nft_run_cmd_from_buffer(context, text.encode()):
                    said = library.nft_ctx_get_error_buffer(context).decode(errors="replace")
                    raise HostError(f"nftables refused the director's claims: {said.strip()}")
            finally:
                library.nft_ctx_free(context)
