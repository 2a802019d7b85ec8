"""Frames in, frames out.

A driver owns ports and shares one memory with the director.  Offsets in that memory are global, and
there are ``HEADROOM`` bytes free in front of every frame.  ``base.py`` says what a driver does,
``linux.py`` holds every constant and system call; the others are one kind of device a file.
``programs`` is what the kernel runs for them: it drops what is claimed, feeds XDP sockets, and
forwards connections that last by itself.
"""
