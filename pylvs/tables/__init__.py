"""What is remembered between packets.

``layouts.py`` declares every byte; ``Tables`` bundles the arrays for their one way through the
door (as cheap as passing them singly: 2.3 us against 1.8 for fourteen arrays, measured).  The
other files are what can be done with one table each, in compiled code.
"""
