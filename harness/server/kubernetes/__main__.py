"""The command line of `./run.sh kubernetes`. Standard library only, so that it needs no ./run.sh setup."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.machine import command
from harness.machine.command import OneLineParser
from harness.machine.paths import RESULTS_DIR
from harness.server.kubernetes import cluster, manifests
from harness.server.kubernetes.cluster import Cluster
from harness.server.kubernetes.manifests import ACCESS_MODES, OVERLAYS, Choice


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns the exit code."""

    def body() -> int | None:
        options, rest = parser().parse_known_args(arguments)
        if rest and options.command not in ("render", "bench"):
            raise ConfigError(f"{options.command} does not take {' '.join(rest)}; see --help")
        choice = Choice(
            options.overlay,
            options.replicas,
            options.registry,
            options.tag,
            tuple(rest),
            options.storage_class,
            options.access_mode,
            options.data_claim,
        )
        return _COMMANDS[options.command](options, Cluster(options.namespace), choice)

    return command.run(body)


def parser() -> OneLineParser:
    """Its options; what it does not know is the benchmark's."""
    result = OneLineParser(
        prog="./run.sh kubernetes",
        usage="%(prog)s render|up|bench|down [OPTIONS] [OPTIONS OF THE BENCHMARK]",
        description="Triton servers and one benchmark of them in a Kubernetes cluster, over kubectl.",
        allow_abbrev=False,
    )
    result.add_argument(
        "command",
        choices=tuple(_COMMANDS),
        metavar="render|up|bench|down",
        help="render: print the manifests, and ask no cluster; up: bring the servers up, and wait until each "
        "is ready; bench: one benchmark of all of them, with the options of `./run.sh bench`, whose results "
        "are copied here; down: remove all but the volumes",
    )
    result.add_argument(
        "--replicas",
        type=_positive,
        metavar="N",
        help="servers (default: 1); bench then brings them up first",
    )
    result.add_argument(
        "--overlay",
        choices=OVERLAYS,
        default="",
        help="gpu: one GPU for each server; hpa: as many servers as the queue asks for, for serving; kserve: "
        "an InferenceService (default: servers on CPUs, as many as --replicas says)",
    )
    result.add_argument("--namespace", default="", help="default: the one that kubectl is set up for")
    result.add_argument(
        "--registry",
        default="",
        metavar="PREFIX",
        help="of the images' names, such as registry.example.org/me",
    )
    result.add_argument("--tag", default="", help="of the images (default: latest)")
    result.add_argument(
        "--storage-class", default="", metavar="CLASS", help="of the volumes (default: the cluster's own)"
    )
    result.add_argument(
        "--access-mode",
        choices=ACCESS_MODES,
        default="",
        help="of the volume of models, which all pods share: ReadWriteOnce where all are on one node "
        "(default: ReadWriteMany)",
    )
    result.add_argument(
        "--data-claim", default="", metavar="CLAIM", help="bench: a claim with a data set, read as DATA_DIR"
    )
    result.add_argument(
        "--volumes", action="store_true", help="down: the volumes as well, and what is in them"
    )
    return result


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of servers")
    return int(text)


def _render(_options: argparse.Namespace, _cluster: Cluster, choice: Choice) -> None:
    sys.stdout.write(manifests.render(choice, manifests.new_key()))


def _up(_options: argparse.Namespace, there: Cluster, choice: Choice) -> None:
    cluster.up(there, choice)


def _bench(_options: argparse.Namespace, there: Cluster, choice: Choice) -> int:
    return cluster.bench(there, choice, Path(RESULTS_DIR))


def _down(options: argparse.Namespace, there: Cluster, _choice: Choice) -> None:
    cluster.down(there, with_volumes=options.volumes)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Cluster, Choice], int | None]] = {
    "render": _render,
    "up": _up,
    "bench": _bench,
    "down": _down,
}


if __name__ == "__main__":
    sys.exit(main())
