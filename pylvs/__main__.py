"""``python -m pylvs``."""

from pylvs.cli.main import main

main()
