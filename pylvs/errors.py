"""What pylvs raises.  Every message says what was given and what to do about it."""


class PylvsError(Exception):
    """Anything pylvs refuses or cannot do; its text is one sentence for a person."""


class UsageError(PylvsError):
    """The request itself is wrong: exit status 2."""


class HostError(PylvsError):
    """The host does not allow or have what is needed: exit status 1."""


class RuleError(PylvsError):
    """One fault in rules text, with ``ipvsadm``'s own phrase and exit status."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status
