"""SIP: the Call-ID of a message is its key (RFC 3261, sections 7.3.1, 20.8 and 25.1).

    Call-ID: f81d4fae-7dec-11d0-a765-00a0c91e6bf6@foo.bar.com
    i:f81d4fae-7dec-11d0-a765-00a0c91e6bf6@192.0.2.4

Read as Linux reads it: a header line ends with CR, LF or both, the first line is not looked at, a
Call-ID that is malformed is passed over for a later one, and lines of the body are lines too.
"""

from typing import Final

from pylvs.jit import apart, compiled

_NAME: Final = b"call-id"
_CR, _LF, _SPACE, _TAB, _COLON, _AT, _I = b"\r\n \t:@i"
_CASE: Final = 0x20
_UNFINISHED: Final = -1
_WORD_SIGNS: Final = b"!\"%'()*+-./:<>?[\\]_`{}~"
_LATIN_LETTERS: Final = 0xC0
_NO_LETTERS: Final = (0xD7, 0xF7)  # times and divided by


@apart
def find_call_id(memory, begin, end):
    """Return where the Call-ID of the message in ``memory[begin:end]`` lies, and its size or 0."""
    at = begin
    while at < end:
        if memory[at] != _CR and memory[at] != _LF:
            at += 1
            continue
        at = _skip_line_end(memory, at, end)
        if at == end:
            break
        value = _value_of_call_id(memory, at, end)
        if value == _UNFINISHED:
            break
        if value == at:
            at += 1
            continue
        size = _size_of_call_id(memory, value, end)
        if size:
            after = value + size
            is_whole = after < end and (memory[after] == _CR or memory[after] == _LF)
            return value, size if is_whole else 0
        at = value
    return begin, 0


@compiled
def _skip_line_end(memory, at, end):
    """Return where the next line begins: after CR, LF, or CR and LF."""
    at += 1
    if at < end and memory[at - 1] == _CR and memory[at] == _LF:
        at += 1
    return at


@compiled
def _value_of_call_id(memory, at, end):
    """Return where the value begins of the Call-ID header at ``at``.

    ``at`` itself if another header is there, ``_UNFINISHED`` if this one has no value.
    """
    named = _skip_name(memory, at, end)
    if named == at:
        return at
    value = _skip_space(memory, named, end)
    if value == _UNFINISHED or value >= end or memory[value] != _COLON:
        return _UNFINISHED
    if value + 1 >= end:
        return _UNFINISHED
    return _skip_space(memory, value + 1, end)


@compiled
def _skip_name(memory, at, end):
    """Return the place after a Call-ID header's name, long or short, or ``at`` if it is none."""
    if end - at >= len(_NAME):
        same = True
        for place in range(len(_NAME)):
            octet = memory[at + place]
            if 65 <= octet <= 90:
                octet |= _CASE
            same = same and octet == _NAME[place]
        if same:
            return at + len(_NAME)
    if end - at >= 2 and memory[at] | _CASE == _I and not _is_letter(memory[at + 1]):
        return at + 1
    return at


@compiled
def _skip_space(memory, at, end):
    """Skip blanks, and one line's end if the next line goes on with it."""
    at = _skip_blanks(memory, at, end)
    if at == end or (memory[at] != _CR and memory[at] != _LF):
        return at
    at = _skip_line_end(memory, at, end)
    if at >= end or (memory[at] != _SPACE and memory[at] != _TAB):
        return _UNFINISHED
    return _skip_blanks(memory, at, end)


@compiled
def _skip_blanks(memory, at, end):
    while at < end and (memory[at] == _SPACE or memory[at] == _TAB):
        at += 1
    return at


@compiled
def _size_of_call_id(memory, at, end):
    """Return the size of ``word [ "@" word ]``, or 0 if there is none."""
    size = _size_of_word(memory, at, end)
    if size == 0 or at + size == end or memory[at + size] != _AT:
        return size
    domain = _size_of_word(memory, at + size + 1, end)
    return size + 1 + domain if domain else 0


@compiled
def _size_of_word(memory, at, end):
    size = 0
    while at + size < end and _is_of_word(memory[at + size]):
        size += 1
    return size


@compiled
def _is_of_word(octet):
    if _is_letter(octet) or 48 <= octet <= 57:
        return True
    found = False
    for sign in _WORD_SIGNS:
        found = found or octet == sign
    return found


@compiled
def _is_letter(octet):
    """Whether Linux takes an octet for a letter: of ASCII, and of Latin-1."""
    if octet >= _LATIN_LETTERS:
        return octet != _NO_LETTERS[0] and octet != _NO_LETTERS[1]
    return 97 <= octet | _CASE <= 122
