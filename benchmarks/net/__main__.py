"""The director beside what else a user might pick, in one run: see ``benchmarks.net``."""

import contextlib
import os
import platform
import shutil
import signal
import sys
import time

import click

from benchmarks.net import report
from benchmarks.net.measures import Bench
from benchmarks.net.subjects import REFERENCE, SUBJECTS, Subject
from pylvs.errors import HostError

_EPILOG = """\b
Examples
  python -m benchmarks.net --rounds 3 --json net.json --plot net.svg
  python -m benchmarks.net --only 'nft dnat' --only 'pylvs nat' --seconds 1
"""
_PROGRAMS = ("iperf3", "nft", "wrk", "nginx")


@click.command(epilog=_EPILOG)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Every subject in turn, this often.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0),  # wrk takes whole ones
    default=2.0,
    show_default=True,
    help="Of each measurement.",
)
@click.option("--only", multiple=True, metavar="SUBJECT", help="Only these; again for more.")
@click.option("--json", "json_path", metavar="FILE", help="Write every figure.")
@click.option("--plot", metavar="FILE.svg", help="Write the ratios as bars.")
def main(
    rounds: int, seconds: float, only: tuple[str, ...], json_path: str | None, plot: str | None
) -> None:
    """Measure subjects in the director's place of a lab, and compare them with nft's DNAT.

    A round of all takes twenty minutes and more.  Ctrl-C ends it and shows what there is.
    """
    for program in _PROGRAMS:
        if not shutil.which(program):
            raise HostError(f"{program} is missing: apt-get install {' '.join(_PROGRAMS)}")
    chosen = []
    for subject in SUBJECTS:
        lacking = subject.lacks()
        if only and subject.name not in only:
            continue
        if lacking:
            print(f"{subject.name}: left out: {lacking}", file=sys.stderr)
            continue
        chosen.append(subject)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of taking the lab down
    results: report.Results = {subject.name: [] for subject in chosen}
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is shown
        _measure(chosen, rounds, seconds, results)
    results = {name: done for name, done in results.items() if done}
    if not results:
        raise SystemExit("nothing was measured")
    report.show(results)
    facts = {"kernel": platform.release(), "cores": os.cpu_count(), "rounds": rounds}
    facts |= {"seconds": seconds, "reference": REFERENCE}
    if json_path:
        report.write_json(json_path, results, facts)
    if plot:
        report.write_plot(plot, results)


def _measure(chosen: list[Subject], rounds: int, seconds: float, results: report.Results) -> None:
    """Measure all in turn, and put into ``results`` what they did."""
    began = time.monotonic()
    for turn in range(rounds):
        for subject in chosen:
            if subject.name not in results:
                continue
            try:
                results[subject.name].append(Bench(subject, seconds).measure())
            except HostError as error:  # the others can still be compared
                del results[subject.name]
                print(f"{subject.name}: left out: {error}", file=sys.stderr)
                continue
            spent = time.monotonic() - began
            done = f"round {turn + 1} of {rounds}: {subject.name}"
            print(f"{done}, {spent:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
