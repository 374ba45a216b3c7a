import re
import shlex

from harness.machine.paths import PROJECT_ROOT
from harness.models import MODELS
from harness.models.table import markdown
from harness.run.config import command_line

README = (PROJECT_ROOT / "README.md").read_text()


def test_the_table_of_models_is_what_the_specs_say() -> None:
    assert markdown() in README, "paste the output of: python -m harness.models.table"


def test_every_option_in_a_command_of_the_readme_exists() -> None:
    known = {option for action in command_line.parser()._actions for option in action.option_strings}
    lines = re.findall(r"^(?:\./run\.sh bench|python -m harness) (.*)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        used = {word for word in shlex.split(line, comments=True) if word.startswith("--")}
        assert used <= known, line


def test_every_file_that_the_readme_names_exists() -> None:
    names = re.findall(r"`((?:harness|converters|backends|docker|tests|model_repository)/[\w./-]+)`", README)
    assert names
    for name in names:
        assert (PROJECT_ROOT / name).exists(), name


def test_every_model_has_a_title_of_its_own() -> None:
    assert len({spec.title for spec in MODELS.values()}) == len(MODELS)
