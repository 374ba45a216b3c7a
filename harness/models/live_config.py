"""The configuration that a model is served with: read, compared, changed in part. Triton's own ModelConfig.

Here a live configuration is what `TritonClient.model_config` returns: plain JSON with the schema's names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from harness.errors import ConfigError
from harness.models.model_config import ServerSettings, to_json
from harness.models.platforms import Facts
from harness.models.spec import Precision

Live = Mapping[str, Any]

_LARGEST = 2**31 - 1
"""Of what a configuration counts."""
_NO_GPU = -1
"""The one device of instances that no GPU is listed for."""
_DEVICES = {"KIND_CPU": "cpu", "KIND_GPU": "gpu"}


def read(file: Path) -> str:
    """Read a config.pbtxt, or a part of one.

    Raises:
        ConfigError: it is none, or cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        text_format.Parse(text, ModelConfig())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no config.pbtxt: {str(error).splitlines()[0]}") from error
    return text


def name_in(text: str) -> str:
    """The model that a config.pbtxt, or a part of one, is of; empty where it does not say."""
    return str(text_format.Parse(text, ModelConfig()).name)


def laid_over(live: Live, part: str) -> str:
    """A live configuration but for what a part of a config.pbtxt says, as JSON for a load.

    Messages are joined field by field, maps key by key; lists are replaced as a whole.
    """
    config = _message(live)
    if not _preferred(config):
        # What Triton fills in is impossible with a smaller limit.
        config.dynamic_batching.ClearField("preferred_batch_size")
    _clear_lists(config, text_format.Parse(part, ModelConfig()))
    # Its text, not the message made of it, in which a number that is set to 0 is as one that is not there.
    text_format.Merge(part, config)
    return to_json(config)


def said_in(part: str, facts: Facts) -> dict[str, Any]:
    """What a part of a config.pbtxt says itself of what a run can choose, by the fields of `ServerSettings`.

    Args:
        part: its text.
        facts: as for `settings_of`.
    """
    # What is the same, whatever it is laid over: a message does not tell a 0 that is said from silence.
    one, other = (
        vars(settings_of(json.loads(laid_over(_filled(number, facts), part)), facts))
        for number in (_LARGEST - 1, _LARGEST)
    )
    # No configuration says that one.
    return {name: value for name, value in one.items() if value == other[name] and name != "precision"}


def _filled(number: int, facts: Facts) -> Live:
    """A configuration of which each setting is another one than with another number, odd or even."""
    config = ModelConfig(max_batch_size=number)
    config.dynamic_batching.max_queue_delay_microseconds = number
    config.dynamic_batching.preferred_batch_size.extend((1, number))
    config.instance_group.add(count=number, gpus=(number,), kind=number % 2)
    config.parameters[facts.thread_parameter].string_value = str(number)
    return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))


def with_settings(live: Live, ours: ModelConfig, *, is_any_device: bool, is_batch_asked: bool = False) -> str:
    """A live configuration with the settings of ours instead of its own, as JSON for a load.

    Tensors, versions and files stay its own, and so do parameters of another backend.

    Args:
        live: of a model that fits ours, though another file or backend may be behind it.
        ours: what `model_config` makes.
        is_any_device: its instances stay on the devices that they are on, each of which has as many as ours.
        is_batch_asked: the batch limit of ours was asked for, and the live one does not bound it.
    """
    config = _message(live)
    limit = ours.max_batch_size if is_batch_asked and config.max_batch_size else config.max_batch_size
    config.max_batch_size = min(ours.max_batch_size, limit)
    own = [group for group in config.instance_group if is_any_device and not group.passive]
    groups = _with_count(own, ours.instance_group[0].count) or ours.instance_group
    config.ClearField("instance_group")
    config.instance_group.extend(groups)
    if config.WhichOneof("scheduling_choice") in (None, "dynamic_batching"):
        config.ClearField("dynamic_batching")
        if ours.HasField("dynamic_batching") and config.max_batch_size > 1:
            config.dynamic_batching.CopyFrom(ours.dynamic_batching)
    if config.backend == ours.backend:
        config.MergeFrom(ModelConfig(parameters=ours.parameters))
    return to_json(config)


def _with_count(groups: Sequence[ModelInstanceGroup], count: int) -> list[ModelInstanceGroup]:
    """The groups where they are, with so many instances together on each device, of which none goes without.

    Groups on the same devices share them out; those that nothing is left for are not among the result.
    """
    if not any(group.gpus for group in groups):
        groups = groups[:1]
    devices = [tuple(group.gpus) or (_NO_GPU,) for group in groups]
    missing = {device: count for listed in devices for device in listed}
    found = []
    for number, (group, listed) in enumerate(zip(groups, devices, strict=True)):
        to_come = [device for others in devices[number:] for device in others]
        share = max(-(-missing[device] // to_come.count(device)) for device in listed)
        missing |= {device: max(0, missing[device] - share) for device in listed}
        if share:
            kept = ModelInstanceGroup()
            kept.CopyFrom(group)
            kept.count = share
            found.append(kept)
    return found


def settings_of(live: Live, facts: Facts) -> ServerSettings:
    """What of a live configuration a run can choose; its precision is another question.

    Args:
        live: of the model.
        facts: of the platform that its backend is, which says what it calls its threads.
    """
    config = _message(live)
    groups = [group for group in config.instance_group if not group.passive]
    kinds = {
        _DEVICES.get(model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind), "auto") for group in groups
    }
    parameters = {name: value.string_value for name, value in sorted(config.parameters.items())}
    threads = parameters.pop(facts.thread_parameter, "")
    batching = config.dynamic_batching
    return ServerSettings(
        # Of a group of several GPUs, on each.
        instances=sum(group.count * max(1, len(group.gpus)) for group in groups),
        threads=int(threads) if threads.isdecimal() else 0,
        max_batch_size=config.max_batch_size,
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        device=kinds.pop() if len(kinds) == 1 else "auto",
        parameters=tuple(parameters.items()),
        precision=Precision.AUTO,
        gpus=tuple(sorted({gpu for group in groups for gpu in group.gpus})),
        preferred_batch=_preferred(config),
        joins=config.HasField("dynamic_batching"),
    )


def _preferred(config: ModelConfig) -> tuple[int, ...]:
    """Sizes of batches that somebody prefers; where nobody does, Triton fills in the limit."""
    sizes = tuple(config.dynamic_batching.preferred_batch_size)
    return () if sizes == (config.max_batch_size,) else sizes


def has_settings(live: Live, sent_json: str) -> bool:
    """Whether a model is served with what was sent with a load, which Triton completes."""
    sent, config = json_format.Parse(sent_json, ModelConfig()), _message(live)
    return (
        config.max_batch_size == sent.max_batch_size
        and [group.count for group in config.instance_group] == [group.count for group in sent.instance_group]
        and config.dynamic_batching.max_queue_delay_microseconds
        == sent.dynamic_batching.max_queue_delay_microseconds
        and all(config.parameters.get(name) == value for name, value in sent.parameters.items())
    )


def _message(live: Live) -> ModelConfig:
    # A later Triton may have fields that this schema does not.
    return json_format.ParseDict(dict(live), ModelConfig(), ignore_unknown_fields=True)


def _clear_lists(config: Message, part: Message) -> None:
    """Empty every list that `part` has something in; a map is none."""
    for field, value in part.ListFields():
        is_map = field.message_type and field.message_type.GetOptions().map_entry
        if field.is_repeated and not is_map:
            config.ClearField(field.name)
        elif field.message_type and not is_map and config.HasField(field.name):
            _clear_lists(getattr(config, field.name), value)
