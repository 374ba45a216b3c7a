"""run.sh, in a project of its own whose modules say how they were called, with a real virtual environment."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.machine.kernel import prctl
from harness.machine.paths import PROJECT_ROOT

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h
RUN_SH = PROJECT_ROOT / "run.sh"
RunTests = Callable[..., tuple[int, list[tuple[str, list[str]]]]]

RECORDER = """
import json, os, sys
print(json.dumps([__spec__.name, sys.argv[1:], os.getcwd()]))
sys.exit(7)
"""
SLEEPER = """
import sys, time
try:
    print("sleeping", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


def make_project(folder: Path) -> Path:
    """Returns its run.sh."""
    for module in (
        *("harness/__main__.py", "harness/demo.py", "harness/bench.py"),
        *("harness/server/__main__.py", "harness/server/kubernetes.py"),
        *("harness/report/__main__.py", "harness/compare/__main__.py"),
        *("converters/__main__.py", "converters/fetch.py"),
    ):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).write_text(RECORDER)
    for module in (
        *("harness/start.py", "harness/errors.py"),
        *("harness/machine/command.py", "harness/machine/extras.py"),
    ):
        (folder / module).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT_ROOT / module, folder / module)
    (folder / "requirements.lock").write_text("# nothing to install\n")
    shutil.copy(RUN_SH, folder)
    return folder / "run.sh"


def run(
    script: Path, *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run.sh of a project that has been set up, in a path with a space."""
    script = make_project(tmp_path_factory.mktemp("project") / "with a space")
    done = run(script, "setup", PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "installing into" in done.stderr
    return script


def test_a_second_setup_asks_no_pip_and_says_nothing(script: Path) -> None:
    pip = next((script.parent / ".venv").glob("lib/python3.*/site-packages/pip"))
    pip.rename(pip.with_name("hidden"))
    try:
        done = run(script, "setup")
    finally:
        pip.with_name("hidden").rename(pip)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "module", "passed"),
    [
        (["bench", "--output", "a b"], "harness.__main__", ["--output", "a b"]),
        (["demo"], "harness.demo", []),
        (["check", "--model", "mobilenet"], "harness.__main__", ["--all", "--quick", "--model", "mobilenet"]),
        (["limits", "--quick"], "harness.bench", ["--quick"]),
        (
            ["local"],
            "harness.__main__",
            ["--model-name", "resnet50", "--platform", "tf", "--device", "cpu"],
        ),
        (
            ["local", "gpu", "ssd-mobilenet", "onnxruntime", "--count", "100", "--output", "a b"],
            "harness.__main__",
            [
                *("--model-name", "ssd-mobilenet", "--platform", "onnxruntime", "--device", "gpu"),
                *("--count", "100", "--output", "a b"),
            ],
        ),
        (["fetch", "mobilenet"], "converters.fetch", ["mobilenet"]),
        (["convert", "mobilenet"], "converters.__main__", ["--model", "mobilenet"]),
        (
            ["convert", "mobilenet", "tflite", "--force"],
            "converters.__main__",
            ["--model", "mobilenet", "--platform", "tflite", "--force"],
        ),
        (
            ["convert", "mobilenet", "--force"],
            "converters.__main__",
            ["--model", "mobilenet", "--force"],
        ),
        (["convert", "--help"], "converters.__main__", ["--help"]),
        (["tritonserver-up", "--host", "::1"], "harness.server.__main__", ["up", "--host", "::1"]),
        (["tritonserver-logs"], "harness.server.__main__", ["logs"]),
        (
            ["kubernetes", "render", "--replicas", "3"],
            "harness.server.kubernetes",
            ["render", "--replicas", "3"],
        ),
        (["report", "results/a"], "harness.report.__main__", ["results/a"]),
        (["compare", "a", "b"], "harness.compare.__main__", ["a", "b"]),
    ],
)
def test_a_command_runs_its_module_in_the_users_folder_and_passes_the_exit_code_on(
    script: Path, tmp_path: Path, arguments: list[str], module: str, passed: list[str]
) -> None:
    # What lies in the user's folder must not be imported in place of the project.
    (tmp_path / "harness").mkdir()
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the wrong folder')")
    done = run(script, *arguments, cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout) == [module, passed, str(tmp_path)]


def test_help_lists_every_command(script: Path) -> None:
    done = run(script, "help")
    assert done.returncode == 0
    listed = set(re.findall(r"^  ([a-z-]+)\s", done.stdout, re.MULTILINE))
    assert listed == {
        "setup", "demo", "bench", "check", "limits", "local", "docker", "kubernetes", "report", "compare",
        "fetch", "convert", "tune", "lock", "test", "help",
        "tritonserver-up", "tritonserver-status", "tritonserver-logs", "tritonserver-down",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["bnech"], ["tritonserver-upp"], ["convert"], ["setup", "--now"], ["local", "caffe"], ["docker", "tpu"]],
)
def test_bad_usage_is_one_line_and_exit_2(script: Path, arguments: list[str]) -> None:
    done = run(script, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("run.sh: ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_points_to_help(script: Path) -> None:
    assert (
        run(script, "bnech").stderr == "run.sh: unknown command 'bnech'; ./run.sh help lists the commands\n"
    )


def test_more_options_come_from_the_environment_as_in_the_reference(script: Path) -> None:
    done = run(script, "local", "tflite", "--time", "5", EXTRA_OPS="--count 32 --quiet")
    assert json.loads(done.stdout)[1] == [
        *("--model-name", "resnet50", "--platform", "tflite", "--device", "cpu"),
        *("--count", "32", "--quiet", "--time", "5"),
    ]


def fake_docker(folder: Path, ending: str) -> dict[str, str]:
    """Stands in for the engine, which no test can count on: writes down how it was called."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/calls"\n{ending}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_docker_runs_the_client_passes_its_exit_code_on_and_stops_the_server(
    script: Path, tmp_path: Path
) -> None:
    env = fake_docker(tmp_path / "bin", 'case "$*" in *" run "*) exit 1 ;; esac')
    done = run(script, "docker", "mobilenet", "gpu", "--output", "a b", **env)
    assert done.returncode == 1, done.stderr
    files = f"compose -f {script.parent}/docker/compose.yaml -f {script.parent}/docker/compose.gpu.yaml"
    assert (tmp_path / "bin" / "calls").read_text().splitlines() == [
        "compose version",
        f"{files} run --rm --build client --model-name mobilenet --platform tf --device gpu --output a b",
        f"{files} down",
    ]


def test_without_a_docker_engine_docker_says_so_in_one_line(script: Path, tmp_path: Path) -> None:
    done = run(script, "docker", **fake_docker(tmp_path / "bin", "exit 1"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "run.sh: no Docker engine: `docker compose version` fails; install its compose plugin, and start "
        "Docker\n"
    )


def test_help_of_docker_needs_no_engine(script: Path, tmp_path: Path) -> None:
    done = run(script, "docker", "tf", "--help", **fake_docker(tmp_path / "bin", "exit 1"))
    assert (done.returncode, json.loads(done.stdout)[:2]) == (7, ["harness.__main__", ["--help"]])


def test_a_machine_that_has_only_kubectl_is_not_set_up(tmp_path: Path) -> None:
    script = make_project(tmp_path / "project")
    done = run(script, "kubernetes", "down")
    assert (done.returncode, json.loads(done.stdout)[1]) == (7, ["down"])
    assert not (tmp_path / "project" / ".venv").exists()


def test_changed_requirements_are_installed_by_the_next_command(tmp_path: Path, script: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    (project / "requirements.lock").write_text("# still nothing\n")
    first = run(project / "run.sh", "demo")
    second = run(project / "run.sh", "demo")
    assert "installing into" in first.stderr
    assert second.stderr == ""
    assert (first.returncode, second.returncode) == (7, 7)


def test_concurrent_commands_set_up_once(tmp_path: Path, script: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    (project / "requirements.lock").write_text("# still nothing\n")
    running = [
        subprocess.Popen(
            [project / "run.sh", "demo"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    messages = [process.communicate(timeout=500)[1] for process in running]
    assert [process.returncode for process in running] == [7, 7, 7]
    assert sum("installing into" in message for message in messages) == 1


def unprivileged(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of somebody to whom permissions mean something; root, too, by default writes what is not."""
    return subprocess.run(
        [str(script), *arguments],
        env={**os.environ, **env},
        preexec_fn=(lambda: prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)) if os.getuid() == 0 else None,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture
def read_only(tmp_path: Path, script: Path) -> Iterator[Path]:
    """A checkout that was not set up, and that whoever is `unprivileged` cannot write."""
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    project.chmod(0o555)
    yield project / "run.sh"
    project.chmod(0o755)


def test_in_a_checkout_that_cannot_be_written_all_that_is_made_is_the_users(
    tmp_path: Path, read_only: Path
) -> None:
    chosen = {"XDG_STATE_HOME": str(tmp_path), "MLPERF_TRITON_HOME": "", "PYTHON": sys.executable}
    first, second = (unprivileged(read_only, "demo", **chosen) for _ in range(2))
    assert f"installing into {tmp_path}/mlperf-triton-vision/.venv" in first.stderr
    assert (first.returncode, second.returncode, second.stderr) == (7, 7, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlperf-triton-vision", "project"]


def test_a_checkout_that_was_set_up_needs_no_other_environment(tmp_path: Path, script: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    project.chmod(0o555)
    done = unprivileged(project / "run.sh", "demo", MLPERF_TRITON_HOME="/proc/nowhere")
    project.chmod(0o755)
    assert (done.returncode, done.stderr) == (7, "")


def test_where_nothing_can_be_written_that_is_one_line_and_exit_2(read_only: Path) -> None:
    place = "/proc/nowhere"
    done = unprivileged(read_only, "demo", MLPERF_TRITON_HOME=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"run.sh: cannot write {place}/.state: set MLPERF_TRITON_HOME to a folder that can be written\n"
    )


def test_requirements_that_cannot_be_installed_fail_and_are_tried_again(tmp_path: Path, script: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    (project / "requirements.lock").write_text("./there-is-no-such-folder\n")
    for _ in range(2):
        done = run(project / "run.sh", "demo")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            "run.sh: pip could not install requirements.lock (its message is above)"
        )


def fake_python(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_an_unsupported_interpreter_is_named_in_one_line(tmp_path: Path) -> None:
    script = make_project(tmp_path / "project")
    old = fake_python(tmp_path / "bin", "python3", "3.9")
    named = run(script, "setup", PYTHON=str(old))
    assert named.returncode == 2
    assert named.stderr == f"run.sh: $PYTHON is {old}, 3.9; Python 3.11 or 3.12 is needed\n"
    missing = run(script, "setup", PYTHON="no-such-python")
    assert missing.returncode == 2
    assert missing.stderr == (
        "run.sh: $PYTHON is no-such-python, not a working Python; Python 3.11 or 3.12 is needed\n"
    )


def test_a_supported_interpreter_is_found_beside_an_unsupported_python3(tmp_path: Path) -> None:
    script = make_project(tmp_path / "project")
    folder = tmp_path / "bin"
    fake_python(folder, "python3", "3.13")
    fake_python(folder, "python3.12", "3.10")
    (folder / "python3.11").symlink_to(Path(sys.executable).resolve())
    # The real one is 3.11 or 3.12, whatever its name here.
    done = run(script, "demo", PATH=f"{folder}:{os.environ['PATH']}", PYTHON="")
    assert done.returncode == 7, done.stderr


CHECKER = """
import json, os, sys
name = __spec__.name
print(json.dumps([name, sys.argv[1:]]), flush=True)
sys.exit(9 if name == os.environ["FAILS"] else 0)
"""


@pytest.fixture
def run_test_command(tmp_path: Path, script: Path) -> RunTests:
    """`run_test_command(OPTION …, fails="mypy")`: its exit code, and what it ran with which arguments."""
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    for name in ("ruff", "mypy", "pytest"):
        (project / f"{name}.py").write_text(CHECKER)

    def run_it(*options: str, fails: str = "") -> tuple[int, list[tuple[str, list[str]]]]:
        # These tests are run by a run.sh too, which has its Python import nothing from the folder it is in.
        done = run(project / "run.sh", "test", *options, FAILS=fails, PYTHONSAFEPATH="")
        return done.returncode, [(name, words) for name, words in map(json.loads, done.stdout.splitlines())]

    return run_it


STATIC = [("ruff", ["check", "."]), ("ruff", ["format", "--check", "."]), ("mypy", [])]


def test_test_checks_the_code_and_runs_both_kinds_of_tests(run_test_command: RunTests) -> None:
    code, ran = run_test_command()
    assert code == 0
    (unit, *static, integration) = ran
    assert static == STATIC
    assert [(name, words[-1]) for name, words in (unit, integration)] == [
        ("pytest", "tests/unit"),
        ("pytest", "tests/integration"),
    ]


@pytest.mark.parametrize(("fails", "also"), [("ruff", STATIC[:1]), ("mypy", STATIC), ("pytest", STATIC)])
def test_code_or_unit_tests_that_fail_end_it_and_all_that_they_said_is_shown(
    run_test_command: RunTests, fails: str, also: list[tuple[str, list[str]]]
) -> None:
    code, ran = run_test_command(fails=fails)
    assert code == 9
    assert ran[1:] == also
    assert ran[0][1][-1] == "tests/unit"


def test_options_of_test_are_pytests_after_the_code_was_checked(run_test_command: RunTests) -> None:
    options = ["-m", "nightly", "-k", "a b"]
    assert run_test_command(*options) == (0, [*STATIC, ("pytest", options)])
    assert run_test_command(*options, fails="mypy") == (9, STATIC)


def test_ctrl_c_reaches_the_command_itself(tmp_path: Path, script: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(script.parent, project, symlinks=True)
    (project / "harness" / "demo.py").write_text(SLEEPER)
    process = subprocess.Popen([project / "run.sh", "demo"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "sleeping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
