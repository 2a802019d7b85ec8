"""The first start compiles the hot path: say so, and show that it goes on."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

EXPECTED_S: Final = 60.0


def while_compiling(work: Callable[[], Any], part: str = "live") -> None:
    """Run ``work``, which may compile, with a progress line on standard error if it does."""
    from pylvs.jit import COMPILES, cache

    if not COMPILES or cache.is_compiled(part):
        work()
        return
    print(
        "pylvs: first start of this version: compiling the hot path, once, for about "
        f"{EXPECTED_S:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    done = threading.Event()
    columns = (TextColumn("compiling"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=EXPECTED_S)

        def advance() -> None:
            began = time.monotonic()
            while not done.wait(0.2):
                spent = time.monotonic() - began
                progress.update(task, completed=min(spent, EXPECTED_S * 0.98))

        ticker = threading.Thread(target=advance, daemon=True)
        ticker.start()
        try:
            work()
        finally:
            done.set()
            ticker.join()
