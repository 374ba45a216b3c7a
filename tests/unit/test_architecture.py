"""The house: which way imports may run, which library has which door, how large a room may be.

Lower first. What is not listed is forbidden, and what nobody uses must be struck from the list.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.machine.paths import PROJECT_ROOT

Arrows = Mapping[str, set[str]]

HARNESS: Arrows = {
    "errors": set(),
    "machine": {"errors"},
    "models": {"errors", "machine"},
    "data": {"errors", "machine", "models"},
    "triton": {"errors", "machine", "models"},
    "server": {"errors", "machine"},
    "answers": {"errors", "machine", "models", "data"},
    "run": {"errors", "machine", "models", "data", "triton", "server", "answers"},
    "report": {"errors", "machine", "models", "triton", "answers", "run"},
    "compare": {"errors", "machine", "run", "report"},
    "tune": {"errors", "machine", "models", "triton", "run"},
    "bench": {"errors", "machine", "models", "data", "triton", "server", "run"},
    "cli": {"machine", "run", "report"},
    "commands": {"errors"},
    "demo": {"machine", "run", "cli"},
    "__main__": {"errors", "machine", "cli"},
    "start": {"machine"},
}
RUN: Arrows = {
    "mlperf": set(),
    "config": {"mlperf"},
    "telemetry": set(),
    "worker": {"mlperf", "telemetry"},
    "results": {"mlperf", "worker", "telemetry"},
    "server_rate": {"mlperf", "worker"},
    "sweep": {"config", "server_rate"},
    "borrowing": set(),
    "servers": {"config"},
    "serving": {"config", "borrowing"},
    "progress": {"mlperf", "worker"},
    "entries": {"config"},
    "preparation": {"config", "entries"},
    "truth": {"entries", "preparation"},
    "judgement": {"mlperf", "config", "worker", "results", "preparation", "truth"},
    "runner": {
        *("mlperf", "config", "worker", "results", "borrowing", "servers", "serving", "server_rate"),
        *("progress", "entries", "preparation", "truth", "judgement", "sweep", "telemetry"),
    },
}
OUTSIDE_RUN: Arrows = {
    # Of harness/, beside errors, machine and models.
    "mlperf": set(),
    "config": {"triton", "server"},
    "worker": {"data", "answers", "triton"},
    "results": {"answers", "triton"},
}
CONVERTERS: Arrows = {
    "command": set(),
    "fetch": set(),
    "formats": {"command"},
    "inputs": {"formats"},
    "networks": {"formats", "inputs"},
    "conversion": {"command", "fetch", "formats", "inputs", "networks"},
    "source": {"command", "formats", "conversion"},
    "configs": {"command", "conversion"},
    "cli": {"command", "conversion"},
    "__main__": {"command", "cli"},
}
OURS = {"harness", "converters"}
WINGS = {"harness.": HARNESS, "harness.run.": RUN, "converters.": CONVERTERS}

CONVERTERS_FROM_HARNESS = {"errors", "machine", "models", "data", "answers"}

DOORS = {
    # Each library, and the only modules that may import it.
    "mlperf_loadgen": {"harness.run.mlperf.loadgen"},
    "tritonclient": {
        *("harness.triton.client", "harness.triton.messages", "harness.bench.plain"),
        *("harness.models.model_config", "harness.models.live_config"),
    },
    "grpc": {"harness.triton.grpc_channel"},
    "hpack": {"harness.triton.http2"},
    "pycocotools": {"harness.answers.coco_scoring"},
    "cv2": {
        *("harness.data.preprocess", "harness.data.synthetic", "harness.answers.drawing"),
        "harness.report.pictures",
    },
    "jinja2": {"harness.report.page"},
    "pynvml": {"harness.run.telemetry.nvml"},
    "requests": {"converters.fetch.download"},
    "tensorflow": {"converters.formats.tensorflow", "harness.bench.limit.frameworks"},
    "tf2onnx": {"converters.formats.onnx"},
}
STANDARD_LIBRARY_ONLY = {
    *("harness.errors", "harness.machine.files", "harness.machine.kernel"),
    *("harness.machine.command", "harness.machine.extras", "harness.machine.paths"),
    *(f"harness.server.kubernetes.{name}" for name in ("__main__", "cluster", "manifests")),
    *("harness.server.flags", "harness.server.hidden", "harness.server.regions", "harness.server.supervisor"),
    *(f"harness.server.container.{name}" for name in ("owner", "backends", "locked", "server")),
}
LARGEST_FOLDER = 11


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(file): file for top in ("harness", "converters") for file in (PROJECT_ROOT / top).rglob("*.py")
}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = [(module, target) for module, file in MODULES.items() for target in imports(file)]


def room(module: str, wing: str) -> str:
    """`harness.run.worker.sut` is in `run` of `harness.`, in `worker` of `harness.run.`; outside: empty."""
    return module.removeprefix(wing).split(".")[0] if module.startswith(wing) else ""


def arrows(wing: str) -> set[tuple[str, str]]:
    """Between the rooms of a wing, as the imports have them."""
    pairs = {(room(source, wing), room(target, wing)) for source, target in IMPORTS}
    return {(source, target) for source, target in pairs if source and target and source != target}


@pytest.mark.parametrize(("wing", "allowed"), WINGS.items())
def test_imports_run_downwards_only(wing: str, allowed: Arrows) -> None:
    wrong = [
        f"{source} imports {target}"
        for source, target in IMPORTS
        if (a := room(source, wing)) and (b := room(target, wing)) and a != b and b not in allowed[a]
    ]
    assert wrong == []


@pytest.mark.parametrize(("wing", "allowed"), WINGS.items())
def test_the_list_of_arrows_has_no_circle_and_no_arrow_that_nobody_uses(wing: str, allowed: Arrows) -> None:
    graphlib.TopologicalSorter(allowed).prepare()  # raises on a circle
    listed = {(source, target) for source, targets in allowed.items() for target in targets}
    assert listed - arrows(wing) == set()
    rooms = {room(module, wing) for module in MODULES} - {"", wing.split(".")[-2]}
    assert rooms == set(allowed)


@pytest.mark.parametrize(("part", "allowed"), OUTSIDE_RUN.items())
def test_what_a_run_is_made_of_takes_little_from_the_rest_of_the_house(part: str, allowed: set[str]) -> None:
    taken = {
        room(target, "harness.")
        for source, target in IMPORTS
        if room(source, "harness.run.") == part and target.startswith("harness.")
    }
    assert taken - {"run", "errors", "machine", "models"} == allowed


def test_the_converters_know_nothing_of_runs_and_the_harness_starts_them_as_processes() -> None:
    taken = {room(target, "harness.") for source, target in IMPORTS if source.startswith("converters")}
    assert taken == {"", *CONVERTERS_FROM_HARNESS}
    assert [
        pair for pair in IMPORTS if pair[0].startswith("harness") and pair[1].startswith("converters")
    ] == []


def test_backends_import_nothing_of_ours() -> None:
    backends = (PROJECT_ROOT / "backends").rglob("*.py")
    ours = {target for file in backends for target in imports(file) if target.split(".")[0] in OURS}
    assert ours == set()


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_each_library_has_its_door(library: str, doors: set[str]) -> None:
    assert {source for source, target in IMPORTS if target.split(".")[0] == library} == doors


@pytest.mark.parametrize("module", sorted(STANDARD_LIBRARY_ONLY))
def test_what_runs_without_packages_imports_none(module: str) -> None:
    taken = {target for source, target in IMPORTS if source == module}
    foreign = {target for target in taken if target.split(".")[0] not in sys.stdlib_module_names}
    assert all(any(target.startswith(other) for other in STANDARD_LIBRARY_ONLY) for target in foreign), (
        foreign
    )


def packages() -> list[Path]:
    return [file.parent for module, file in MODULES.items() if file.name == "__init__.py"]


@pytest.mark.parametrize("package", packages(), ids=lambda folder: str(folder.relative_to(PROJECT_ROOT)))
def test_no_folder_has_more_than_eleven_modules_and_each_package_says_what_it_is(package: Path) -> None:
    modules = [file for file in package.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) <= LARGEST_FOLDER
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert docstring.endswith(".")
    if package.name != "models":
        assert (package / "__init__.py").read_text(encoding="utf-8") == f'"""{docstring}"""\n'


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {file.parent for file in MODULES.values()}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def first_sentence(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].split(". ")[0].rstrip(".") + "."


def test_the_readme_says_where_things_are_in_the_packages_own_words() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Where things are\n\n")[2].partition("\n\n## ")[0].splitlines()
    assert 0 < len(section) <= 15
    listed = dict(re.fullmatch(r"- `([\w/]+)/` (.+)", line).groups() for line in section)
    assert listed == {package: first_sentence(PROJECT_ROOT / package) for package in listed}
    assert set(listed) >= {
        f"harness/{name}" for name in HARNESS if (PROJECT_ROOT / "harness" / name).is_dir()
    }


NAMED = re.compile(r"(?<![\w/.-])((?:harness|converters)(?:\.[a-z_0-9]+)+)")


def test_every_module_that_is_named_in_words_exists() -> None:
    """Docstrings, comments, messages, README and the container's files name modules that there are."""
    places = [
        *MODULES.values(),
        *(PROJECT_ROOT / "tests").rglob("*.py"),
        *(file for file in (PROJECT_ROOT / "docker").rglob("*") if file.is_file()),
        *(PROJECT_ROOT / name for name in ("README.md", "run.sh")),
    ]
    wrong = [
        f"{place.relative_to(PROJECT_ROOT)}: {name}"
        for place in places
        for name in NAMED.findall(place.read_text(encoding="utf-8"))
        # What follows a module may be one of its names.
        if name not in MODULES and name.rpartition(".")[0] not in MODULES
    ]
    assert wrong == []
