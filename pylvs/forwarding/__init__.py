"""What leaves, and in which clothes: one forwarding method a file.

Each takes a packet whose TTL and size were already looked after, and leaves it as it goes on the
wire but for the Ethernet header, which ``transmit.py`` writes for all of them.
"""
