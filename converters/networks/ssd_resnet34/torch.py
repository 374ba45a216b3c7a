"""SSD-ResNet34 as TorchScript, with decoding and NMS inside."""

import os
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from converters.networks.architectures import Layer, Padding
from converters.networks.ssd_resnet34.boxes import (
    CENTRE_VARIANCE,
    IOU_THRESHOLD,
    MOST_PER_CLASS,
    SCORE_THRESHOLD,
    SIZE_VARIANCE,
    default_boxes,
)
from converters.networks.ssd_resnet34.network import CLASSES, COORDINATES, LAYERS, features, heads
from converters.networks.ssd_resnet34.weights import Weights
from harness.models.declared.ssd_resnet34 import SLOTS
from harness.models.spec import Nms

_TRACED_PX = 448
"""Tracing runs the network once; a picture of any size will do, if all feature maps have a pixel."""

_LEAST_PER_CLASS = -(-SLOTS // (CLASSES - 1))
"""So many candidates of every class fill the slots."""


def export_ssd_resnet34(weights: Weights, target: Path, nms: Nms) -> None:
    """Write TorchScript for any batch: (n, 3, 1200, 1200) -> boxes, labels, scores of `SLOTS` detections.

    Boxes are (n, SLOTS, 4) corners x1, y1, x2, y2, labels (n, SLOTS) int64 1-80, scores (n, SLOTS) float32,
    highest first. Slots without a detection have a label, a score and a box of zeros.
    """
    network = Network(weights).eval()
    with torch.no_grad():
        # The network has no branches that depend on data, and its batch and size stay open.
        picture = torch.zeros(1, 3, _TRACED_PX, _TRACED_PX)
        traced: Any = torch.jit.trace(network, picture)  # type: ignore[no-untyped-call]
    detector = Detector(traced, nms).eval()
    torch.jit.freeze(torch.jit.script(detector)).save(os.fspath(target))


class Network(nn.Module):
    """(n, 3, h, w) -> (n, 4, boxes) locations and (n, 81, boxes) logits."""

    def __init__(self, weights: Weights) -> None:
        """Take the weights."""
        super().__init__()
        self._convolutions = nn.ModuleDict({_key(layer): _convolution(layer, weights) for layer in LAYERS})

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run it."""
        found = heads(self, features(self, image))
        return (
            torch.cat([_by_number(location, COORDINATES) for location, _ in found], 2),
            torch.cat([_by_number(confidence, CLASSES) for _, confidence in found], 2),
        )

    def conv(self, x: Tensor, layer: Layer) -> Tensor:
        """Convolve and add the bias; with the next three, `architectures.Operations`."""
        result: Tensor = self._convolutions[_key(layer)](x)
        return result

    def relu(self, x: Tensor, *, limit: float | None = None) -> Tensor:
        """Clip below zero."""
        assert limit is None
        return torch.relu(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two tensors."""
        return x + y

    def max_pool(self, x: Tensor, padding: Padding) -> Tensor:
        """Largest of each 3x3, stride 2."""
        assert padding == Padding.FIXED
        return functional.max_pool2d(x, 3, 2, padding=1)


def _key(layer: Layer) -> str:
    """PyTorch allows no dots in a module's name."""
    return layer.name.replace(".", "_")


def _convolution(layer: Layer, weights: Weights) -> nn.Conv2d:
    folded = weights[layer.name]
    convolution = nn.Conv2d(layer.inputs, layer.filters, layer.kernel, layer.stride, padding=layer.pad_px)
    state = {"weight": torch.from_numpy(folded.weights.copy()), "bias": torch.from_numpy(folded.bias.copy())}
    convolution.load_state_dict(state)
    return convolution


def _by_number(head: Tensor, numbers: int) -> Tensor:
    """(n, numbers * anchors, h, w) -> (n, numbers, anchors * h * w)."""
    return head.reshape(head.shape[0], numbers, -1)


class Detector(nn.Module):
    """The network, decoding and NMS, in what TorchScript understands."""

    boxes: Tensor
    is_clamped: Final[bool]
    most: Final[int]
    least: Final[int]
    slots: Final[int]
    score_threshold: Final[float]
    iou_threshold: Final[float]
    centre_variance: Final[float]
    size_variance: Final[float]

    def __init__(self, network: nn.Module, nms: Nms) -> None:
        """Take a network of `Network`'s outputs, and the kind of NMS."""
        super().__init__()
        self.network = network
        self.is_clamped = nms == Nms.CORRECTED
        self.most, self.least, self.slots = MOST_PER_CLASS, _LEAST_PER_CLASS, SLOTS
        self.score_threshold, self.iou_threshold = SCORE_THRESHOLD, IOU_THRESHOLD
        self.centre_variance, self.size_variance = CENTRE_VARIANCE, SIZE_VARIANCE
        self.register_buffer("boxes", torch.from_numpy(default_boxes()))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect; see `export_ssd_resnet34`."""
        locations, logits = self.network(image)
        scores = torch.softmax(logits, 1)[:, 1:]
        return self.select(self.decode(locations.transpose(1, 2)), scores)

    def decode(self, locations: Tensor) -> Tensor:
        """(n, boxes, 4) -> (n, boxes, 4) corners x1, y1, x2, y2."""
        centre = locations[:, :, :2] * (self.centre_variance * self.boxes[:, 2:]) + self.boxes[:, :2]
        half = torch.exp(locations[:, :, 2:] * self.size_variance) * (self.boxes[:, 2:] / 2)
        return torch.cat([centre - half, centre + half], 2)

    def select(self, corners: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, boxes, 4) and (n, 80, boxes) -> the detector's answer."""
        # Every class of every image at once: (n, 80, candidates), best first.
        candidates, where = scores.topk(min(self.most, scores.shape[2]), 2)
        count = int((candidates > self.score_threshold).sum(2).max())
        count = max(count, self.least)
        candidates, where = candidates[:, :, :count], where[:, :, :count]
        images, classes = scores.shape[0], scores.shape[1]
        places = where.flatten(1).unsqueeze(2).expand(-1, -1, 4)
        found = corners.gather(1, places).view(images, classes, count, 4)
        kept = self.suppress(found, candidates > self.score_threshold)
        best, order = (candidates * kept).flatten(1).topk(self.slots, 1)
        is_filled = best > 0
        boxes = found.flatten(1, 2).gather(1, order.unsqueeze(2).expand(-1, -1, 4))
        labels = torch.div(order, count, rounding_mode="floor") + 1
        return boxes * is_filled.unsqueeze(2), labels * is_filled, best

    def suppress(self, boxes: Tensor, is_candidate: Tensor) -> Tensor:
        """(n, 80, k, 4), best first, and (n, 80, k) bool -> (n, 80, k) bool: which overlap no better one."""
        # Written so that a NaN counts as overlapping, as at the reference.
        overlaps = (~(self.overlap(boxes) < self.iou_threshold)).triu(1)
        kept = is_candidate
        for index in range(boxes.shape[2]):
            kept = kept & ~(kept[:, :, index : index + 1] & overlaps[:, :, index])
        return kept

    def overlap(self, boxes: Tensor) -> Tensor:
        """Intersection over union of every two: (..., k, 4) -> (..., k, k)."""
        start = torch.max(boxes[..., :, None, :2], boxes[..., None, :, :2])
        sides = torch.min(boxes[..., :, None, 2:], boxes[..., None, :, 2:]) - start
        if self.is_clamped:
            sides = sides.clamp(min=0.0)
        intersection = sides[..., 0] * sides[..., 1]
        areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        return intersection / (areas[..., None] + areas[..., None, :] - intersection)
