"""Bytes to integers and back.  Nothing here remembers anything.

``memory`` is always uint8[...], the one reservation all drivers share; positions in it are byte
offsets.  ``memory.py`` knows the network's byte order, ``checksum.py`` the one sum the Internet
uses; the others are one header a file: its drawing, its offsets, what can be asked of it.
"""
