"""Words in charts: none covers another."""

from harness.report.charts.axes import WIDTH
from harness.report.charts.labels import Labels


def test_words_take_the_first_place_that_is_free_and_none_where_none_is() -> None:
    labels = Labels()
    places = [((100.0, 50.0), "start"), ((100.0, 80.0), "start")]
    assert 'y="50"' in labels.put("first", "value", *places)[0]
    assert 'y="80"' in labels.put("second", "value", *places)[0]
    assert labels.put("third", "value", *places) == []


def test_words_are_rather_beside_a_line_than_on_it_and_rather_on_it_than_nowhere() -> None:
    labels = Labels()
    labels.follow([(20.0, 40.0), (200.0, 40.0)])
    labels.avoid(20.0, 100.0, 200.0, 120.0)
    places = [((100.0, y), "start") for y in (45.0, 115.0, 80.0)]
    assert 'y="80"' in labels.put("first", "value", *places)[0]
    assert 'y="45"' in labels.put("second", "value", *places)[0]


def test_words_stay_within_the_picture_and_off_what_was_taken() -> None:
    labels = Labels()
    assert labels.put("a long label", "value", ((WIDTH - 5, 50.0), "start")) == []
    labels.take(0, 40, 60, 60)
    assert labels.put("label", "value", ((10.0, 50.0), "start")) == []
    assert labels.put("label", "value", ((10.0, 50.0), "start"), ((70.0, 50.0), "start"))
