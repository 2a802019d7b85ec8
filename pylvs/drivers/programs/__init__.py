"""What the kernel runs for the director: BPF, assembled in Python.

bpf        instructions, maps, loading and attaching: no compiler, no library
filter     an interface's program: what is claimed, and whose it is
claimed    what is claimed, as programs look for it
fanout     which worker a frame goes to
offload    what forwards the flows of connections that last:
  decide     in packet sockets, and in XDP's program: whose a frame is
  act        in tcx, what becomes of it
  redirect   in XDP, both
  write      what either writes into a frame
headers    where packets have what programs need
"""
