"""A detector's figures that look like a misunderstanding: what its answers score when read otherwise.

The logged answers tell, without the model: their boxes and class numbers are taken back to what was answered,
and read in every other way that there is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.answers import box_forms, coco_scoring
from harness.answers.doubt import ANY_GAIN, is_much_better
from harness.answers.payloads import SIGNIFICANT_SCORE, Payload, records_of, split
from harness.data.annotations import Annotations, subset
from harness.machine import progress
from harness.models.own_recipes import describe
from harness.models.spec import BOX_FORMS, Detection, Numbering, Variant

_LOW = 0.2
"""mAP from which on nothing else is tried of a named model: the published detectors have as much."""
_LEAST_GAIN = 0.01
"""Of mAP, where it is twice as much: a weak detector's whole is a few points."""
_NEAR_ZERO = 0.01
_IMAGES, _PLACED_IMAGES = 200, 50
"""How many are scored again, and of how many the places of boxes without their classes: some seconds."""
_LISTED = 5
_FAR_FEWER = 0.5
"""Of the detections of no category, so many are of none in another numbering, where that one may be meant."""


def of_detections(
    payloads: Mapping[int, bytes],
    annotations: Annotations,
    variant: Variant,
    mean_precision: float,
    *,
    is_own_file: bool,
) -> tuple[str, ...]:
    """Doubts about a detector's accuracy against the annotations of a data set.

    Args:
        payloads: logged bytes by sample index (see `harness.answers.payloads`), of every sample.
        annotations: true objects; image i is sample i.
        variant: how the model was asked, and its answers read.
        mean_precision: what was scored so.
        is_own_file: whether the user can say otherwise.
    """
    assert variant.detection is not None
    records = np.concatenate([records_of(payloads[index]) for index in range(len(annotations.images))])
    found = list(_unknown_classes(records, annotations, variant.detection)) if is_own_file else []
    if mean_precision < _LOW or is_own_file:
        answers = _Answers(records, annotations, variant.detection, variant.preprocess.size_px)
        with progress.waiting("reading the answers in other ways"):
            better = _better_reading(answers, is_own_file)
        found += [better] if better else list(_near_zero(mean_precision, variant, is_own_file))
    return tuple(found)


@dataclass(frozen=True)
class _Answers:
    """What was logged, and how it was read."""

    records: Payload
    annotations: Annotations
    detection: Detection
    size_px: tuple[int, int]

    def score(self, reading: Detection) -> float:
        """The mAP of the first images' answers, read in this way."""
        truth = subset(self.annotations, _IMAGES)
        records = self._read(reading, len(truth.images))
        if reading.is_contiguous:
            # Of no category at all; scoring refuses them.
            records = records[(records[:, 6] >= 1) & (records[:, 6] <= len(truth.category_ids))]
        return _mean_precision(records, truth, is_contiguous=reading.is_contiguous)

    def score_places(self, reading: Detection) -> float:
        """The same as if there were one class only."""
        truth = subset(self.annotations, _PLACED_IMAGES)
        records = self._read(reading, len(truth.images))
        records[:, 6] = 1
        (first, *_) = truth.category_ids
        objects = tuple({**entry, "category_id": first} for entry in truth.annotations)
        truth = replace(truth, annotations=objects, category_ids=(first,), category_names=("object",))
        return _mean_precision(records, truth, is_contiguous=True)

    def _read(self, reading: Detection, images: int) -> Payload:
        """The records of the first images as this reading would have logged them."""
        records = self.records[self.records[:, 0] < images].copy()
        answered = box_forms.as_answered(records[:, 1:5], self.detection, self.size_px)
        records[:, 1:5] = box_forms.reader(reading, self.size_px)(answered)
        records[:, 6] += reading.class_offset - self.detection.class_offset
        return records


def _mean_precision(records: Payload, truth: Annotations, *, is_contiguous: bool) -> float:
    payloads = {index: part.tobytes() for index, part in enumerate(split(records, len(truth.images)))}
    return coco_scoring.mean_precision(payloads, truth, is_contiguous=is_contiguous)


def _better_reading(answers: _Answers, is_own_file: bool) -> str:
    """What scores much better, with the options that ask for it; or nothing."""
    current = answers.detection
    places = {form: answers.score_places(current.boxed(form)) for form in BOX_FORMS}
    form = max(places, key=lambda each: (places[each], each == current.box_form))
    readings = [current.boxed(form).numbered(numbering) for numbering in Numbering]
    scores = {reading: answers.score(reading) for reading in readings}
    best, now = max(scores.values()), scores[current] if current in scores else answers.score(current)
    is_better = is_much_better(best, now, least_gain=_LEAST_GAIN)
    if not is_better and not (is_own_file and is_much_better(best, now, ANY_GAIN)):
        return ""
    # Several are as good where only those classes were found that they number alike.
    options = " or ".join(_options(current, reading) for reading in readings if scores[reading] == best)
    images = min(_IMAGES, len(answers.annotations.images))
    of = f"mAP of the first {images} images would be {best:.2%} instead of {now:.2%}"
    if is_own_file:
        return f"{of} with {options}"
    return f"{of} with other category ids or boxes (as {options}): correct the data set's annotations"


def _options(current: Detection, wanted: Detection) -> str:
    """What a user gives for another reading than the current one."""
    options = []
    if wanted.numbering != current.numbering:
        options.append(f"--classes {wanted.numbering}")
    if wanted.box_form != current.box_form:
        options.append(f"--boxes {wanted.box_form}")
    return " ".join(options)


def _near_zero(mean_precision: float, variant: Variant, is_own_file: bool) -> Iterator[str]:
    if mean_precision < _NEAR_ZERO:
        remedy = "--preprocess names another" if is_own_file else "check both"
        yield (
            f"mAP {mean_precision:.2%} is next to nothing, and no other reading of classes and boxes is "
            f"much better; the model was asked with {describe(variant.preprocess)}: {remedy}"
        )


def _unknown_classes(records: Payload, annotations: Annotations, detection: Detection) -> Iterator[str]:
    """Of detections that are of no category: whatever they show, they count for nothing.

    A detector may know more classes than the file has; then no other numbering knows many more of them.
    """
    classes = records[records[:, 5] >= SIGNIFICANT_SCORE, 6].astype(np.int64)
    is_unknown = _is_unknown(classes, annotations, detection)
    fewest = min(
        int(_is_unknown(classes + other.class_offset - detection.class_offset, annotations, other).sum())
        for other in map(detection.numbered, Numbering)
    )
    if fewest < _FAR_FEWER * is_unknown.sum():
        unknown = np.unique(classes[is_unknown])
        listed = ", ".join(map(str, unknown[:_LISTED])) + (" …" if len(unknown) > _LISTED else "")
        yield (
            f"{is_unknown.sum()} of {len(classes)} detections are of classes that the annotation file lacks "
            f"({listed}), and count for nothing: --classes says what the numbers mean"
        )


def _is_unknown(
    classes: npt.NDArray[np.int64], annotations: Annotations, detection: Detection
) -> npt.NDArray[np.bool_]:
    """Which of these, as they are logged, are of no category."""
    if detection.is_contiguous:
        return np.asarray((classes < 1) | (classes > len(annotations.category_ids)))
    return ~np.isin(classes, annotations.category_ids)
