"""How a conversion speaks of the files that it makes and removes."""

from pathlib import Path

import pytest

from converters.conversion import convert, own_files
from converters.conversion.weights import SourceFile
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.manifest import USER_FILE
from harness.models.platforms import Platform


def test_the_entries_of_files_with_long_names_have_shorter_ones_of_their_own() -> None:
    paths = [Path("/mine") / f"{'m' * 240}{ending}.onnx" for ending in "ab"]
    names = [own_files.entry_name(path, Platform.ONNXRUNTIME) for path in paths]
    assert names[0] != names[1]
    # With what is put around it, e.g. for the folder of a run.
    assert all(len(f"20261128-092302_{name}_SingleStream.building") <= 255 for name in names)


@pytest.mark.parametrize(
    ("made", "said"),
    [("model.onnx", "/mine/net.onnx as onnxruntime's model.onnx"), ("weights.bin", "/mine/weights.bin")],
)
def test_an_error_names_the_users_files_and_none_of_those_that_are_made_of_them(made: str, said: str) -> None:
    source = SourceFile(USER_FILE, Path("/mine/net.onnx"), "0")
    request = convert.Request(
        MODELS["mobilenet"], Platform.ONNXRUNTIME, str(source.path), Path("/repository")
    )
    staging = Path("/repository/.net.tmp")
    with (
        pytest.raises(ConversionError) as caught,
        convert._in_the_users_words(request, source, staging),
    ):
        raise ConversionError(f"{staging}/1/{made}: no such tensor")
    assert str(caught.value) == f"{said}: no such tensor"
