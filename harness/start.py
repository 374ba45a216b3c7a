"""A command that Ctrl-C may end from its first moment: `python -m harness.start MODULE [OPTION ...]`."""

import runpy
import sys

from harness.machine import command

if __name__ == "__main__":
    command.leave_on_signals()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
