"""The director beside what else a user might pick, in one run: ``make bench-net``.

__main__     which subjects, how many rounds, where the results go
subjects     who stands in the director's place: pylvs, the kernel, proxies, plain Python
measures     what is asked of each: packets, bytes, connections, requests, delays
generator    frames faster than any subject takes them, or at a given rate
pace         what the generator has the kernel run
sink         where a flood ends
report       ratios to nft's DNAT: a table, JSON, a plot
"""
