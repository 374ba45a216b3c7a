"""A command that Ctrl-C may end from its first moment: `python harness/start.py MODULE [OPTION ...]`."""

import _signal  # type: ignore[import-not-found]

if __name__ == "__main__":
    # At once, with the module that needs no import: what follows takes a while, too.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import runpy
import sys

from harness.machine import command

if __name__ == "__main__":
    command.leave_on_signals()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
