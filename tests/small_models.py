"""The same tiny model in every format, with all element types that we serve.

For `pixels` (n, 4) uint8 and `index` (n,) int64 it answers `doubled` (n, 4) int32 = 2 * pixels, `row` (n, 2)
float32 = TABLE[index], and `best` (n,) int64 = the position of the largest pixel. An index beyond the table
makes the framework itself fail, which depends on the data alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.models.platforms import Platform

TABLE = np.array([[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]], np.float32)


def write_onnx(path: Path, batch: int | None = None) -> None:
    import onnx
    from onnx import TensorProto, helper

    size = "batch" if batch is None else batch
    nodes = [
        helper.make_node("Cast", ["pixels"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Add", ["wide", "wide"], ["doubled"]),
        helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
        # OpenVINO answers zeros to an index beyond the table, which must fail: let it make a row too many.
        helper.make_node("ReduceMax", ["index"], ["highest"], keepdims=1),
        helper.make_node("Greater", ["highest", "last"], ["is_beyond"]),
        helper.make_node("Cast", ["is_beyond"], ["surplus"], to=TensorProto.INT64),
        helper.make_node("Shape", ["index"], ["rows"]),
        helper.make_node("Add", ["rows", "surplus"], ["height"]),
        helper.make_node("Concat", ["height", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["found", "shape"], ["row"]),
        helper.make_node("ArgMax", ["wide"], ["best"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, [size, 4]),
            helper.make_tensor_value_info("index", TensorProto.INT64, [size]),
        ],
        [
            helper.make_tensor_value_info("doubled", TensorProto.INT32, [size, 4]),
            helper.make_tensor_value_info("row", TensorProto.FLOAT, [size, 2]),
            helper.make_tensor_value_info("best", TensorProto.INT64, [size]),
        ],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in {
                "table": TABLE,
                "last": np.array([len(TABLE) - 1], np.int64),
                "width": np.array([TABLE.shape[1]], np.int64),
            }.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def write_torchscript(path: Path) -> None:
    import torch

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.from_numpy(TABLE), requires_grad=False)

        def forward(self, pixels: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
            wide = pixels.to(torch.int32)
            return wide + wide, self.table[index], wide.argmax(1)

    example = torch.zeros(2, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    torch.jit.trace(Small().eval(), example).save(str(path))


def _build_graph(batch: int | None):
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.uint8, [batch, 4], "pixels")
        index = tf.compat.v1.placeholder(tf.int64, [batch], "index")
        wide = tf.cast(pixels, tf.int32)
        if batch is None:
            doubled = tf.add(wide, wide, "doubled")
        else:
            # As converters leave it in real files: a shape that no other batch size fits.
            twice = tf.reshape(tf.tile(wide, [1, 2]), [batch, 2, 4])
            doubled = tf.reduce_sum(twice, 1, name="doubled")
        row = tf.gather(tf.constant(TABLE), index, name="row")
        best = tf.argmax(wide, 1, name="best")
    return graph, {"pixels": pixels, "index": index}, {"doubled": doubled, "row": row, "best": best}


def write_graphdef(path: Path) -> None:
    graph, _, _ = _build_graph(None)
    path.write_bytes(graph.as_graph_def().SerializeToString())


def write_savedmodel(path: Path, batch: int | None = None) -> None:
    import tensorflow as tf

    graph, inputs, outputs = _build_graph(batch)
    with tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.saved_model.simple_save(session, str(path), inputs, outputs)


def write_tflite(path: Path, batch: int | None = None) -> None:
    import tempfile

    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved"
        write_savedmodel(saved, batch)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())


def write_detector(path: Path, classes: int) -> None:
    """A TFLite file that ends in LiteRT's detection operation with regular NMS, as converters leave it.

    For `scores` (1, classes, classes) it answers one box per class whose anchor has a score there.
    """
    import tempfile

    import tensorflow as tf
    from ai_edge_litert.tools import flatbuffer_utils

    from converters.networks.ssd_mobilenet.tflite import IDLE_TENSOR, DetectionOptions, append_detection

    with tempfile.TemporaryDirectory() as folder:
        saved, graph = Path(folder) / "saved", tf.Graph()
        with graph.as_default(), tf.compat.v1.Session() as session:
            scores = tf.compat.v1.placeholder(tf.float32, [1, classes, classes], "scores")
            encodings = tf.identity(0 * scores[:, :, :4], "encodings")
            tf.compat.v1.saved_model.simple_save(
                session, str(saved), {"scores": scores}, {"encodings": encodings, "same": scores + 0}
            )
        content = tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert()
    predictors = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = predictors.subgraphs
    graph.outputs = sorted(graph.outputs, key=lambda index: graph.tensors[index].shape[2])
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(predictors))
    side = 1.0 / classes
    anchors = np.array([[(i + 0.5) * side, 0.5, side / 2, 0.5] for i in range(classes)], np.float32)
    options = DetectionOptions(classes, 0.1, 0.5, (1.0, 1.0, 1.0, 1.0))
    names = ("boxes", "classes", "found", "count")
    model = flatbuffer_utils.convert_bytearray_to_object(
        bytearray(append_detection(content, anchors, options, names))
    )
    (inner,) = model.subgraphs
    (detect,) = (operator for operator in inner.operators if operator.customOptions is not None)
    # Straight out of the operation, without our clipping and shifting.
    for wanted, name in zip(detect.outputs, names, strict=True):
        inner.tensors[wanted].name = f"{name}_of_op".encode()
    (idle,) = (tensor for tensor in inner.tensors if tensor.name == IDLE_TENSOR.encode())
    idle.name = b"unused"
    inner.outputs = list(detect.outputs)
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


_WRITERS: dict[Platform, Callable[[Path], None]] = {
    Platform.ONNXRUNTIME: write_onnx,
    Platform.OPENVINO: write_onnx,
    Platform.PYTORCH: write_torchscript,
    Platform.TENSORFLOW: write_graphdef,
    Platform.TENSORFLOW_SAVEDMODEL: write_savedmodel,
    Platform.TFLITE: write_tflite,
}
PLATFORMS = list(_WRITERS)

_INPUTS = {"pixels": ("UINT8", [4]), "index": ("INT64", [])}
_OUTPUTS = {"doubled": ("INT32", [4]), "row": ("FP32", [2]), "best": ("INT64", [])}
_TORCH_NAMES = {
    "pixels": "INPUT__0",
    "index": "INPUT__1",
    "doubled": "OUTPUT__0",
    "row": "OUTPUT__1",
    "best": "OUTPUT__2",
}


def write_onnx_classifier(
    path: Path,
    *,
    batch: int | str = "n",
    sides: tuple[int | str, ...] = (32, 48),
    dtype=np.float32,
    seed=0,
    quantization: tuple[float, int] | None = None,
    is_reshaped: bool = False,
    best: int = 0,
) -> None:
    """Twelve classes, of `image` (batch, 3, *sides).

    It may be quantised, of that scale and zero point, and read behind a Reshape; of the scores there may be
    only the `best`, with their classes.
    """
    from onnx import TensorProto, helper, numpy_helper

    kind = image_kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {"kernel": np.random.default_rng(seed).standard_normal((12, 3, 2, 2)).astype(dtype)}
    dequantize = []
    if quantization:
        zero_point = np.array(quantization[1], np.int8 if quantization[1] < 0 else np.uint8)
        image_kind = TensorProto.INT8 if quantization[1] < 0 else TensorProto.UINT8
        constants |= {"scale": np.array(quantization[0], np.float32), "zero": zero_point}
        constants |= {"shape": np.array([-1, 3, *sides], np.int64)} if is_reshaped else {}
        read = "reshaped" if is_reshaped else "image"
        dequantize = [helper.make_node("Reshape", ["image", "shape"], ["reshaped"])] if is_reshaped else []
        dequantize += [helper.make_node("DequantizeLinear", [read, "scale", "zero"], ["real"])]
    nodes = [
        *dequantize,
        helper.make_node(
            "Conv", ["real" if quantization else "image", "kernel"], ["features"], strides=[2, 2]
        ),
        helper.make_node("GlobalMaxPool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info("scores", kind, [batch, 12])]
    if best:
        constants["k"] = np.array([best], np.int64)
        nodes.append(helper.make_node("TopK", ["scores", "k"], ["values", "indices"]))
        outputs = [
            helper.make_tensor_value_info("values", kind, [batch, best]),
            helper.make_tensor_value_info("indices", TensorProto.INT64, [batch, best]),
        ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", image_kind, [batch, 3, *sides])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path.parent.mkdir(exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write(platform: Platform, path: Path) -> None:
    """Write the model's file (or folder) in the platform's format."""
    _WRITERS[platform](path)


def tensor_name(platform: Platform, role: str) -> str:
    """What the platform calls one of the tensors."""
    return _TORCH_NAMES[role] if platform == Platform.PYTORCH else role


def bare_config_text(platform: Platform) -> str:
    """The part of config.pbtxt that no file can say."""
    return (
        f'backend: "{platform.facts.triton_backend}"\nplatform: "{platform.facts.triton_platform}"\n'
        f'default_model_filename: "{platform.facts.model_filename}"'
    )


def config_text(platform: Platform, extra: str = "", whole_batch: int = 0) -> str:
    """The complete config.pbtxt.

    Batching whatever arrives within 100 ms, up to 8; or, with `whole_batch`, without batching: the first axis
    of every tensor then has that size.
    """
    lines = [bare_config_text(platform)]
    lines += ["instance_group { count: 1 kind: KIND_CPU }"]
    if not whole_batch:
        lines += ["max_batch_size: 8", "dynamic_batching { max_queue_delay_microseconds: 100000 }"]
    for kind, tensors in (("input", _INPUTS), ("output", _OUTPUTS)):
        for role, (dtype, dims) in tensors.items():
            shape = f"dims: {[whole_batch, *dims]}" if whole_batch else _row_dims(dims)
            lines.append(
                f'{kind} {{ name: "{tensor_name(platform, role)}" data_type: TYPE_{dtype} {shape} }}'
            )
    return "\n".join([*lines, extra])


def _row_dims(dims: list[int]) -> str:
    return f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
