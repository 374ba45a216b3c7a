import json
import struct
from pathlib import Path

import pytest

from harness.answers.accuracy import score_classification
from harness.errors import InferenceError
from harness.run.mlperf import logs


def log_of(tmp_path: Path, records: list[dict[str, object]]) -> dict[int, bytes]:
    (tmp_path / "mlperf_log_accuracy.json").write_text(json.dumps(records))
    return logs.read_accuracy(tmp_path)


def score(payloads: dict[int, bytes], labels: list[int], threshold: float | None = None):
    return score_classification(payloads, labels, metric="top-1", truth="data set", threshold=threshold)


def test_labels_are_read_as_loadgen_writes_them(tmp_path: Path) -> None:
    # Label 65 as LoadGen 6.0.17 logged it: float32, little-endian, upper-case hex.
    payloads = log_of(
        tmp_path,
        [
            {"seq_id": 0, "qsl_idx": 1, "data": "00008242"},
            {"seq_id": 1, "qsl_idx": 0, "data": "00000000"},
        ],
    )
    accuracy = score(payloads, [0, 65])
    assert (accuracy.good, accuracy.total, accuracy.value) == (2, 2, 1.0)


def test_the_first_answer_of_a_repeated_sample_counts(tmp_path: Path) -> None:
    payloads = log_of(
        tmp_path,
        [{"seq_id": 0, "qsl_idx": 0, "data": "00008242"}, {"seq_id": 1, "qsl_idx": 0, "data": "00000000"}],
    )
    assert score(payloads, [65]).good == 1


def test_order_in_the_log_does_not_matter(tmp_path: Path) -> None:
    records = [
        {"seq_id": n, "qsl_idx": i, "data": struct.pack("<f", i).hex().upper()}
        for n, i in enumerate([3, 0, 2, 1])
    ]
    assert score(log_of(tmp_path, records), [0, 1, 2, 99]).good == 3


def test_a_sample_without_an_answer_is_an_error_not_a_wrong_answer(tmp_path: Path) -> None:
    payloads = log_of(tmp_path, [{"seq_id": 0, "qsl_idx": 1, "data": ""}])
    with pytest.raises(InferenceError, match="no answer for 2 of 2 samples, first 0"):
        score(payloads, [1, 2])


def test_a_payload_of_another_size_is_an_error(tmp_path: Path) -> None:
    payloads = log_of(tmp_path, [{"seq_id": 0, "qsl_idx": 0, "data": "0000824200000000"}])
    with pytest.raises(InferenceError, match=r"payloads of \[8\] bytes"):
        score(payloads, [65])


@pytest.mark.parametrize(("threshold", "is_met"), [(None, True), (0.5, True), (0.51, False)])
def test_a_threshold_is_met_from_its_value_on(threshold: float | None, is_met: bool) -> None:
    payloads = {0: struct.pack("<f", 1), 1: struct.pack("<f", 2)}
    assert score(payloads, [1, 1], threshold).is_met is is_met


def test_a_damaged_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_accuracy.json").write_text("[{")
    with pytest.raises(InferenceError, match="cannot be read"):
        logs.read_accuracy(tmp_path)
