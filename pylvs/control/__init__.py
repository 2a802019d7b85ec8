"""Desired state, and everything that speaks to the host.

    ipvsadm, config, api -> changes -> manager -> the engine's mailbox
                               |          |
                            keeper      model
                               |
                            network: nftables, netlink, one director a namespace

``daemon`` puts it together; ``listing`` and ``estimator`` read the director's tables.
"""
