"""A command that starts a server of its own, as a user runs it."""

import subprocess
import sys

from harness.machine import paths


def run_command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end; it must have taken its server away again."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=paths.PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, log = process.communicate(timeout=500)
    finally:
        process.kill()
    assert not (paths.STATE_DIR / f"server-{process.pid}").exists(), log
    return subprocess.CompletedProcess(process.args, process.returncode, output, log)
