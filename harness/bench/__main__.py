"""`python -m harness.bench`."""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.bench import tables
from harness.bench.comparison import compare
from harness.bench.null.comparison import compare_null
from harness.bench.options import Options, parser, resolve
from harness.bench.session import own_server
from harness.machine import command, files
from harness.run.preparation import prepare
from harness.triton.client import TritonClient

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command.run(lambda: _run(resolve(vars(parser().parse_args(arguments)))))


def _run(options: Options) -> None:
    files.check_writable(options.output)
    prefix = f"{time.strftime('%Y%m%d-%H%M%S')}_bench_"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=options.output))
    # Exporting and preprocessing take their time; nothing else runs while anything is measured.
    everything = [prepare(config) for config in options.configs]
    with own_server() as (url, repository), TritonClient(url) as client:
        # What each worker says of its calibration would drown what is measured here.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger(__package__).setLevel(logging.INFO)
        comparisons = []
        for prepared in everything:
            entry = prepared.manifest.entry
            (repository / entry).symlink_to(prepared.entry_dir, target_is_directory=True)
            comparisons.append(compare(prepared, client, options, folder / entry))
        comparisons.append(compare_null(repository, client, options, folder / "null"))
    file = folder / "bench.json"
    tables.write(comparisons, options, file)
    tables.show(comparisons, options, file)


if __name__ == "__main__":
    sys.exit(main())
