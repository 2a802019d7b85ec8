"""What is answered, as types: the stable half of the API that ``--json`` prints as well."""

from pylvs.control.config.schema import Part, Server, Service


class Counters(Part):
    """What IPVS counts, since the start or a second; bytes are those of IP packets."""

    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


class ServerState(Server, kw_only=True):
    """A real server, and what it has."""

    active: int
    inactive: int
    templates: int  # persistent clients that are sent there
    counters: Counters
    rates: Counters


class ServiceState(Service, kw_only=True):
    """A virtual service, and what it has."""

    servers: list[ServerState]  # type: ignore[assignment]
    counters: Counters
    rates: Counters


class Connection(Part):
    """A connection, or a persistent client's template; ``expires`` in seconds."""

    protocol: str
    client: str
    virtual: str
    server: str
    state: str
    expires: int
    local: str = ""  # what the server sees in the place of the client, by full NAT
    engine: str = ""  # what gave a template its key, and that key
    key: str = ""


class Connections(Part):
    """Some connections, and where to go on if there are more."""

    connections: list[Connection]
    next: int = -1


class Offload(Part):
    """What the kernel forwards by itself: flows now, packets since the start."""

    flows: int
    packets: int


class Stats(Part):
    """All traffic together; ``reasons`` are how many frames had each."""

    connections: int
    counters: Counters
    rates: Counters
    reasons: dict[str, int]
    offload: Offload


class Changes(Part):
    """What a change took, as ipvsadm's command lines."""

    changes: list[str]


class Forgotten(Part):
    """How many connections or templates there were."""

    forgotten: int


class Said(Part):
    """A command line of ipvsadm's; ``text`` is what ``-R`` reads."""

    words: list[str]
    text: str = ""


class Rules(Part):
    """A whole table as ``ipvsadm -S`` prints it."""

    rules: str


class Result(Part):
    """What a command line leaves behind; ``ended`` when a wrong line was the end of a text."""

    status: int
    output: str
    error: str
    ended: bool = False


class Refusal(Part):
    """Why not: a line for every fault."""

    error: str


Settings = dict[str, int]
