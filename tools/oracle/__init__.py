"""The real kernel, asked: Debian's, with its IPVS, in QEMU without KVM."""
