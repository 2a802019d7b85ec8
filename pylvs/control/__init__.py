"""Desired state, and everything that speaks to the host: rules, netlink, nftables, the daemon."""
