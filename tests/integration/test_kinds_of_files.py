"""Frameworks' files as users have them, drawn here and converted; no server."""

import numpy as np
import pytest

from converters import source
from converters.conversion import model_files
from converters.conversion.convert import Request, convert
from converters.conversion.own_files import Said
from harness.data import preprocess
from harness.errors import ConfigError, ConversionError
from harness.models import MODELS, in_use, manifest
from harness.models.platforms import Platform
from harness.models.spec import DType
from tests.small_models import write_onnx_classifier


def _convert(folder, path, platform, said=None, model="resnet50"):
    request = Request(MODELS[model], platform, str(path), folder / "repository", said=said or Said())
    return convert(request)


def _refusal(folder, path, platform=Platform.PYTORCH, **rest):
    """The error's words, which name the user's file and nothing of ours."""
    with pytest.raises((ConversionError, ConfigError)) as caught:
        _convert(folder, path, platform, **rest)
    text = str(caught.value)
    assert text.startswith(f"{path}")
    assert "repository" not in text
    assert "\x1b" not in text
    assert "\n" not in text
    return text.removeprefix(f"{path}")


@pytest.fixture
def nets():
    """Small networks of PyTorch, by name."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Normalised(nn.Module):
        """Freezing folds the batch normalisation, and so rounds otherwise."""

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 64, 7, 4), nn.BatchNorm2d(64), nn.ReLU())
            self.head = nn.Linear(64, 50)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3))) * 20

    class OfOneSize(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * 6 * 6, 10)

        def forward(self, x):
            return self.head(nn.functional.avg_pool2d(x, 16).flatten(1))

    return {"normalised": Normalised().eval(), "96": OfOneSize().eval()}


def test_torchscript_in_fp16_is_fed_fp16_and_judged_so(tmp_path, nets):
    import torch

    torch.jit.script(nets["normalised"].half()).save(tmp_path / "half.pt")
    made = _convert(tmp_path, tmp_path / "half.pt", Platform.PYTORCH)
    assert made.variant.input.dtype == made.variant.outputs[0].dtype == DType.FP16
    assert made.variant.is_half
    # What the server runs is frozen: it differs from the source, and by less than is allowed.
    assert 0 < made.parity.max_abs_diff <= made.parity.tolerance < 1
    samples = np.load(tmp_path / "repository" / made.entry / "golden.npz")
    assert samples["input"].dtype == np.float16
    labels = source.predict(tmp_path / "repository" / made.entry, samples["input"])
    assert labels.tolist() == samples["output:OUTPUT__0"].argmax(axis=1).tolist()


def test_torchscript_of_another_size_is_told_it(tmp_path, nets):
    import torch

    torch.jit.script(nets["96"]).save(tmp_path / "net.pt")
    text = _refusal(tmp_path, tmp_path / "net.pt")
    assert "mat1 and mat2 shapes cannot be multiplied (1x588 and 108x10); --preprocess size=" in text
    made = _convert(tmp_path, tmp_path / "net.pt", Platform.PYTORCH, Said("size=96,scale=1/255"))
    assert made.variant.input.shape == (3, 96, 96)
    samples = np.load(tmp_path / "repository" / made.entry / "golden.npz")["input"]
    assert source.predict(tmp_path / "repository" / made.entry, samples).shape == (len(samples),)


def test_what_triton_does_not_take_from_torchscript_is_said_and_no_size_is_asked_for(tmp_path, nets):
    import torch
    from torch import nn

    class Answering(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.net, self.answer = nets["normalised"], answer

        def forward(self, x):
            return self.answer(self.net(x))

    answers = {
        "dict": lambda scores: {"logits": scores, "best": scores.argmax(1)},
        "nested": lambda scores: (scores, (scores, scores)),
        "bf16": lambda scores: scores.to(torch.bfloat16),
    }
    texts = {}
    for name, answer in answers.items():
        images = torch.zeros(2, 3, 96, 96)
        torch.jit.trace(Answering(answer).eval(), images, strict=False).save(tmp_path / f"{name}.pt")
        texts[name] = _refusal(tmp_path, tmp_path / f"{name}.pt")
    assert texts["dict"].startswith(": answers with a dictionary (logits, best), and Triton takes a tensor")
    assert texts["nested"].startswith(": answers with a tuple, and Triton takes a tensor")
    assert texts["bf16"].startswith(": answers in bfloat16: export a module that returns float32")
    assert "--preprocess" not in "".join(texts.values())


def test_torchscript_of_the_other_axis_order_is_told_it(tmp_path, nets):
    import torch
    from torch import nn

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nets["normalised"]

        def forward(self, x):
            return self.net(x.permute(0, 3, 1, 2))

    torch.jit.script(Last().eval()).save(tmp_path / "last.pt")
    assert "; --preprocess size=…,layout=… says others" in _refusal(tmp_path, tmp_path / "last.pt")
    made = _convert(tmp_path, tmp_path / "last.pt", Platform.PYTORCH, Said("size=96,layout=NHWC"))
    assert made.variant.input.shape == (96, 96, 3)
    samples = np.load(tmp_path / "repository" / made.entry / "golden.npz")["input"]
    assert source.predict(tmp_path / "repository" / made.entry, samples).shape == (len(samples),)


def test_pytorch_files_of_another_kind_are_told_by_name(tmp_path, nets):
    import torch

    net = nets["96"]
    torch.save(net.state_dict(), tmp_path / "state.pt")
    for name in ("whole.pt", "whole.pth"):
        torch.save(torch.nn.Sequential(net.head), tmp_path / name)
    torch.jit.script(net).save(tmp_path / "script.pth")
    torch.save({"a": net.state_dict(), "b": net.state_dict()}, tmp_path / "two.pth")
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 96, 96),)), tmp_path / "program.pt")
    text = _refusal(tmp_path, tmp_path / "program.pt")
    assert text.startswith(": a program of torch.export, not TorchScript: save torch.jit.trace(")
    assert "a state dict, not TorchScript: name it .pth" in _refusal(tmp_path, tmp_path / "state.pt")
    for name in ("whole.pt", "whole.pth"):
        text = _refusal(tmp_path, tmp_path / name)
        assert "a whole module" in text
        assert "save model.state_dict() (.pth) or TorchScript (.pt)" in text
    assert "TorchScript, not a state dict: name it .pt" in _refusal(tmp_path, tmp_path / "script.pth")
    assert "it has several: a, b" in _refusal(tmp_path, tmp_path / "two.pth")


def test_a_state_dict_is_unwrapped(tmp_path):
    import torch

    from converters.networks.torch import ResNet50

    torch.manual_seed(0)
    # Of ten classes, as after fine-tuning.
    state = {f"module.{key}": tensor for key, tensor in ResNet50(10).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "best": 0.5}, tmp_path / "tuned.pth")
    with model_files.open_file(tmp_path / "tuned.pth", MODELS["resnet50"], (32, 32)) as graph:
        assert graph.outputs[0].shape == (10,)
    del state["module.fc.bias"]
    torch.save(state | {"module.more": torch.zeros(1)}, tmp_path / "short.pth")
    text = _refusal(tmp_path, tmp_path / "short.pth")
    assert "not the state dict of torchvision's resnet50: lacks fc.bias and has more" in text


def test_an_onnx_file_in_fp16_and_one_that_leaves_its_size_open(tmp_path):
    write_onnx_classifier(tmp_path / "half.onnx", dtype=np.float16)
    write_onnx_classifier(tmp_path / "open.onnx", sides=("h", "w"))
    for platform in (Platform.ONNXRUNTIME, Platform.OPENVINO):
        made = _convert(tmp_path, tmp_path / "half.onnx", platform)
        assert made.variant.input.dtype == DType.FP16
    for text, sides in (("", (224, 224)), ("size=64x96", (64, 96)), ("coco-300-pt", None)):
        if sides is None:
            with pytest.raises(ConfigError, match="is not for a model of classification"):
                _convert(tmp_path, tmp_path / "open.onnx", Platform.ONNXRUNTIME, Said(text))
            continue
        made = _convert(tmp_path, tmp_path / "open.onnx", Platform.ONNXRUNTIME, Said(text))
        assert made.variant.input.shape == (3, *sides)


@pytest.mark.parametrize("platform", [Platform.ONNXRUNTIME, Platform.OPENVINO])
def test_an_onnx_file_of_scores_in_double_precision_whose_ending_is_in_capitals(tmp_path, platform):
    from onnx import TensorProto, helper, load

    write_onnx_classifier(tmp_path / "net.onnx")
    model = load(tmp_path / "net.onnx")
    model.graph.node.append(helper.make_node("Cast", ["scores"], ["double"], to=TensorProto.DOUBLE))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("double", TensorProto.DOUBLE, ["n", 12]))
    (tmp_path / "double.ONNX").write_bytes(model.SerializeToString())
    made = _convert(tmp_path, tmp_path / "double.ONNX", platform)
    assert made.variant.outputs[0].dtype == DType.FP64
    entry = tmp_path / "repository" / made.entry
    assert (entry / "config.pbtxt").read_text().count("TYPE_FP64") == 1
    samples = np.load(entry / "golden.npz")
    labels = source.predict(entry, samples["input"])
    assert labels.tolist() == samples["output:double"].argmax(axis=1).tolist()


@pytest.mark.parametrize("quantization", [(1.25, -10), (1.5, 110), (0.02, -3)])
def test_an_onnx_files_quantised_input_gets_what_the_recipe_makes_of_an_image(tmp_path, quantization):
    """By the formula of ONNX's QuantizeLinear, on an image that no resizing changes."""
    write_onnx_classifier(tmp_path / "q.onnx", sides=(32, 32), quantization=quantization)
    scale, zero_point = quantization
    dtype = np.int8 if zero_point < 0 else np.uint8
    recipe = "size=32,crop=1,mean=120,scale=1"
    for platform in (Platform.ONNXRUNTIME, Platform.OPENVINO):
        made = _convert(tmp_path, tmp_path / "q.onnx", platform, Said(recipe))
        assert made.variant.input.dtype == DType(np.dtype(dtype).name)
        found = made.variant.preprocess.quantization
        assert (found.scale, found.zero_point) == (pytest.approx(scale), zero_point)
    grey = np.full((32, 32, 3), 101, np.uint8)
    limits = np.iinfo(dtype)
    wanted = np.clip(round((101 - 120) / scale) + zero_point, limits.min, limits.max)
    stored = preprocess.apply(grey, made.variant.preprocess)
    assert (stored.dtype, stored.min(), stored.max()) == (dtype, wanted, wanted)


def test_an_onnx_input_of_bytes_without_one_scale_is_refused(tmp_path):
    from onnx import load, numpy_helper, save

    write_onnx_classifier(tmp_path / "q.onnx", sides=(32, 32), quantization=(1.5, 110))
    model = load(tmp_path / "q.onnx")
    for tensor in model.graph.initializer:
        if tensor.name in ("scale", "zero"):
            # Of each channel.
            tensor.CopyFrom(numpy_helper.from_array(np.repeat(numpy_helper.to_array(tensor), 3), tensor.name))
    save(model, tmp_path / "channels.onnx")
    text = _refusal(tmp_path, tmp_path / "channels.onnx", Platform.ONNXRUNTIME)
    assert text.startswith(": input image is stored with no single scale and zero point")


def test_a_quantised_input_is_known_behind_a_change_of_its_shape(tmp_path):
    write_onnx_classifier(tmp_path / "q.onnx", sides=(32, 32), quantization=(1.5, 110), is_reshaped=True)
    found = _convert(tmp_path, tmp_path / "q.onnx", Platform.ONNXRUNTIME).variant.preprocess.quantization
    assert (found.scale, found.zero_point) == (1.5, 110)


@pytest.mark.parametrize("outputs", [(), ("values",)])
def test_the_best_scores_alone_name_no_class(tmp_path, outputs):
    """They fall from the first to the last, so that the first would always be the winner."""
    write_onnx_classifier(tmp_path / "best.onnx", best=5)
    text = _refusal(tmp_path, tmp_path / "best.onnx", Platform.ONNXRUNTIME, said=Said(outputs=outputs))
    assert text.startswith(": values has the best scores only, and indices whose they are: export the scores")


def test_what_is_wrong_is_said_of_the_users_file(tmp_path):
    write_onnx_classifier(tmp_path / "two.onnx", batch=2)
    (tmp_path / "pointer.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
    )
    assert ": its batch size is fixed at 2;" in _refusal(
        tmp_path, tmp_path / "two.onnx", Platform.ONNXRUNTIME
    )
    text = _refusal(tmp_path, tmp_path / "pointer.onnx", Platform.ONNXRUNTIME)
    assert text == " is a Git LFS pointer, not the model: run `git lfs pull` there"
    assert list((tmp_path / "repository").iterdir()) == []


def test_files_of_openvinos_own_kind_are_served_as_they_are(tmp_path):
    import openvino

    write_onnx_classifier(tmp_path / "net.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "net.onnx"), tmp_path / "net.xml")
    made = _convert(tmp_path, tmp_path / "net.xml", Platform.OPENVINO)
    entry = tmp_path / "repository" / made.entry
    assert made.variant.model_filename == "model.xml"
    assert 'default_model_filename: "model.xml"' in (entry / "config.pbtxt").read_text()
    for ending in (".xml", ".bin"):
        copied = entry / "1" / f"model{ending}"
        assert copied.read_bytes() == (tmp_path / f"net{ending}").read_bytes()
    samples = np.load(entry / "golden.npz")
    labels = source.predict(entry, samples["input"])
    assert labels.tolist() == samples["output:scores"].argmax(axis=1).tolist()
    # Its weights count: other ones make another entry.
    weights = bytearray((tmp_path / "net.bin").read_bytes())
    weights[:96] = weights[96:192]
    (tmp_path / "net.bin").write_bytes(weights)
    assert _convert(tmp_path, tmp_path / "net.xml", Platform.OPENVINO).weights_sha256 != made.weights_sha256
    (tmp_path / "net.bin").unlink()
    assert ": its weights, net.bin, are not beside it" in _refusal(
        tmp_path, tmp_path / "net.xml", Platform.OPENVINO
    )


def test_openvinos_outputs_without_a_name_get_one(tmp_path, nets):
    import openvino
    import torch

    converted = openvino.convert_model(nets["normalised"], example_input=torch.zeros(1, 3, 96, 96))
    openvino.save_model(converted, tmp_path / "net.xml")
    made = _convert(tmp_path, tmp_path / "net.xml", Platform.OPENVINO, Said("size=96"))
    assert [output.name for output in made.variant.outputs] == ["output_0"]
    assert made.variant.input.shape == (3, 96, 96)


def test_two_files_of_one_name_are_two_entries(tmp_path):
    paths = [tmp_path / folder / "net.onnx" for folder in ("one", "other")]
    for seed, path in enumerate(paths):
        write_onnx_classifier(path, seed=seed)
    made = [_convert(tmp_path, path, Platform.ONNXRUNTIME) for path in paths]
    assert made[0].entry == "net_onnxruntime"
    assert made[1].entry.startswith("net-")
    # Each again, and the other's is untouched.
    assert [_convert(tmp_path, path, Platform.ONNXRUNTIME) for path in paths] == made
    for path, each in zip(paths, made, strict=True):
        assert manifest.load(tmp_path / "repository" / each.entry).weights_file == str(path)
    # What is gone needs no name.
    paths[0].unlink()
    assert _convert(tmp_path, paths[1], Platform.ONNXRUNTIME).entry == "net_onnxruntime"


def test_an_entry_that_a_run_uses_is_not_replaced_by_one_with_other_options(tmp_path):
    repository, path = tmp_path / "repository", tmp_path / "net.onnx"
    write_onnx_classifier(path, sides=("h", "w"))
    plain = _convert(tmp_path, path, Platform.ONNXRUNTIME, Said("size=32"))
    with in_use.hold(repository, path):
        assert _convert(tmp_path, path, Platform.ONNXRUNTIME, Said("size=32")) == plain
        other = _convert(tmp_path, path, Platform.ONNXRUNTIME, Said("size=64"))
        assert other.entry.startswith("net-")
        assert manifest.load(repository / plain.entry) == plain
    assert _convert(tmp_path, path, Platform.ONNXRUNTIME, Said("size=64")).entry == plain.entry
    assert not list(repository.glob(".*"))
