import functools
import re
import subprocess
import sys

import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.models import MODELS
from harness.models.table import markdown

README = (PROJECT_ROOT / "README.md").read_text()
MODULES = {
    **dict.fromkeys(("bench", "local", "docker"), "harness"),
    "report": "harness.report",
    "compare": "harness.compare",
    "fetch": "converters.fetch",
    "convert": "converters",
    "check": "harness",
    "limits": "harness.bench",
    "tune": "harness.tune",
}
"""What the words after ./run.sh run."""


def test_the_table_of_models_is_what_the_specs_say() -> None:
    assert markdown() in README, "paste the output of: python -m harness.models.table"


def commands() -> list[tuple[str, str]]:
    """The module that each command of the README runs, and what the command has after it."""
    found = re.findall(r"(?:\./run\.sh (\w+)|python -m ([\w.]+))((?:(?!\./run\.sh)[^`|\n])*)", README)
    return [(MODULES.get(word, "") if word else module, rest) for word, module, rest in found]


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("module", dict.fromkeys(MODULES.values()))
def test_every_option_in_a_command_of_the_readme_exists(module: str) -> None:
    used = [rest for asked, rest in commands() if asked == module]
    assert used, "the README does not name it"
    known = set(re.findall(r"(?<!\S)--[\w-]+", help_of(module)))
    for rest in used:
        options = {word.partition("=")[0] for word in rest.split() if word.startswith("--")}
        assert options <= known, rest


@pytest.mark.parametrize("module", ["converters", "converters.fetch"])
def test_what_the_readme_converts_and_fetches_exists(module: str) -> None:
    words = [rest.split()[0] for asked, rest in commands() if asked == module and rest.split()]
    named = [word for word in words if re.fullmatch(r"[a-z][\w-]+", word)]
    assert named
    assert set(named) <= set(re.findall(r"[\w-]+", help_of(module)))


def test_every_file_that_the_readme_names_exists() -> None:
    names = re.findall(r"`((?:harness|converters|backends|docker|tests|model_repository)/[\w./-]+)`", README)
    assert names
    for name in names:
        assert (PROJECT_ROOT / name).exists(), name


def test_every_model_has_a_title_of_its_own() -> None:
    assert len({spec.title for spec in MODELS.values()}) == len(MODELS)
