"""Start a program with arguments that no other user can read, for one that takes secrets only there.

Everybody may read a process's command line (/proc/PID/cmdline, ps); its environment, only its own user. So
the kernel gets a stand-in for such an argument, and a variable of the environment has the argument. Before
the program runs its first instruction, its pointer to the stand-in is turned to the variable's value; the
command line that is shown stays as it is.

Standard library only, and nothing of ours: docker/server.Dockerfile copies it into the image.
"""

import ctypes
import os
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_TRACEME, _DETACH = 0, 17
_POINTER = struct.Struct("@P")
_VARIABLE = "HIDDEN_ARGUMENT_"

# In /proc/PID/stat, counted from what follows the name: where the stack starts, with the number of arguments;
# where the texts of the arguments start and end; where those of the environment do.
_STACK, _ARGUMENTS, _ENVIRONMENT = 25, slice(45, 47), slice(47, 49)


class CannotHide(OSError):
    """This system forbids a process to trace its own child."""


def start(
    command: Sequence[str],
    hidden: Mapping[str, str],
    before: Callable[[], object] = lambda: None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a program; call it on the main thread.

    Args:
        command: What is shown.
        hidden: By the stand-in, which is one of the words of `command`: the argument.
        before: Is called in the child.
        options: Of `subprocess.Popen`, but for its environment, which is ours.

    Raises:
        CannotHide: it was not started.
        OSError: there is no such program.
    """
    variables = {f"{_VARIABLE}{number}": value for number, value in enumerate(hidden.values())}

    def prepare() -> None:
        before()
        _ptrace(_TRACEME, 0)

    try:
        process = subprocess.Popen(command, env={**os.environ, **variables}, preexec_fn=prepare, **options)
    except subprocess.SubprocessError as error:
        raise CannotHide("ptrace is forbidden") from error
    try:
        # It is stopped, with the new program in place. Should it have been killed, there is nothing to do.
        if os.WIFSTOPPED(os.waitpid(process.pid, 0)[1]):
            _swap(process.pid, dict(zip(hidden, variables, strict=True)))
            _ptrace(_DETACH, process.pid)
    except BaseException:
        process.kill()
        raise
    return process


def _ptrace(request: int, pid: int) -> None:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ptrace.restype = ctypes.c_long
    if ptrace(request, pid, None, None) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _swap(pid: int, variables: Mapping[str, str]) -> None:
    """Let pointers to arguments point to values of variables instead."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    stack = int(fields[_STACK])
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:

        def texts(limits: slice) -> dict[bytes, int]:
            start, end = map(int, fields[limits])
            memory.seek(start)
            found = {}
            for text in memory.read(end - start).split(b"\0"):
                found[text] = start
                start += len(text) + 1
            return found

        arguments = texts(_ARGUMENTS)
        environment = {text.partition(b"=")[0]: at for text, at in texts(_ENVIRONMENT).items()}
        memory.seek(stack)
        (count,) = _POINTER.unpack(memory.read(_POINTER.size))
        pointers = list(struct.unpack(f"@{count}P", memory.read(count * _POINTER.size)))
        for stand_in, variable in variables.items():
            number = pointers.index(arguments[os.fsencode(stand_in)])
            value = environment[variable.encode()] + len(variable) + 1
            memory.seek(stack + (1 + number) * _POINTER.size)
            memory.write(_POINTER.pack(value))
