"""The installable package: what it needs, and that without a framework all but frameworks' work is done."""

import importlib.metadata
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import commands
from harness.machine import extras
from harness.machine.paths import PROJECT_ROOT
from harness.models.platforms import Platform
from tests import small_client

PIN = re.compile(r"^([\w-]+)(?:\[\w+\])?==(\S+)", re.MULTILINE)
PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
CLIENT = (PROJECT_ROOT / "requirements-client.txt").read_text()
ALL = dict(PIN.findall((PROJECT_ROOT / "requirements.txt").read_text().partition("# tests and checks")[0]))
EXTRAS = PROJECT["project"]["optional-dependencies"]
ELSEWHERE = re.compile(r"harness\.(bench\.null\.model|report\.screenshots)")
"""Run inside Triton; made for README."""


def test_the_client_and_the_extras_are_all_that_the_project_needs_in_the_same_versions() -> None:
    pins = dict(PIN.findall(CLIENT)) | dict(PIN.findall("\n".join(itertools.chain(*EXTRAS.values()))))
    assert pins == {name: version for name, version in ALL.items() if name != "numpy"}
    # The server's is older than what Python 3.13 has.
    assert re.findall(r"^numpy\S*", CLIENT, re.MULTILINE) == [f"numpy>={ALL['numpy']},<3"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements-client.txt"]}


def test_there_is_an_extra_for_every_framework_and_platform() -> None:
    assert set(extras._EXTRAS.values()) == set(EXTRAS)
    assert {platform.facts.triton_backend for platform in Platform} <= set(EXTRAS)


def test_an_extra_has_all_that_an_entry_of_its_platform_is_made_with() -> None:
    def packages(extra: str) -> set[str]:
        names = {name for name, _ in PIN.findall("\n".join(EXTRAS[extra]))}
        others = re.findall(r"mlperf-triton-vision\[(\w+)\]", "\n".join(EXTRAS[extra]))
        return names.union(*map(packages, others))

    for platform in Platform:
        tools = {
            name.replace("tensorflow", "tensorflow-cpu") if name == "tensorflow" else name
            for name in platform.facts.tools
        }
        assert tools <= packages(platform.facts.triton_backend), platform


def test_what_is_no_module_is_part_of_the_package() -> None:
    suffixes = {pattern.removeprefix("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"]}
    files = [
        file
        for package in ("harness", "converters")
        for file in (PROJECT_ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and "screenshots" not in file.parts
    ]
    assert {file.suffix for file in files} == {".py", *suffixes}


@pytest.mark.parametrize("word", commands._COMMANDS)
def test_every_command_of_the_package_is_a_module(word: str) -> None:
    line = commands.command_line([word, "--output", "a b"])
    assert line
    assert line[-2:] == ["--output", "a b"]
    # So that Ctrl-C ends it quietly from the first moment on.
    assert line[0] == str(PROJECT_ROOT / "harness" / "start.py")
    module = PROJECT_ROOT / line[1].replace(".", "/")
    assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


def test_the_packages_commands_are_run_shs() -> None:
    listed = subprocess.run(
        [PROJECT_ROOT / "run.sh", "help"], capture_output=True, text=True, check=True
    ).stdout
    # What needs a checkout, and words of the shell, it has not.
    assert set(commands._COMMANDS) <= set(re.findall(r"^  ([a-z-]+)\s", listed, re.MULTILINE))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 0, "usage: "),
        (["--help"], 0, "usage: "),
        (["bnech"], 2, "unknown command 'bnech' (did you mean bench?)"),
    ],
)
def test_without_a_command_it_says_which_there_are(
    words: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlperf-triton", *words])
    assert commands.main() == code
    assert says in "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return small_client.install(tmp_path_factory.mktemp("small") / "site")


def run(small: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd="/", env=small, capture_output=True, text=True, check=False
    )


def test_every_module_of_a_run_is_imported_without_a_framework(small: dict[str, str]) -> None:
    modules = [
        ".".join(file.relative_to(PROJECT_ROOT).with_suffix("").parts)
        for file in sorted((PROJECT_ROOT / "harness").rglob("*.py"))
        if file.name not in ("__init__.py", "__main__.py")
    ]
    drawing = {"harness.data.synthetic", "harness.answers.drawing"}
    chosen = [name for name in modules if name not in drawing and not ELSEWHERE.match(name)]
    code = "import importlib, json, sys\nfor name in json.loads(sys.argv[1]): importlib.import_module(name)"
    done = run(small, "-c", code, json.dumps(chosen))
    assert done.returncode == 0, done.stderr


def test_the_small_clients_packages_are_all_that_is_imported(small: dict[str, str]) -> None:
    code = "import harness.cli, harness.report.__main__, harness.compare.__main__, sys, json\n"
    done = run(
        small, "-c", code + "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert done.returncode == 0, done.stderr
    packages = importlib.metadata.packages_distributions()
    modules = json.loads(done.stdout)
    used = {name.lower().replace("_", "-") for module in modules for name in packages.get(module, ())}
    listed = {name.lower() for name in re.findall(r"^([\w-]+)", CLIENT, re.MULTILINE)}
    needed = {
        "pygments",
        "markdown-it-py",
        "mdurl",
        "markupsafe",
        "python-rapidjson",
        "typing-extensions",
        "packaging",
    }
    needed |= {"urllib3", "certifi", "charset-normalizer", "idna", "hyperframe", "ml-dtypes"}
    # Of the environment itself, which starts with every interpreter.
    own = {"setuptools", "pip", "distutils-precedence"}
    assert used - listed - needed - own == set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "harness.server", "up"], r"pytriton is not installed; .*\[server\].*--url HOST:PORT"),
        (
            ["-m", "converters", "--model", "mobilenet", "--platform", "onnxruntime"],
            r"\[(opencv|onnxruntime)\]",
        ),
        (["-m", "harness", "--model", "mobilenet", "--platform", "pytorch"], r"\[(opencv|pytorch)\]"),
    ],
)
def test_what_takes_a_framework_names_the_extra_in_one_line(
    small: dict[str, str], words: list[str], says: str, tmp_path: Path
) -> None:
    done = run({**small, "XDG_STATE_HOME": str(tmp_path)}, *words)
    assert done.returncode in (2, 3)
    assert re.search(rf"^error: .*{says}", done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_a_real_install_is_under_150_mb(python: str, tmp_path: Path) -> None:
    """From the package index; the project is copied, since a build leaves files beside what it builds."""
    interpreter = shutil.which(f"python{python}")
    if not interpreter or subprocess.run([interpreter, "-c", ""], check=False).returncode:
        pytest.skip(f"Python {python} is not installed")
    uv = Path(sys.executable).with_name("uv")
    project = tmp_path / "project"
    for name in ("harness", "converters", "backends"):
        shutil.copytree(PROJECT_ROOT / name, project / name)
    for name in ("pyproject.toml", "requirements-client.txt"):
        shutil.copy(PROJECT_ROOT / name, project)
    venv = tmp_path / "venv"
    subprocess.run([uv, "venv", "--python", interpreter, venv], check=True)
    subprocess.run([uv, "pip", "install", "--python", venv / "bin/python", project], check=True)
    bytes_taken = sum(file.stat().st_size for file in venv.rglob("*") if file.is_file())
    assert bytes_taken < 150e6
    helped = subprocess.run(
        [venv / "bin/mlperf-triton", "bench", "--help"], capture_output=True, text=True, check=True
    )
    assert "--scenario" in helped.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_on_aarch64_there_are_wheels_of_all_but_loadgen(python: str, tmp_path: Path) -> None:
    """As the README says; resolved for that platform by the package index, and nothing is installed."""

    def resolved(requirements: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "wanted.txt").write_text(requirements)
        return subprocess.run(
            [
                *(Path(sys.executable).with_name("uv"), "pip", "compile", tmp_path / "wanted.txt"),
                *("--python-platform", "aarch64-unknown-linux-gnu", "--python-version", python),
                *("--only-binary", ":all:", "--no-header", "--no-annotate"),
            ],
            env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
            capture_output=True,
            text=True,
            check=False,
        )

    lines = CLIENT.splitlines(keepends=True)
    without = resolved("".join(line for line in lines if not line.startswith("mlcommons-loadgen")))
    assert without.returncode == 0, without.stderr
    assert "pycocotools==" in without.stdout
    # Should there be one some day, the README can say so.
    assert "mlcommons-loadgen" in resolved(CLIENT).stderr
