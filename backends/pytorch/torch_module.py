"""Triton's `pytorch` backend (TorchScript) where NVIDIA's is not: same file name, tensors and parameters.

An input is `<anything>__<position>`, or the name of an argument of forward(); an output is
`<anything>__<position>`. Where one name breaks that rule, the order in config.pbtxt counts.
Parameters: INTRA_OP_THREAD_COUNT, INTER_OP_THREAD_COUNT, INFERENCE_MODE, DISABLE_OPTIMIZED_EXECUTION.
"""

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import batching

# OpenMP's threads spin between two operations, which takes the second core from server and client: with two
# threads on a busy 2-core machine, mobilenet took 117 to 287 ms (p50), and 24 to 37 ms with this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch  # reads the environment when it is loaded

_FILENAME = "model.pt"

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_INT_MAX = 2**31 - 1


def complete(config: Any) -> Any:
    """Refuse omitted tensors: TorchScript knows neither their types nor their shapes."""
    model = config.as_dict()["name"]
    raise batching.LoadError(f"{model}: config.pbtxt must declare input and output for TorchScript")


def load(args: Mapping[str, str]) -> tuple[batching.Config, batching.Run]:
    """Open the file and compare it with the configuration."""
    config = batching.read_config(args, _FILENAME)
    _keep_freed_memory()
    _set_threads(config)
    device = _device(config)
    return config, _runner(config, _open(config, device), device)


def _keep_freed_memory() -> None:
    """Tell glibc not to give freed tensors back to the kernel, which would zero each page again.

    torch allocates every activation anew: mobilenet with a batch of 64 takes 27 ms an image instead of 85 ms.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _INT_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX)


def _set_threads(config: batching.Config) -> None:
    # Both are settings of the process, and every instance is a process of its own.
    if intra := config.integer("INTRA_OP_THREAD_COUNT"):
        torch.set_num_threads(intra)
    if inter := config.integer("INTER_OP_THREAD_COUNT"):
        torch.set_num_interop_threads(inter)


def _device(config: batching.Config) -> torch.device:
    if config.gpu is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise batching.LoadError(
            f"{config.model}: KIND_GPU, but this torch has no CUDA; use KIND_CPU (--device cpu)"
        )
    return torch.device("cuda", config.gpu)


def _open(config: batching.Config, device: torch.device) -> torch.jit.ScriptModule:
    try:
        module = torch.jit.load(str(config.file), map_location=device)
    except Exception as error:
        raise batching.unreadable(config.model, config.file, error) from error
    # Freezing folds the weights, batch normalisation among them, into the graph as constants.
    module = torch.jit.freeze(module.eval())
    if device.type != "cpu" or config.boolean("DISABLE_OPTIMIZED_EXECUTION", default=False):
        return module
    # oneDNN's own weight layouts, packed once. In batches of 8 on two threads, mobilenet took 0.82 and
    # resnet50 0.78 of the frozen graph's time; channels_last took 0.85 and 0.87, and added nothing to this.
    return torch.jit.optimize_for_inference(module)


def _runner(config: batching.Config, module: torch.jit.ScriptModule, device: torch.device) -> batching.Run:
    names = _input_order(config, _argument_names(module))
    indices = _output_indices(config, _output_count(module))
    is_optimized = not config.boolean("DISABLE_OPTIMIZED_EXECUTION", default=False)
    no_gradients = torch.inference_mode if config.boolean("INFERENCE_MODE", default=True) else torch.no_grad

    def run(feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        with no_gradients(), torch.jit.optimized_execution(is_optimized):
            answer = module(*[torch.from_numpy(feed[name]).to(device) for name in names])
        results = answer if isinstance(answer, tuple | list) else (answer,)
        return [results[indices[name]].cpu().numpy() for name in wanted]

    return run


def _input_order(config: batching.Config, arguments: Sequence[str]) -> list[str]:
    """The configuration's input names in the order of forward()'s arguments."""
    names = [tensor.name for tensor in config.inputs]
    places = [arguments.index(name) if name in arguments else _position(name) for name in names]
    if None in places:
        places = list(range(len(names)))
    if sorted(places) != list(range(len(arguments))):
        raise batching.LoadError(
            f"{config.model}: inputs {', '.join(names)} do not cover the arguments of forward()"
            f" in {config.file}: {', '.join(arguments)}"
        )
    return [name for _, name in sorted(zip(places, names, strict=True))]


def _output_indices(config: batching.Config, count: int | None) -> dict[str, int]:
    """Position of every declared output in what forward() returns (`count` tensors; None: not known)."""
    names = [tensor.name for tensor in config.outputs]
    places = [_position(name) for name in names]
    if None in places:
        places = list(range(len(names)))
    for name, place in zip(names, places, strict=True):
        if count is not None and place >= count:
            raise batching.LoadError(
                f"{config.model}: {config.file} has no output {name!r}; forward() returns {count} tensor(s)"
            )
    return dict(zip(names, places, strict=True))


def _position(name: str) -> int | None:
    match = re.fullmatch(r".+__(\d+)", name)
    return int(match[1]) if match else None


def _argument_names(module: torch.jit.ScriptModule) -> list[str]:
    return [argument.name for argument in module.forward.schema.arguments[1:]]


def _output_count(module: torch.jit.ScriptModule) -> int | None:
    kind = module.forward.schema.returns[0].type
    if kind.kind() == "TensorType":
        return 1
    return len(kind.elements()) if kind.kind() == "TupleType" else None
