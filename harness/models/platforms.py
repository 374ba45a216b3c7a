"""What serves a model: each framework, declared once. Standard library only.

Adding one is a member of `Platform` and its declaration in `_DECLARED`. What else is needed is code:
- `harness.models`: a `Variant` in the module of each model that it serves;
- `converters.conversion.model_files` (and a door in `converters.formats`): its files are opened and written;
- `harness.bench.limit.frameworks`: it is called directly, to see what serving costs;
- `backends/`, `harness.server.container.backends` and requirements.txt: a backend of ours, where one of the
  supported releases of Triton has none;
- `harness.machine.environment`: its package, whose version is written into results;
- `harness.run.mlperf.reference`: the reference's word for it, if it has another.
`tests/unit/models/test_platforms.py` says what is still missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from types import MappingProxyType


class Platform(StrEnum):
    """A framework that serves a model; the value is the word used on the command line and in entry names."""

    TENSORFLOW = "tensorflow"
    TENSORFLOW_SAVEDMODEL = "tensorflow-savedmodel"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    PYTORCH = "pytorch"
    TFLITE = "tflite"

    @property
    def facts(self) -> "Facts":
        """What is declared of it."""
        return _DECLARED[self]


@dataclass(frozen=True)
class Facts:
    """What is to be known of a platform; names and defaults are those of Triton's backends' READMEs."""

    triton_backend: str
    """`backend` of config.pbtxt: the folder that Triton looks the implementation up in."""
    model_filename: str
    """File (or folder) inside the version folder, by the native backend's convention."""
    thread_parameter: str
    """The backend's parameter for the threads of one instance."""
    made_from: tuple[str, ...]
    """Endings of the files that an entry can be made from; "" is a SavedModel's folder."""
    tools: tuple[str, ...]
    """Packages that have a say in an entry: their versions are recorded with it."""
    other_filenames: tuple[str, ...] = ()
    """Files that a user may bring for it and that keep their kind, with that kind's ending."""
    triton_platform: str = ""
    """`platform` of config.pbtxt, empty where Triton has no native platform of that kind."""
    endings: tuple[str, ...] = ()
    """Of files that are the platform's own: given such a file and no platform, this one is meant."""
    spin_parameter: str = ""
    """The backend's parameter that keeps idle threads awake between operators, if it is "1"; empty: none."""
    is_cpu_only: bool = False
    """Whether its backend refuses every other kind of instance."""
    refuses_other_batches: bool = False
    """Whether a file with a fixed batch axis is refused other sizes, so that Triton must take that axis for a
    part of the shape."""
    chooses_precision: bool = False
    """Whether the framework may calculate less precisely than the file says, and can be told not to."""
    twin: Platform | None = None
    """The platform whose very file it serves."""
    same_runtime_as: Platform | None = None
    """The platform that runs the same graph in the same runtime, from another file: what was measured with it
    holds for this one."""


_FROM_TENSORFLOW = (".pb", "")
_ONNX_TOOLS = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")

_DECLARED: Mapping[Platform, Facts] = {
    Platform.TENSORFLOW: Facts(
        triton_backend="tensorflow",
        triton_platform="tensorflow_graphdef",
        model_filename="model.graphdef",
        thread_parameter="TF_NUM_INTRA_THREADS",
        endings=(".pb",),
        made_from=_FROM_TENSORFLOW,
        tools=("tensorflow", "onnx"),
    ),
    Platform.TENSORFLOW_SAVEDMODEL: Facts(
        triton_backend="tensorflow",
        triton_platform="tensorflow_savedmodel",
        model_filename="model.savedmodel",
        thread_parameter="TF_NUM_INTRA_THREADS",
        made_from=_FROM_TENSORFLOW,
        tools=("tensorflow",),
        same_runtime_as=Platform.TENSORFLOW,
    ),
    Platform.ONNXRUNTIME: Facts(
        triton_backend="onnxruntime",
        triton_platform="onnxruntime_onnx",
        model_filename="model.onnx",
        thread_parameter="intra_op_thread_count",
        # Sooner in one query, in the way of all that runs beside it.
        spin_parameter="session.intra_op.allow_spinning",
        endings=(".onnx",),
        made_from=(".onnx", *_FROM_TENSORFLOW),
        tools=_ONNX_TOOLS,
        refuses_other_batches=True,
    ),
    Platform.OPENVINO: Facts(
        triton_backend="openvino",
        # Its own default is model.xml; every entry names its file.
        model_filename="model.onnx",
        thread_parameter="INFERENCE_NUM_THREADS",
        other_filenames=("model.xml",),
        endings=(".xml",),
        made_from=(".onnx", ".xml", *_FROM_TENSORFLOW),
        # It reads the very file; what it answers, the live server's self-test shows.
        tools=_ONNX_TOOLS,
        is_cpu_only=True,
        refuses_other_batches=True,
        chooses_precision=True,
        twin=Platform.ONNXRUNTIME,
    ),
    Platform.PYTORCH: Facts(
        triton_backend="pytorch",
        triton_platform="pytorch_libtorch",
        model_filename="model.pt",
        thread_parameter="INTRA_OP_THREAD_COUNT",
        endings=(".pt", ".pth"),
        made_from=(".pt", ".pth", *_FROM_TENSORFLOW),
        tools=("tensorflow", "onnx", "torch"),
    ),
    # Triton has no backend for it: the names are our own one's.
    Platform.TFLITE: Facts(
        triton_backend="tflite",
        model_filename="model.tflite",
        thread_parameter="num_threads",
        endings=(".tflite",),
        made_from=(".tflite", *_FROM_TENSORFLOW),
        tools=("tensorflow", "ai-edge-litert"),
        is_cpu_only=True,
    ),
}


def ending_of(path: PurePath) -> str:
    """A file's ending as it is declared here, in whichever case it is written."""
    return path.suffix.lower()


BY_ENDING: Mapping[str, Platform] = MappingProxyType(
    {ending: platform for platform in Platform for ending in platform.facts.endings}
)
"""Whose own files end so."""
