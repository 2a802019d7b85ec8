"""Helpers: they listen to connections that speak of others, and expect those.

    bind      a new connection to port 21, masqueraded, is listened to
    follow    what its ends say is read, and rewritten where it names the real server
    claim     the first packet of a connection that is expected finds it

FTP's is the one there is (net/netfilter/ipvs/ip_vs_ftp.c).  Control connections are few and slow
beside the data they speak of: nothing here is in anybody else's way.
"""
