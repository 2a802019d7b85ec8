"""Turn an interface's generic receive offload on (``ethtool -K IFACE gro on``, by ioctl)."""

import sys

from pylvs.lab.offloads import switch

_ETHTOOL_SGRO = 0x2C

if __name__ == "__main__":
    switch(sys.argv[1], _ETHTOOL_SGRO, 1)
