"""Results folders side by side in one folder."""

import json
from pathlib import Path

from harness.run.results.result import RESULTS_NAME, Result, read_result

_MOST = 1000
"""The newest: no page is to wait for more to be read."""


def results_in(folder: Path, invocation: str = "", most: int = _MOST) -> list[Result]:
    """What was measured, the oldest first, as the folders' names have it; what cannot be read is left out.

    Args:
        folder: in which each result has one.
        invocation: only those of this command; all if empty.
        most: of the newest folders, so many.
    """
    mark = f'"invocation": {json.dumps(invocation)}'.encode()
    found = []
    for file in sorted(folder.glob(f"*/{RESULTS_NAME}"))[-most:]:
        try:
            written = file.read_bytes()
            # Most are of others: to find that out need not take as long as reading them.
            if not invocation or mark in written:
                found.append(read_result(json.loads(written), file.parent))
        except (OSError, ValueError, RecursionError):
            continue
    return [result for result in found if not invocation or result.invocation == invocation]
