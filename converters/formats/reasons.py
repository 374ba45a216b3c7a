"""Why a framework failed, in one line: theirs are long, coloured, and have the reason anywhere."""

import itertools
import re

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): (.+)")
"""How Python, and TorchScript's interpreter after its own traceback, end."""
_STACK = "Exception from "
"""How OpenVINO's messages begin, from the outermost cause to the innermost."""
_NODE = "[["
"""TensorFlow's line after the reason: which node it was."""
_LONGEST = 300


def reason_of(error: Exception) -> str:
    """The reason that a framework's message gives; its kind where it gives none."""
    text = _ESCAPES.sub("", str(error))
    lines = [line for piece in text.splitlines() if (line := " ".join(piece.split()))]
    if not lines:
        return type(error).__name__
    raised = [match[1] for line in lines if (match := _RAISED.fullmatch(line))]
    before_node = [line for line, after in itertools.pairwise(lines) if after.startswith(_NODE)]
    first = lines[-1] if lines[0].startswith(_STACK) else lines[0]
    reason = raised[-1] if raised else [*before_node, first][0]
    return reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
