"""Find the best settings of a server: `./run.sh tune --model M --platform P`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.machine import command, paths
from harness.machine.command import OneLineParser
from harness.models.model_config import DEVICES
from harness.run.borrowing import borrowed
from harness.run.config.command_line import add_option
from harness.run.config.measured import table
from harness.run.config.options import OPTIONS
from harness.run.config.resolution import resolve, sweep
from harness.run.config.run_config import SYNTHETIC
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import prepare
from harness.run.servers import every_server, servers
from harness.triton.client import TritonClient
from harness.tune.search import find_best, short


def _parser() -> argparse.ArgumentParser:
    result = OneLineParser(
        prog="./run.sh tune",
        description="Find the best settings of a server; some 8 minutes for a small model on one platform, "
        "hours for all. Later runs on the same server (device, cores, version of Triton) use them.",
        allow_abbrev=False,
    )
    result.add_argument("--model", help="default: all of them")
    result.add_argument("--platform", help="default: all of the model's")
    result.add_argument("--scenario", metavar="LIST", default=",".join(Scenario), help="default: all four")
    result.add_argument("--device", metavar="DEVICE", help=f"of {', '.join(DEVICES)} (default auto)")
    result.add_argument(
        "--table", metavar="FILE", help=f"another table than {table.OWN_FILE}, which runs read"
    )
    for name in ("url", "rpc", "tls_ca", "tls_cert", "tls_key", "header"):
        add_option(result, OPTIONS[name])
    return result


def _table(given: str | None) -> Path:
    """Where to write; found out before anything is measured.

    Raises:
        ConfigError: no file can be written there, or it is no table.
    """
    file = table.OWN_FILE if given is None else paths.absolute(given)
    if given == "" or file.is_dir():
        raise ConfigError(f"--table {given!r} is not a file to write to")
    table.read(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise ConfigError(f"cannot write --table {file}: {error.strerror}") from error
    if not file.stat().st_size:
        file.unlink()
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body() -> None:
        given: dict[str, Any] = vars(_parser().parse_args(arguments))
        paths.make_home()
        file = _table(given.pop("table"))
        # Settings are not a matter of what is on the images.
        given["dataset"] = SYNTHETIC
        is_one = given["model"] and given["platform"]
        configs = [resolve(given)] if is_one else sweep(given)
        if len(every_server(configs[0].server.servers)) > 1:
            raise ConfigError("one server is tuned at a time: give one address in --url")
        with servers(configs[0]) as (reached, are_own), TritonClient(reached[0]) as client:
            for config in configs:
                prepared = prepare(config)
                with (
                    contextlib.nullcontext() if are_own else borrowed(client, prepared.manifest.entry) as loan
                ):
                    for scenario in config.request.scenarios:
                        found = find_best(prepared, client, scenario, loan)
                        table.add(file, found)
                        what = f"{config.model} {config.platform} {scenario}"
                        sys.stdout.write(f"{what}: {short(found.choice)} {found.figure}\n")
                        sys.stdout.flush()

    return command.run(body)


if __name__ == "__main__":
    sys.exit(main())
