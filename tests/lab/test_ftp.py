"""FTP through NAT: Debian's vsftpd behind the director, Python's client in front, both modes."""

import shutil
import sys

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import bracketed, topology
from tests.lab.conftest import start_director

VSFTPD = shutil.which("vsftpd", path="/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    VSFTPD is None, reason="vsftpd is not installed; as root: apt-get install vsftpd"
)
MEGABYTES = 20
CONFIG = """
listen={ipv4}
listen_ipv6={ipv6}
anonymous_enable=YES
anon_root={root}
no_anon_password=YES
anon_upload_enable=YES
anon_umask=022
write_enable=YES
connect_from_port_20=YES
background=NO
seccomp_sandbox=NO
secure_chroot_dir={empty}
run_as_launching_user=NO
"""
# Trusts the address in 227, which the director is to have rewritten; checks what it got.
CLIENT = """
import ftplib, io, hashlib, sys
vip, passive = sys.argv[1], sys.argv[2] == "passive"
with ftplib.FTP(timeout=20) as ftp:
    ftp.trust_server_pasv_ipv4_address = True
    ftp.connect(vip, 21)
    ftp.login()
    ftp.set_pasv(passive)
    print("names", *sorted(ftp.nlst()))
    digest = hashlib.sha256()
    ftp.retrbinary("RETR large", digest.update)
    print("large", digest.hexdigest())
    ftp.storbinary("STOR incoming/" + sys.argv[2], io.BytesIO(b"x" * 3_000_000))
    print("after", ftp.size("incoming/" + sys.argv[2]))
    names = [len(ftp.nlst()) for _ in range(5)]
    print("again", *names)
"""


@pytest.fixture(scope="module", params=[4, 6])
def lab(request):
    with Lab(topology("nat", request.param)) as made:
        shape = made.topology
        for node, address in shape.servers.items():
            folder = made.folder / node
            (folder / "root" / "incoming").mkdir(parents=True)
            (folder / "empty").mkdir()
            for place in (made.folder, folder, folder / "root"):
                place.chmod(0o755)
            (folder / "root" / "incoming").chmod(0o777)
            (folder / "root" / "large").write_bytes(bytes(range(250)) * 4_000 * MEGABYTES)
            (folder / "root" / node).touch()
            config = folder / "vsftpd.conf"
            config.write_text(
                CONFIG.format(
                    ipv4="YES" if request.param == 4 else "NO",
                    ipv6="YES" if request.param == 6 else "NO",
                    root=folder / "root",
                    empty=folder / "empty",
                ),
                encoding="ascii",
            )
            made.spawn(node, [VSFTPD, str(config)], f"{node}.log")
            made._await_port(node, address, 21)
        endpoint = f"{bracketed(shape.vip)}:21"
        rules = [f"-A -t {endpoint} -s rr"]
        rules += [f"-a -t {endpoint} -r {bracketed(one)}:21 -m" for one in shape.servers.values()]
        # A host that forwards: servers' data must not get past the director.
        made.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        made.shell("director", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        start_director(made, "\n".join(rules) + "\n")
        yield made
        made.stop_director()


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_files_come_and_go(lab, mode):
    script = lab.folder / "client.py"
    script.write_text(CLIENT, encoding="ascii")
    lines = []
    for _ in range(2):  # each server in its turn
        command = f"{sys.executable} {script} {lab.topology.vip} {mode}"
        lines.append(lab.shell("client", command).splitlines())
    for names, large, after, again in lines:
        assert names.split()[1:3] == ["incoming", "large"]
        assert large.startswith("large ")
        assert after == "after 3000000"
        assert again == "again 3 3 3 3 3"
    assert lines[0][1] == lines[1][1]
    assert {one[0].split()[3] for one in lines} == set(lab.topology.servers)
