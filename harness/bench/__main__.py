"""`./run.sh limits`."""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.bench import tables
from harness.bench.comparison import compare
from harness.bench.fleet import fleet
from harness.bench.null.comparison import compare_null
from harness.bench.options import Options, parser, resolve
from harness.bench.session import address, own_server
from harness.bench.soak import soak
from harness.errors import EXIT_INVALID, EXIT_VALID
from harness.machine import command, files, paths
from harness.run.preparation import Prepared, prepare
from harness.server.lifecycle import ServerInfo
from harness.triton.client import TritonClient

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command.run(lambda: _run(resolve(vars(parser().parse_args(arguments)))))


def _run(options: Options) -> int:
    paths.make_home()
    files.check_writable(options.output)
    prefix = f"{time.strftime('%Y%m%d-%H%M%S')}_bench_"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=options.output))
    if options.fleet:
        fleet.measure(options.fleet, options.rounds, options.seconds, folder)
        return EXIT_VALID
    # Exporting and preprocessing take their time; nothing else runs while anything is measured.
    everything = [prepare(config) for config in options.configs]
    with own_server() as server, TritonClient(address(server)) as client:
        # What each worker says of its calibration would drown what is measured here.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger(__package__).setLevel(logging.INFO)
        for prepared in everything:
            entry = prepared.manifest.entry
            (server.repository / entry).symlink_to(prepared.entry_dir, target_is_directory=True)
        if options.soak_s:
            return _soak(everything, client, server, options.soak_s, folder)
        comparisons = [
            compare(prepared, client, options, folder / prepared.manifest.entry) for prepared in everything
        ]
        comparisons.append(compare_null(server.repository, client, options, folder / "null"))
    file = folder / "bench.json"
    tables.write(comparisons, options, file)
    tables.show(comparisons, options, file)
    return EXIT_VALID


def _soak(
    everything: Sequence[Prepared], client: TritonClient, server: ServerInfo, seconds: float, folder: Path
) -> int:
    """The null model, then the others; whether all was flat."""
    soaks = [
        soak.soak_null(client, server, seconds, folder / "null"),
        *(soak.soak(one, client, server, seconds, folder / one.manifest.entry) for one in everything),
    ]
    file = folder / "soak.json"
    soak.write(soaks, file)
    soak.show(soaks, file)
    return EXIT_VALID if all(one.is_flat for one in soaks) else EXIT_INVALID


if __name__ == "__main__":
    sys.exit(main())
