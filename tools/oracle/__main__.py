"""Random scenarios against the real kernel under QEMU.

    python -m tools.oracle [--ipv6] [--seed N] [--scenarios N] [--steps N] [--keep FOLDER] [--all]

Prints the seed it begins with, a line a scenario, and how many steps agreed.  A scenario that does
not agree is kept as a capture for ``tools/conformance.py`` (with --all, every one is); exit
status 1 if there is one.
"""

import argparse
import json
import pathlib
import random
import sys

from tools.conformance import check
from tools.oracle.image import OracleError
from tools.oracle.machine import Machine
from tools.oracle.scenario import Scenario
from tools.oracle.versions import Version4, Version6

KEPT = pathlib.Path(__file__).parent.parent.parent / "tests" / "vectors" / "found"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--scenarios", type=int, default=40)
    parser.add_argument("--steps", type=int, default=250, help="of each scenario")
    parser.add_argument("--keep", type=pathlib.Path, default=KEPT, help="where differences go")
    parser.add_argument("--all", action="store_true", help="keep those that agree as well")
    parser.add_argument("--ipv6", action="store_true", help="services of IPv6")
    options = parser.parse_args()
    version = Version6() if options.ipv6 else Version4()
    print(f"seed {options.seed}", flush=True)
    failed = 0
    try:
        with Machine() as machine:
            for seed in range(options.seed, options.seed + options.scenarios):
                vector = Scenario(machine, seed, options.steps, version).run()
                difference = check(vector)
                print(f"FAIL {seed}: {difference}" if difference else f"ok {seed}", flush=True)
                failed += bool(difference)
                if difference or options.all:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    file = options.keep / f"{vector['name']}.json"
                    file.write_text(json.dumps(vector))
    except OracleError as error:
        print(f"no oracle here: {error}", file=sys.stderr)
        return 2
    agreed = options.scenarios - failed
    print(f"{options.scenarios * options.steps} steps, {agreed} scenarios agree, {failed} do not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
