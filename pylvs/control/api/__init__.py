"""HTTP on the control socket: how commands, and questions, reach a running director.

server -> who may speak, and how      resources -> what is spoken about
"""
