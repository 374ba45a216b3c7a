"""The one line that is told of a framework's failure."""

import pytest

from converters.formats.reasons import reason_of

TORCHSCRIPT = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File "code/__torch__.py", line 10, in forward
    return torch.linear(input, weight, bias)
           ~~~~~~~~~~~~ <--- HERE
RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x588 and 972x10)
"""
TENSORFLOW = """Graph execution error:

Matrix size-incompatible: In[0]: [1,588], In[1]: [972,10]
\t [[{{node MatMul}}]]

Original stack trace for 'MatMul':
  File "a.py", line 1, in <module>
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TORCHSCRIPT, "mat1 and mat2 shapes cannot be multiplied (1x588 and 972x10)"),
        (TENSORFLOW, "Matrix size-incompatible: In[0]: [1,588], In[1]: [972,10]"),
        ("\n two ways: \x1b[1monly if you trust it\x1b[0m. \n\tmore", "two ways: only if you trust it."),
        ("Exception from a.cpp:8:\nCheck 'x' failed at b.cpp:3:\nAxis 7 of [-4, 3]", "Axis 7 of [-4, 3]"),
        ("node 3 failed\nto prepare", "node 3 failed"),
        ("", "RuntimeError"),
        ("x" * 400, "x" * 300 + "…"),
    ],
)
def test_the_reason_is_one_line_without_colours(text: str, reason: str) -> None:
    assert reason_of(RuntimeError(text)) == reason
