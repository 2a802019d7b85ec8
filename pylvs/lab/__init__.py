"""A network to try the director in: clients, a router, the director and real servers, each a
network namespace of its own, on the topologies that LVS is taught with."""
