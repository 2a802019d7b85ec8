"""The kernel's settings, as Linux starts with them."""

from typing import Final

# fmt: off
# net.ipv4.* and net.ipv4.vs.*, by their own names, with what Linux starts with.
SETTINGS: Final = {
    "ip_forward": 1, "ipfrag_time": 30, "ip_unprivileged_port_start": 1_024,
    "forwarding": 1,       # IPv6's
    "am_droprate": 10, "amemthresh": 1_024, "drop_entry": 0, "drop_packet": 0, "secure_tcp": 0,
    "cache_bypass": 0, "conn_reuse_mode": 1, "schedule_icmp": 0, "sloppy_sctp": 0, "sloppy_tcp": 0,
    "expire_nodest_conn": 0, "expire_quiescent_template": 0,
    "ignore_tunneled": 0,  # nobody asks: no tunnel is opened here
    "lblc_expiration": 86_400, "lblcr_expiration": 86_400,
    "nat_icmp_send": 0, "pmtu_disc": 1, "run_estimation": 1,
    "snat_reroute": 1,     # nobody asks: a reply goes by where it goes to, always
}
# fmt: on
