"""The guest: a kernel and an initial ramdisk, made of Debian packages that are known by digest.

packages.lock -> apt-get download -> sha256 -> dpkg-deb -x -> one tree -> depmod -> cpio.gz

Everything lies in ``~/.cache/pylvs-oracle`` (or $PYLVS_ORACLE), packages under their digests.
"""

import gzip
import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Iterator
from typing import Final

LOCK: Final = pathlib.Path(__file__).with_name("packages.lock")
INIT: Final = pathlib.Path(__file__).with_name("init.sh")
HOME: Final = pathlib.Path(
    os.environ.get("PYLVS_ORACLE") or pathlib.Path.home() / ".cache" / "pylvs-oracle"
)
KERNEL: Final = HOME / "vmlinuz"
RAMDISK: Final = HOME / "initrd.gz"

_KERNEL_PACKAGE: Final = "linux-image-"
_APPLETS: Final = [
    "sh",
    "ls",
    "cat",
    "mount",
    "mkdir",
    "modprobe",
    "rmmod",
    "lsmod",
    "sleep",
    "sysctl",
    "echo",
    "printf",
    "grep",
    "sed",
    "awk",
    "cut",
    "head",
    "tail",
    "sort",
    "uniq",
    "wc",
    "true",
    "false",
    "base64",
    "tr",
    "test",
    "env",
    "dmesg",
]
# Parts of the kernel's module tree that the guest needs, and files of packages that it does not.
_MODULES: Final = ("net/netfilter", "net/ipv4", "net/ipv6", "net/core", "drivers/virtio", "lib")
_DRIVERS: Final = ("virtio_net", "virtio_console", "dummy", "net_failover", "failover", "rng-core")
_CRYPTO: Final = ("crc32c_generic", "crc32c-intel", "libcrc32c", "siphash")
_UNUSED: Final = (
    "usr/share",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/engines-3",
)


class OracleError(Exception):
    """The oracle cannot be had here; the text says what is missing."""


def build() -> None:
    """Make kernel and ramdisk unless they are there, of just these packages and this init."""
    wanted = hashlib.sha256(LOCK.read_bytes() + INIT.read_bytes()).hexdigest()
    stamp = HOME / "built"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    for program in ("dpkg-deb", "apt-get", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            raise OracleError(f"{program} is missing: apt-get install qemu-system-x86 apt dpkg")
    tree = HOME / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    kernel_tree = HOME / "kernel"
    shutil.rmtree(kernel_tree, ignore_errors=True)
    for name, package in _packages():
        where = kernel_tree if name.startswith(_KERNEL_PACKAGE) else tree
        subprocess.run(["dpkg-deb", "-x", package, where], check=True)
    for unused in _UNUSED:
        shutil.rmtree(tree / unused, ignore_errors=True)
    version = next((kernel_tree / "lib" / "modules").iterdir()).name
    _take_modules(kernel_tree, tree, version)
    _finish(tree)
    shutil.copy(kernel_tree / "boot" / f"vmlinuz-{version}", KERNEL)
    with gzip.open(RAMDISK, "wb", compresslevel=1) as file:
        for chunk in _archive(tree):
            file.write(chunk)
    shutil.rmtree(kernel_tree)
    stamp.write_text(wanted)


def _packages() -> Iterator[tuple[str, pathlib.Path]]:
    """Yield every package of the lock file, downloaded if need be, its digest checked."""
    store = HOME / "packages"
    store.mkdir(parents=True, exist_ok=True)
    for line in LOCK.read_text().splitlines():
        name, version, digest = line.split()
        path = store / f"{digest}.deb"
        if not path.exists():
            _download(name, version, digest, path)
        yield name, path


def _download(name: str, version: str, digest: str, path: pathlib.Path) -> None:
    folder = path.parent / "incoming"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = ["apt-get", "download", "-qq", f"{name}={version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.deb"))
    if done.returncode or not found:
        raise OracleError(f"package {name} {version} cannot be had: {done.stderr.strip()}")
    got = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if got != digest:
        raise OracleError(f"package {name} {version} has digest {got}, not {digest}")
    found[0].rename(path)


def _take_modules(kernel_tree: pathlib.Path, tree: pathlib.Path, version: str) -> None:
    source = kernel_tree / "lib" / "modules" / version
    target = tree / "lib" / "modules" / version
    wanted = {*_DRIVERS, *_CRYPTO}
    for module in sorted(source.rglob("*.ko")):
        inside = module.relative_to(source / "kernel")
        taken = any(str(inside).startswith(part) for part in _MODULES) or module.stem in wanted
        if taken:
            (target / "kernel" / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, target / "kernel" / inside)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, target)
    loader = tree / "lib" / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"
    libraries = ":".join(str(tree / part / "x86_64-linux-gnu") for part in ("lib", "usr/lib"))
    command = [str(loader), "--library-path", libraries, "--argv0", "depmod"]
    subprocess.run([*command, str(tree / "bin" / "kmod"), "-b", str(tree), version], check=True)


def _finish(tree: pathlib.Path) -> None:
    """Add the applets, our init and a few links that packages' own scripts would have made."""
    for name in ("proc", "sys", "dev", "tmp", "run", "etc", "root"):
        (tree / name).mkdir(exist_ok=True)
    for applet in _APPLETS:
        link = tree / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    for name in ("modprobe", "rmmod", "lsmod"):
        link = tree / "sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("../bin/busybox")
    for name in ("iptables", "ip6tables"):
        (tree / "usr" / "sbin" / name).unlink(missing_ok=True)
        (tree / "usr" / "sbin" / name).symlink_to("xtables-legacy-multi")
    shutil.copy(INIT, tree / "init")
    (tree / "init").chmod(0o755)


def _archive(tree: pathlib.Path) -> Iterator[bytes]:
    """Yield a cpio archive in the kernel's format (newc, initramfs buffer format)."""
    paths = sorted(path for path in tree.rglob("*"))
    for number, path in enumerate(paths, 1):
        status = path.lstat()
        data = b""
        if path.is_symlink():
            data = os.readlink(path).encode()
        elif path.is_file():
            data = path.read_bytes()
        mode = status.st_mode if not stat.S_ISREG(status.st_mode) else status.st_mode | 0o444
        yield _entry(str(path.relative_to(tree)), number, mode, data)
    yield _entry("TRAILER!!!", 0, 0, b"")


def _entry(name: str, number: int, mode: int, data: bytes) -> bytes:
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
