"""A variant plus server settings as Triton's own ModelConfig: config.pbtxt and load-time overrides."""

from dataclasses import dataclass

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from harness.models.platforms import Platform
from harness.models.spec import Precision, TensorSpec, Variant

RUN_BATCH = "run_batch_size"
"""Of our own backends (backends/batching.py): most samples that the framework is given at once."""

DEVICES = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class ServerSettings:
    """What Triton is told about serving one model. 0 leaves a figure to the server or framework."""

    instances: int = 1
    """On each device; of a live configuration, on all of them together."""
    threads: int = 0
    """Threads of one instance inside the framework."""
    max_batch_size: int = 0
    """0: the variant's own limit."""
    max_queue_delay_us: int = 0
    """How long the dynamic batcher may hold a request back to fill a batch."""
    device: str = "auto"
    parameters: tuple[tuple[str, str], ...] = ()
    """More of the backend's parameters, by name."""
    precision: Precision = Precision.AUTO
    gpus: tuple[int, ...] = ()
    """Which GPUs have instances, by Triton's numbers; empty: all of them, or none."""
    preferred_batch: tuple[int, ...] = ()
    """Sizes that the dynamic batcher aims at; empty: whatever waits."""
    joins: bool = True
    """Whether requests that wait are run together, as far as the largest batch goes: the dynamic batcher."""


def model_config(
    entry: str, variant: Variant, settings: ServerSettings | None = None
) -> model_config_pb2.ModelConfig:
    """Build the complete configuration of an entry (nothing is left to Triton's auto-complete)."""
    settings, facts = settings or ServerSettings(), variant.platform.facts
    config = model_config_pb2.ModelConfig(
        name=entry,
        platform=facts.triton_platform,
        backend=facts.triton_backend,
        default_model_filename=variant.model_filename,
    )
    if variant.max_batch_size:
        config.max_batch_size = min(settings.max_batch_size or variant.max_batch_size, variant.largest_batch)
    has_batch_axis = variant.max_batch_size > 0
    _declare(config.input.add(), variant.input, has_batch_axis)
    for output in variant.outputs:
        _declare(config.output.add(), output, has_batch_axis)
    kind = f"KIND_{settings.device.upper()}"
    if facts.is_cpu_only and settings.device == "auto":
        # Triton would turn "auto" into a GPU where it sees one.
        kind = "KIND_CPU"
    config.instance_group.add(
        count=settings.instances,
        kind=model_config_pb2.ModelInstanceGroup.Kind.Value(kind),
        gpus=settings.gpus,
    )
    if config.max_batch_size > 1:
        config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
        config.dynamic_batching.preferred_batch_size.extend(settings.preferred_batch)
    if settings.threads:
        config.parameters[facts.thread_parameter].string_value = str(settings.threads)
    for name, value in settings.parameters:
        config.parameters[name].string_value = value
    if variant.platform == Platform.OPENVINO:
        _configure_openvino(config, settings)
    # Without a batch axis, a warm-up of 0 samples is one request.
    warmup = config.model_warmup.add(name="first call", batch_size=int(has_batch_axis), count=1)
    sample = warmup.inputs[variant.input.name]
    sample.data_type = config.input[0].data_type
    sample.dims.extend(config.input[0].dims)
    sample.zero_data = True
    return config


def _configure_openvino(config: model_config_pb2.ModelConfig, settings: ServerSettings) -> None:
    if config.max_batch_size > 1:
        # The native backend compiles the model for full batches, and pads smaller ones only if told to.
        config.parameters["ENABLE_BATCH_PADDING"].string_value = "YES"
    if settings.precision == Precision.FP32:
        config.parameters["INFERENCE_PRECISION_HINT"].string_value = "f32"


def dims(spec: TensorSpec, has_batch_axis: bool) -> tuple[int, ...]:
    """`dims` of a tensor in config.pbtxt: without the batch axis, where the model has one."""
    return (spec.shape or (1,)) if has_batch_axis else (1, *spec.shape)


def to_text(config: model_config_pb2.ModelConfig) -> str:
    """Render as config.pbtxt."""
    return str(text_format.MessageToString(config))


def to_json(config: model_config_pb2.ModelConfig) -> str:
    """Render as the JSON that the model control API takes as an override."""
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True))


def _declare(
    tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput,
    spec: TensorSpec,
    has_batch_axis: bool,
) -> None:
    tensor.name = spec.name
    tensor.data_type = model_config_pb2.DataType.Value(f"TYPE_{spec.dtype.triton}")
    tensor.dims.extend(dims(spec, has_batch_axis))
    if has_batch_axis and not spec.shape:
        # Triton has no empty dims: one number on the wire, which the reshape folds away for the backend.
        tensor.reshape.SetInParent()
