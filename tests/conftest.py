"""How the tests run: deterministic, and with fewer examples where the code is not compiled."""

import os

from hypothesis import HealthCheck, settings

UNCOMPILED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
BOUNDS_CHECKED = os.environ.get("NUMBA_BOUNDSCHECK") == "1"

_QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
settings.register_profile("compiled", **_QUIET)
settings.register_profile("slow", max_examples=40, **_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "compiled"))


def examples(count):
    """Return settings for ``count`` examples, or for as few as the slow profile has."""
    if os.environ.get("HYPOTHESIS_PROFILE") == "slow":
        count = min(count, settings().max_examples)
    return settings(max_examples=count)
