import pytest

from harness.errors import ConfigError, nearest
from harness.models import get_model, get_platform
from harness.run.config.values import one_of
from harness.run.mlperf.rounds import Scenario


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("Ofline", Scenario, " (did you mean Offline?)"),
        ("OFLINE", Scenario, " (did you mean Offline?)"),
        ("--cuont", ["--config", "--count"], " (did you mean --count?)"),
        ("something else", Scenario, ""),
        ("word", [], ""),
    ],
)
def test_a_mistyped_word_is_told_the_nearest_in_its_own_spelling(
    word: str, known: list[str], hint: str
) -> None:
    assert nearest(word, known) == hint


def test_models_platforms_and_choices_are_suggested_in_the_same_words() -> None:
    with pytest.raises(ConfigError, match=r"^unknown model 'resnet5' \(did you mean resnet50\?\); "):
        get_model("resnet5")
    with pytest.raises(ConfigError, match=r"^unknown platform 'tflit' \(did you mean tflite\?\); "):
        get_platform("tflit")
    with pytest.raises(ConfigError, match=r"^--mode 'Acuracy' is unknown \(did you mean Accuracy\?\); "):
        one_of("mode", "Acuracy", ["Performance", "Accuracy"])
