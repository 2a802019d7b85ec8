"""What ``ipvsadm -h`` says, in pylvs's words."""

from typing import Final

VERSION: Final = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"

HELP: Final = (
    VERSION
    + """
Commands, to the director of this network namespace:
  -A, -E, -D  SERVICE [options]             add, edit, delete a virtual service
  -a, -e, -d  SERVICE -r SERVER [options]   add, edit, delete a real server of it
  -L, -l      [SERVICE] [options]           list; without any command: everything
  -S, -R      save rules to standard output, restore them from standard input
  -C, -Z      clear the table; zero counters, of one SERVICE or all
  --set TCP TCPFIN UDP                      timeouts in seconds, 0 keeps one

SERVICE is -t, -u or --sctp-service HOST[/PREFIX][:PORTS], or -f MARK.  SERVER is HOST[:PORT].
PORTS are a port, a list as in 80,443,8000-8999, or any.
An edit states everything anew: what it does not name returns to its default.

Of a service:  -s SCHEDULER (wlc), -b FLAGS, -p [SECONDS] (360), -M NETMASK,
               --pe ENGINE (sip, or package.module:Class), -o
Of a server:   -g direct routing (default), -m masquerading, -i tunneling, --l3dsr DSCP,
               --fullnat [proxy];
               -w WEIGHT (1), -x UPPER, -y LOWER threshold;
               --tun-type ipip|gue|gre, --tun-port PORT, --tun-nocsum, --tun-csum, --tun-remcsum
Of a list:     -n numbers, -c connections, --stats, --rate, --thresholds, --persistent-conn,
               --tun-info, --timeout, --exact, --nosort

Examples:
  ipvsadm -A -t 192.0.2.10:80 -s wrr
  ipvsadm -a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 3
  ipvsadm -A -t 192.0.2.0/24:80,8000-8999 -s sh
  ipvsadm -Ln --stats
  ipvsadm -Sn > rules; ipvsadm -R < rules
"""
)
