"""What a host does around IPVS, for frames that the host must not see or does not exist for.

A port that is closed, a ping to a VIP, an ICMP error about a packet that could not be forwarded,
ARP: where Linux IPVS leaves these to the stack around it, the director makes the same bytes.
"""
