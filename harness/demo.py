"""The whole benchmark in a few minutes on any machine: `./run.sh demo`.

MobileNet with seeded weights and synthetic images, so nothing is downloaded: each scenario for a few
seconds with real LoadGen and a real Triton, and the accuracy of serving against the source framework.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence

from harness.cli import main
from harness.machine import command
from harness.machine.command import OneLineParser
from harness.run.mlperf.rounds import Scenario

DEMO = {
    "--model": "mobilenet",
    "--platform": "onnxruntime",
    "--weights": "seeded",
    "--dataset": "synthetic",
    "--scenario": ",".join(Scenario),
    "--count": "256",
    "--time": "10",
    # MLPerf's 10 ms for MobileNet are out of reach of a slow CPU, whatever the rate; and 100 ms of one whose
    # host now and then does something else for as long.
    "--max-latency": "0.25",
}
OPTIONS = [*(word for pair in DEMO.items() for word in pair), "--accuracy"]


def _command() -> str:
    """What it is short for, so that it can be pasted into a shell."""
    pairs = [f"{option} {value}" for option, value in DEMO.items()]
    lines = ["./run.sh bench", *textwrap.wrap(" ".join((*pairs, "--accuracy")), 70, break_on_hyphens=False)]
    return " \\\n    ".join(lines)


def parser() -> argparse.ArgumentParser:
    """What the demo says of itself; its options are those of `bench`."""
    return OneLineParser(
        prog="./run.sh demo",
        usage="./run.sh demo [OPTION ...]",
        description="The four MLPerf scenarios and an accuracy test, briefly: MobileNet with\n"
        "seeded weights and synthetic images on a Triton of its own. Nothing is\n"
        "downloaded; some 6 minutes on two cores, once everything is installed. It is:\n"
        f"\n{textwrap.indent(_command(), '  ')}",
        epilog="An OPTION is one of bench's, and counts before these: --time 5,\n--scenario Offline, "
        "--output DIR, --dry-run; ./run.sh bench --help lists them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def demo(words: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    if {"-h", "--help"}.intersection(words):
        return command.run(parser().print_help)
    return main([*OPTIONS, *words])


if __name__ == "__main__":
    sys.exit(demo(sys.argv[1:]))
