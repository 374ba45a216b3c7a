"""How long several runs will take."""

from collections.abc import Iterator

import pytest

from harness.models import MODELS
from harness.run import sweep
from harness.run.config.resolution import resolve
from harness.run.config.resolution import sweep as configs_of


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "MODEL_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_first_guess_is_put_right_by_how_long_the_first_took(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"onnxruntime": 60.0, "openvino": 120.0, "tflite": 240.0}
    monkeypatch.setattr(sweep, "expected_s", lambda config: expected[config.platform])
    configs = [resolve({"model": "mobilenet", "platform": platform}) for platform in expected]
    clock = iter([0.0, 120.0, 180.0])
    said: list[str] = []
    assert list(sweep.announced(configs, said.append, lambda: next(clock))) == configs
    assert said == [
        "1 of 3: mobilenet on onnxruntime, about 7 min left",
        # Twice as long as expected, so 12 minutes for the 6 that were.
        "2 of 3: mobilenet on openvino, about 12 min left",
        # As long as expected, in all.
        "3 of 3: mobilenet on tflite, about 4 min left",
    ]


def of_each(**given: object) -> Iterator[float]:
    for model in MODELS:
        platform = next(iter(MODELS[model].variants))
        yield sweep.expected_s(resolve({"model": model, "platform": platform, **given}))


def test_what_is_expected_follows_from_what_is_asked() -> None:
    quick = list(of_each(quick=True))
    # An export, eight tests; of large images the last takes longest.
    assert all(30 < seconds < 300 for seconds in quick)
    assert max(quick) == quick[list(MODELS).index("ssd-resnet34")]
    timed = {"model": "mobilenet", "platform": "tflite", "scenario": "Offline"}
    one, longer = (sweep.expected_s(resolve({**timed, "time": time})) for time in ("60", "120"))
    assert longer - one == pytest.approx(60)
    searched = sweep.expected_s(resolve({**timed, "scenario": "Server", "time": "60"}))
    assert searched > one + 3 * 60
    assert sweep.expected_s(resolve({**timed, "time": "60", "accuracy": True})) > one


def test_a_sweep_of_all_models_takes_minutes_and_not_hours() -> None:
    assert 600 < sum(map(sweep.expected_s, configs_of({"quick": True}))) < 7200
