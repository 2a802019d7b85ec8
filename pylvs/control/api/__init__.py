"""HTTP on the control socket: how commands, and questions, reach a running director.

server -> who may speak, and how      handling -> one request      resources -> what is asked
answers -> what is said               openapi -> all that, told to clients
events -> what changes, as it does
"""
