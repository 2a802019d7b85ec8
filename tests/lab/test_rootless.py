"""A director without root: in a user namespace of its own, where the system has them."""

import shutil
import subprocess
import sys

import pytest

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c"]


def _why_not() -> str:
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


WHY_NOT = _why_not()


@pytest.mark.skipif(bool(WHY_NOT), reason=f"no user namespaces here: {WHY_NOT}")
def test_the_demonstration_needs_no_root():
    line = f"mount -t tmpfs none /run && {sys.executable} -m pylvs lab demo nat"
    done = subprocess.run(
        [*_UNSHARE, line], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "who answered" in done.stdout
    assert " 0 with a wrong checksum" in done.stdout
