from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import own_files, parity
from converters.formats.graph import Graph, describe, layout_of
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.recipes import IMAGENET_MOBILENET, fit
from harness.models.spec import DType, Layout, TensorSpec, Variant

_CLASSES = 5


def _scores(batch):
    """Something of the red corner, different for each class; (n, h, w, 3) in."""
    return np.outer(batch[:, 0, 0, 0], np.arange(1.0, _CLASSES + 1)).astype(np.float32) / 5


def _graph(run, names=("scores",), shape=(4, 4, 3), path="net.pb", outputs=None):
    outputs = outputs or tuple(TensorSpec(name, DType.FP32, (_CLASSES,)) for name in names)
    return Graph(Path(path), TensorSpec("input", DType.FP32, shape), outputs, 0, run)


def _variant(layout=Layout.NHWC, name="scores", max_batch_size=64, tolerance=1e-3):
    preprocess = fit(IMAGENET_MOBILENET, layout=layout, size_px=(4, 4))
    return Variant(
        platform=Platform.ONNXRUNTIME,
        input=TensorSpec("input", DType.FP32, preprocess.shape),
        outputs=(TensorSpec(name, DType.FP32, (_CLASSES,)),),
        preprocess=preprocess,
        label_offset=0,
        max_batch_size=max_batch_size,
        source="tensorflow",
        tolerance=tolerance,
    )


@pytest.fixture
def inputs():
    return np.random.default_rng(0).uniform(-1, 1, (16, 4, 4, 3)).astype(np.float32)


def test_equal_graphs_have_no_difference(inputs):
    source = _graph(lambda batch: [_scores(batch)])
    found = parity.compare(source, source, _variant(), inputs)
    assert found.parity.max_abs_diff == 0.0
    assert found.parity.agreement == 1.0
    assert found.parity.samples == 16
    assert found.golden["output:scores"].shape == (4, _CLASSES)


def test_the_largest_difference_is_found_and_recorded(inputs):
    source = _graph(lambda batch: [_scores(batch)])
    export = _graph(lambda batch: [_scores(batch) + np.float32(0.0005)])
    found = parity.compare(source, export, _variant(), inputs)
    assert found.parity.max_abs_diff == pytest.approx(0.0005, rel=1e-3)


def test_an_export_beyond_the_tolerance_is_refused_with_the_figures(inputs):
    source = _graph(lambda batch: [_scores(batch)])
    export = _graph(lambda batch: [_scores(batch) + np.float32(0.25)], path="model.onnx")
    with pytest.raises(
        ConversionError, match=r"model.onnx does not equal its source net.pb: .* 0.25 \(allowed 0.001\)"
    ):
        parity.compare(source, export, _variant(), inputs)


def _quantised(quanta, winner=3):
    """Whole-number scores, each so many above what they are, and two of the best but for one."""

    def run(batch):
        scores = np.full((len(batch), _CLASSES), 10 + quanta, np.uint8)
        scores[:, winner], scores[:, 4] = 201, 200
        return [scores]

    return _graph(run, outputs=(TensorSpec("scores", DType.UINT8, (_CLASSES,)),))


def test_a_quantised_networks_scores_may_be_one_off_and_so_may_their_winner(inputs):
    variant = replace(_variant(), outputs=(TensorSpec("scores", DType.UINT8, (_CLASSES,)),))
    found = parity.compare(_quantised(0), _quantised(1), variant, inputs).parity
    assert (found.max_abs_diff, found.tolerance, found.agreement) == (1.0, 1.0, 1.0)

    def tipped(batch):
        (scores,) = _quantised(0).run(batch)
        scores[:, 4] = 201
        scores[:, 3] = 200
        return [scores]

    other = replace(_quantised(0), run=tipped)
    assert parity.compare(_quantised(0), other, variant, inputs).parity.agreement == 1.0
    with pytest.raises(ConversionError, match=r"largest difference 2 \(allowed 1\)"):
        parity.compare(_quantised(0), _quantised(2), variant, inputs)


def test_a_nan_in_a_second_output_is_not_passed_over(inputs):
    outputs = tuple(TensorSpec(name, DType.FP32, (_CLASSES,)) for name in ("scores", "other"))
    variant = replace(_variant(), outputs=(outputs[0], replace(outputs[1], is_requested=False)))
    source = _graph(lambda batch: [_scores(batch)] * 2, outputs=outputs)
    export = _graph(lambda batch: [_scores(batch), _scores(batch) * np.float32("nan")], outputs=outputs)
    with pytest.raises(ConversionError, match="largest difference nan"):
        parity.compare(source, export, variant, inputs)


def test_an_export_that_answers_nan_is_refused(inputs):
    source = _graph(lambda batch: [_scores(batch)])
    export = _graph(lambda batch: [_scores(batch) * np.float32("nan")])
    with pytest.raises(ConversionError, match="does not equal"):
        parity.compare(source, export, _variant(), inputs)


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_left_out_is_compared_by_its_being_so(inputs):
    """As by the logarithm of a probability that is too small, or by a mask."""

    def masked(batch):
        scores = _scores(batch)
        scores[:, 0] = -np.inf
        return [scores]

    source = _graph(masked)
    assert parity.compare(source, source, _variant(), inputs).parity.max_abs_diff == 0.0
    with pytest.raises(ConversionError, match=r"largest difference inf \(allowed 0\.001\)"):
        parity.compare(source, _graph(lambda batch: [_scores(batch)]), _variant(), inputs)
    shape = TensorSpec("scores", DType.FP32, (_CLASSES,))
    tolerance = own_files.variant_of(_own((shape,), lambda batch: masked(batch * 1000)), _BASE).tolerance
    assert 0 < tolerance < 1


def test_another_class_is_refused_however_small_the_difference(inputs):
    def tied(batch):
        return [np.zeros((len(batch), _CLASSES), np.float32)]

    def tipped(batch):
        scores = np.zeros((len(batch), _CLASSES), np.float32)
        scores[-1, 3] = 1e-7
        return [scores]

    with pytest.raises(ConversionError, match=r"same class on 81.2% of 16"):  # one sample in each of 3 chunks
        parity.compare(_graph(tied), _graph(tipped), _variant(), inputs)


def test_a_source_with_another_axis_order_gets_the_same_images(inputs):
    source = _graph(lambda batch: [_scores(batch)])
    export = _graph(lambda batch: [_scores(batch.transpose(0, 2, 3, 1))], ("scores:0",), (3, 4, 4))
    nchw = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    found = parity.compare(source, export, _variant(Layout.NCHW, "scores:0"), nchw)
    assert found.parity.max_abs_diff == 0.0
    assert list(found.golden) == ["output:scores:0"]


def test_outputs_are_matched_by_name_and_not_by_place(inputs):
    def both(batch):
        return [_scores(batch), -_scores(batch)]

    def swapped(batch):
        return both(batch)[::-1]

    found = parity.compare(
        _graph(both, ("scores", "other")),
        _graph(swapped, ("other:0", "scores:0")),
        _variant(name="scores:0"),
        inputs,
    )
    assert found.parity.max_abs_diff == 0.0


def test_the_inputs_are_run_in_batches_of_several_sizes(inputs):
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return [_scores(batch)]

    parity.compare(_graph(run), _graph(run), _variant(), inputs)
    assert sizes == [1, 3, 12] * 2
    sizes.clear()
    parity.compare(_graph(run), _graph(run), _variant(max_batch_size=1), inputs)
    assert sizes == [1] * 32


def test_an_export_without_the_declared_tensors_is_refused():
    export = _graph(lambda batch: [_scores(batch)], ("renamed",), path="model.tflite")
    with pytest.raises(
        ConversionError, match=r"model.tflite: has input .*, renamed .* says input .*, scores"
    ):
        parity.check_tensors(export, _variant())


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((224, 224, 3), Layout.NHWC), ((3, 224, 224), Layout.NCHW), ((3, 3, 3), Layout.NHWC)],
)
def test_the_axis_order_is_where_the_three_channels_are(shape, layout):
    assert layout_of(shape, Path("net.onnx")) == layout


@pytest.mark.parametrize("shape", [(1, 28, 28), (224, 224), (224, 224, 4), ()])
def test_what_is_no_colour_image_is_refused(shape):
    with pytest.raises(ConversionError, match="is not an RGB image"):
        layout_of(shape, Path("net.onnx"))


def test_a_file_that_does_not_run_is_named_with_the_reason():
    def run(batch):
        raise RuntimeError("MatMul: 7 != 8\nstack trace")

    with pytest.raises(
        ConversionError, match=r"net.pt: does not run on an input of \[1, 4, 4, 3\]: MatMul: 7 != 8$"
    ):
        describe(Path("net.pt"), TensorSpec("x", DType.FP32, (4, 4, 3)), None, 0, run)


def test_an_answer_without_a_batch_axis_is_refused():
    with pytest.raises(ConversionError, match="no batch axis"):
        describe(
            Path("net.pt"), TensorSpec("x", DType.FP32, (4, 4, 3)), None, 0, lambda batch: [np.zeros((7, 4))]
        )


_BASE = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]


def _own(outputs, run=None, shape=(3, 8, 8), dtype=DType.FP32, fixed_batch=0):
    def answer(batch):
        return [np.zeros((len(batch), *output.shape), output.dtype.value) for output in outputs]

    return Graph(Path("own.onnx"), TensorSpec("image", dtype, shape), outputs, fixed_batch, run or answer)


@pytest.mark.parametrize(("classes", "offset"), [(1001, -1), (1000, 0), (10, 0)])
def test_the_label_offset_of_an_own_file_follows_from_its_number_of_classes(classes, offset):
    graph = _own((TensorSpec("scores", DType.FP32, (classes,)),))
    assert own_files.variant_of(graph, _BASE).label_offset == offset


def test_an_own_files_tensors_and_preprocessing_are_its_own():
    graph = _own((TensorSpec("scores", DType.UINT8, (1001,)),), shape=(16, 8, 3), dtype=DType.UINT8)
    variant = own_files.variant_of(graph, _BASE, own_files.Said("imagenet"))
    assert variant.input == TensorSpec("image", DType.UINT8, (16, 8, 3))
    assert variant.preprocess.name == "imagenet"
    assert variant.preprocess.size_px == (16, 8)
    assert variant.preprocess.layout == Layout.NHWC
    assert variant.preprocess.steps == ()
    assert variant.max_batch_size == 64


def test_an_arg_max_is_requested_rather_than_the_scores():
    outputs = (TensorSpec("scores", DType.FP32, (1000,)), TensorSpec("best", DType.INT64, ()))
    variant = own_files.variant_of(_own(outputs), _BASE)
    assert [output.name for output in variant.requested_outputs] == ["best"]
    assert variant.label_offset == 0


@pytest.mark.parametrize(
    ("least", "most", "tolerance"),
    [
        (-20.0, 10.0, 30 * 1e-4),
        (0.0, 1e-3, 1e-7),
        # So large that the last bit of a float32 is most of it: 2^-23 of it, eight times.
        (1e6, 1e6, 0.954),
    ],
)
def test_scores_get_a_tolerance_of_their_own_spread(least, most, tolerance):
    def run(batch):
        return [np.tile(np.linspace(least, most, 1000, dtype=np.float32), (len(batch), 1))]

    graph = _own((TensorSpec("scores", DType.FP32, (1000,)),), run)
    assert own_files.variant_of(graph, _BASE).tolerance == pytest.approx(tolerance, rel=0.01)


def test_scores_in_fp16_are_rounded_more_coarsely():
    def run(batch):
        return [np.tile(np.linspace(-8, 8, 1000, dtype=np.float16), (len(batch), 1))]

    graph = _own((TensorSpec("scores", DType.FP16, (1000,)),), run)
    # 2^-10 of 8, eight times, beside 1e-4 of the spread.
    assert own_files.variant_of(graph, _BASE).tolerance == pytest.approx(0.0625 + 0.0016)


def _refuses_two(batch):
    if len(batch) > 1:
        raise RuntimeError("reshape")
    return [np.zeros((1, 1000), np.float32)]


def _mixes_samples(batch):
    scores = np.zeros((len(batch), 1000), np.float32)
    scores[:, len(batch)] = 1
    return [scores]


def _adds_the_batchs_mean(batch, share=1.0):
    """The class stays the image's own, and only its lead over the others does not."""
    means = batch.mean(axis=(1, 2, 3)).astype(np.float32) * np.float32(share)
    scores = np.zeros((len(batch), 1000), np.float32)
    scores[:, 7], scores[:, 8] = 2, means - means.mean()
    return [scores]


def _adds_a_little_of_it(batch):
    return _adds_the_batchs_mean(batch, 1e-3)


@pytest.mark.parametrize(
    ("run", "fixed_batch"),
    [
        (_adds_the_batchs_mean, 0),
        (_refuses_two, 0),
        (_mixes_samples, 0),
        (lambda batch: _refuses_two(batch), 1),
    ],
)
def test_a_file_that_takes_one_sample_at_a_time_is_served_so(run, fixed_batch):
    graph = _own((TensorSpec("scores", DType.FP32, (1000,)),), run, fixed_batch=fixed_batch)
    assert own_files.variant_of(graph, _BASE).max_batch_size == 1


def test_scores_that_a_batch_only_rounds_otherwise_are_served_in_batches():
    graph = _own((TensorSpec("scores", DType.FP32, (1000,)),), _adds_a_little_of_it)
    assert own_files.variant_of(graph, _BASE).max_batch_size == 64


def test_a_fixed_batch_of_several_is_refused():
    graph = _own((TensorSpec("scores", DType.FP32, (1000,)),), fixed_batch=8)
    with pytest.raises(ConversionError, match="fixed at 8"):
        own_files.variant_of(graph, _BASE)


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorSpec("boxes", DType.FP32, (100, 4)), TensorSpec("scores", DType.FP32, (100,))),
        (TensorSpec("a", DType.FP32, (1000,)), TensorSpec("b", DType.FP32, (1000,))),
        (TensorSpec("count", DType.FP32, ()),),
        (TensorSpec("map", DType.FP32, (7, 7, 1000)),),
    ],
)
def test_a_file_of_another_task_is_refused(outputs):
    with pytest.raises(ConversionError, match=r"own\.onnx: not an image classifier"):
        own_files.variant_of(_own(outputs), _BASE)


def _ranked(batch):
    """Classes, the best first."""
    return np.stack([np.random.default_rng(int(abs(row).sum())).permutation(6) for row in batch])


# Five of six bytes may be a quantised network's scores.
@pytest.mark.parametrize(
    ("dtype", "best"), [(np.float32, 5), (np.float32, 6), (np.float16, 6), (np.uint8, 6)]
)
def test_numbers_of_classes_are_no_scores_whatever_their_type(dtype, best):
    output = TensorSpec("best", DType(np.dtype(dtype).name), (best,))
    graph = _own((output,), lambda batch: [_ranked(batch)[:, :best].astype(dtype)])
    with pytest.raises(
        ConversionError,
        match=r"^own.onnx: not an image classifier: one output of scores .*; it has best \w+ \[n, \d\]; "
        "best holds the numbers of classes, not scores: export the scores of all classes, or the best class",
    ):
        own_files.check_task(graph, _BASE)


@pytest.mark.parametrize(
    "scores",
    [
        # Of a quantised network: equal ones, or beyond the number of classes.
        np.array([0, 1, 2, 2, 3, 4], np.uint8),
        np.array([0, 1, 2, 9, 30, 200], np.uint8),
        np.array([-3, 0, 1, 2, 4, 5], np.int8),
        # Few, saturated, or sums.
        np.array([0, 1, 2, 3], np.float32),
        np.array([1, 0, 0, 0, 0, 0], np.float32),
        np.array([1, 2, 3, 4, 5, 2e6], np.float32),
        np.array([0, 1, 2, 3, 4, 5.5], np.float32),
        np.array([0, 1, 2, -np.inf, -np.inf, 5], np.float32),
    ],
)
@pytest.mark.filterwarnings("error")
def test_scores_that_are_whole_numbers_are_scores(scores):
    output = TensorSpec("scores", DType(scores.dtype.name), scores.shape)
    own_files.check_task(_own((output,), lambda batch: [np.tile(scores, (len(batch), 1))]), _BASE)


def test_the_best_scores_are_known_by_their_classes_as_real_numbers_too():
    def run(batch):
        values = np.linspace(0.9, 0.1, 6, dtype=np.float32)
        return [np.tile(values, (len(batch), 1)), _ranked(batch).astype(np.float32)]

    outputs = tuple(TensorSpec(name, DType.FP32, (6,)) for name in ("values", "indices"))
    with pytest.raises(ConversionError, match="values has the best scores only, and indices whose they are"):
        own_files.check_task(_own(outputs, run), _BASE, own_files.Said(outputs=("values",)))


@pytest.mark.parametrize(
    ("path", "platform", "expected"),
    [
        ("/x/squeezenet1.1_nchw.onnx", Platform.ONNXRUNTIME, "squeezenet1.1_nchw_onnxruntime"),
        ("my net (v2).pb", Platform.TENSORFLOW, "my-net-v2_tensorflow"),
        ("resnet50.onnx", Platform.ONNXRUNTIME, "resnet50-file_onnxruntime"),
        ("mobilenet.tflite", Platform.TFLITE, "mobilenet-file_tflite"),
        ("...", Platform.TFLITE, "model_tflite"),
    ],
)
def test_an_own_file_never_takes_a_named_models_entry(path, platform, expected):
    assert own_files.entry_name(Path(path), platform) == expected
    assert not own_files.is_reserved(expected)
