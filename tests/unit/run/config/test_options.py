import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.errors import ConfigError
from harness.machine.environment import cpu_count
from harness.machine.paths import PROJECT_ROOT
from harness.models import get_variant
from harness.models.recipes import RECIPES, has_same_arithmetic
from harness.run.config import command_line, settings
from harness.run.config.options import OPTIONS
from harness.run.config.resolution import Invocation, invocation
from harness.run.config.settings import Setting
from harness.run.mlperf.reference import PROFILES
from tests.unit.run.config.option_cases import CASES, MODEL, Case

USER_CONF = """# a comment
*.Server.target_qps = 20
resnet50.Server.target_qps = 30
resnet50.*.target_qps = 10
*.*.min_duration = 1500
mobilenet.Server.target_qps = 99
resnet50.Server.target_latency = 50
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "MODEL_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "resnet50_v1.pb").touch()
    (tmp_path / "run.toml").write_text("count = 7\n")
    (tmp_path / "part.pbtxt").write_text('name: "resnet50_onnxruntime" max_batch_size: 4')
    (tmp_path / "user.conf").write_text(USER_CONF.replace("resnet50.*.target_qps = 10\n", ""))
    return tmp_path


def asked_for(words: str) -> Invocation:
    return invocation(vars(command_line.parser().parse_args(shlex.split(words))))


def shown(asked: Invocation) -> dict[str, Setting]:
    """Settings by name, those of a scenario as `Scenario: name`."""
    config = asked.configs[0]
    variant = None if config.choice.is_user_file else get_variant(config.spec, config.platform)
    found = {setting.name: setting for setting in settings.of_request(config, variant)}
    for scenario, test in settings.tests(config):
        for setting in test:
            name = f"{scenario}: {setting.name}"
            found[f"{name} (2)" if name in found else name] = setting
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_an_option_has_its_effect(case: Case, folder: Path) -> None:
    words = case.words.replace("FOLDER", str(folder))
    assert case.option in shlex.split(words)
    if case.refusal:
        with pytest.raises(ConfigError, match=re.escape(case.refusal)) as caught:
            asked_for(words)
        assert "\n" not in str(caught.value)
        return
    found = shown(asked_for(words))
    expected = {
        name: value.replace("FOLDER", str(folder)) if isinstance(value, str) else value
        for name, value in case.shows.items()
    }
    assert {name: found[name].value for name in expected} == expected


def test_every_spelling_of_every_option_has_a_case() -> None:
    spellings = {option for action in command_line.parser()._actions for option in action.option_strings}
    assert {case.option for case in CASES} == spellings - {"-h", "--help"}


def test_every_option_is_in_the_settings_or_stands_for_another_one() -> None:
    names = {name.replace("-", "_") for name in shown(asked_for(MODEL)) if ":" not in name}
    refused = {"mlperf_conf", "audit_conf", "preprocessed_dir", "use_preprocessed_dataset"}
    stand_ins = {"model_name", "find_peak_performance", "all", "config", "dry_run"}
    assert set(OPTIONS) - names == refused | stand_ins


def test_what_a_user_has_set_is_told_from_defaults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", "localhost:1")
    (config,) = asked_for(f"--model {folder}/resnet50_v1.pb --config {folder}/run.toml --quick").configs
    found = settings.of_request(config, None)
    given = {one.name for one in found if settings.is_given(config, one)}
    assert given == {"model", "platform", "scenario", "accuracy", "quick", "weights", "count", "url"}


def test_help_is_readable_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = command_line.parser().format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "Exit codes: 0 valid; 1 INVALID" in text
    for name in PROFILES:
        assert re.search(rf"(?m)[ ,]{name}(,|$)", text), name


def test_a_python_without_the_libraries_is_told_in_one_line_what_to_type() -> None:
    # -S: without the packages of .venv.
    command = [sys.executable, "-S", "-m", "harness", "--help"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .* has no module \w+: use \./run\.sh bench, .*\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        ("--scenari Server", "--scenario"),
        ("--max-batch 4", "--max-batchsize"),
        ("--dataset_path x", "--dataset-path"),
        ("--querys-single=4", "--queries-single"),
    ],
)
def test_a_mistyped_option_is_told_the_nearest(words: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=rf"unrecognized arguments: .*did you mean {suggestion}\?"):
        asked_for(f"{MODEL} {words}")


def test_the_command_line_counts_before_the_file_the_file_before_the_profile(folder: Path) -> None:
    (folder / "run.toml").write_text(
        'profile = "mobilenet-tf"\nplatform = "tflite"\ncount = 5\nscenario = ["Server", "Offline"]\n'
        "max-latency = [0.05, 1]\naccuracy = true\n"
    )
    found = shown(asked_for(f"--config {folder}/run.toml --count 6"))
    expected = {
        "model": ("mobilenet", "--profile mobilenet-tf"),
        "platform": ("tflite", "run.toml"),
        "count": (6, "command line"),
        "scenario": (["Server", "Offline"], "run.toml"),
        "max-latency": ([0.05, 1.0], "run.toml"),
        "accuracy": (True, "run.toml"),
        "max-batchsize": (64, "model"),
        "mode": ("Performance", "default"),
    }
    assert {name: (found[name].value, found[name].origin) for name in expected} == expected
    tests = {"Server: fewest queries": "command line", "Server: latency bound, ms": "run.toml"}
    assert {name: found[name].origin for name in tests} == tests


def test_a_file_can_switch_a_flag_off_and_name_paths_beside_itself(folder: Path) -> None:
    (folder / "run.toml").write_text('quick = true\naccuracy = false\nmodel = "resnet50_v1.pb"\ncache = 0\n')
    found = shown(asked_for(f"--config {folder}/run.toml"))
    assert found["accuracy"] == Setting("accuracy", False, "run.toml", of="request")
    assert found["count"] == Setting("count", 16, "--quick", of="request")
    assert found["weights"] == Setting("weights", str(folder / "resnet50_v1.pb"), "--model", of="request")
    assert found["model"] == Setting("model", "resnet50", "name of the file", of="request")


def test_a_file_can_have_headers_whose_values_are_in_files_beside_it(folder: Path) -> None:
    (folder / "token").write_text("secret\n")
    run = folder / "run.toml"
    for text in ('header = "key: Bearer @token"', 'header = ["key: Bearer @token"]'):
        run.write_text(text)
        found = shown(asked_for(f"{MODEL} --config {run}"))
        assert found["header"] == Setting(
            "header", [f"key: Bearer @{folder}/token"], "run.toml", of="request"
        )
    run.write_text('header = ["key: secret", 1]')
    with pytest.raises(
        ConfigError, match=r"run.toml: header is of the wrong type: it takes a text, or"
    ) as no:
        asked_for(f"{MODEL} --config {run}")
    assert "secret" not in str(no.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("scenari = 'Server'", "run.toml: unknown key 'scenari' (did you mean scenario?)"),
        ("max_latencies = 1", "run.toml: unknown key 'max_latencies' (did you mean max-latency?)"),
        ("config = 'x'", "run.toml: unknown key 'config'"),
        ("count = true", "run.toml: count = True is of the wrong type: it takes a number"),
        ("count = '7'", "run.toml: count = '7' is of the wrong type: it takes a number"),
        ("count = 1.5", "--count 1.5 is impossible: it takes a whole number"),
        ("accuracy = 1", "run.toml: accuracy = 1 is of the wrong type: it takes true or false"),
        ("model = 50", "run.toml: model = 50 is of the wrong type: it takes a name or a path"),
        ("url = [['a']]", "run.toml: url = [['a']] is of the wrong type"),
        ("max-latency = 1\nmax_latency = 2", "is there twice"),
        ("count", "run.toml is not TOML"),
        ("count = " + "9" * 5000, "run.toml is not TOML"),
        ("count = " + "[" * 5000, "run.toml is not TOML"),
        ("output = 'a\\u0000b'".replace("'", '"'), "is no path: it has a null character"),
        ("cache = '~nosuchuser/x'", "~nosuchuser/x: there is no such user"),
        ("mlperf_conf = 'x'", "--mlperf_conf is refused: "),
        ("mode = 'Fast'", "--mode 'Fast' is unknown"),
        ("mode = ''", "--mode is empty"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(folder: Path, text: str, complaint: str) -> None:
    (folder / "run.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        asked_for(f"{MODEL} --config {folder}/run.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", ["", "--all "])
def test_a_file_is_read_once_so_that_it_may_be_a_pipe(words: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        with os.fdopen(writing, "wb") as stream:
            stream.write(b'model = "mobilenet"\nplatform = "tflite"\ncount = 7\n')
        (config,) = asked_for(f"{words}--config /dev/fd/{reading}").configs
    assert (config.model, config.platform, config.changes.count) == ("mobilenet", "tflite", 7)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_our_parent_has_closed_is_no_traceback(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, stream, None)
    assert cli.main([*MODEL.split(), "--dry-run"]) == 0
    assert cli.main([*MODEL.split(), "--count", "0"]) == 2
    getattr(sys, stream).close()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read --config .*/no.toml: No such file"):
        asked_for(f"{MODEL} --config {tmp_path}/no.toml")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("*.Server.target_qps=20", "wants `model.scenario.key = value`, with spaces around ="),
        ("*.Sever.target_qps = 20", "unknown scenario 'Sever' (did you mean Server?)"),
        ("*.Server.target_qsp = 20", "unknown key 'target_qsp' (did you mean target_qps?)"),
        ("*.Server.target_latency = 0.5", "takes a whole number above 0"),
        ("*.*.qsl_rng_seed = 5", "is fixed by the round"),
        ("*.Server.target_qps = 0", "takes a number above 0"),
    ],
)
def test_lines_of_user_conf_that_loadgen_would_misread_are_refused(
    folder: Path, line: str, complaint: str
) -> None:
    (folder / "user.conf").write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        asked_for(f"{MODEL} --user_conf {folder}/user.conf")
    assert f"{folder}/user.conf:2: " in str(caught.value)


def test_a_user_conf_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    missing = tmp_path / "user.conf"
    with pytest.raises(ConfigError) as caught:
        asked_for(f"{MODEL} --user_conf {missing}")
    assert str(caught.value) == f"cannot read --user_conf {missing}: No such file or directory"


def test_a_round_takes_the_user_conf_that_the_reference_has(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (
        *(
            "*.SingleStream.target_latency = 10",
            "*.MultiStream.target_latency = 80",
            "*.Server.target_qps = 1.0",
        ),
        *("*.Offline.target_qps = 1.0", "*.*.min_duration = 600000", "*.*.max_duration = 660000"),
        *("resnet50.*.performance_sample_count_override = 2048", "resnet50.Server.target_latency = 15"),
    )
    (folder / "user.conf").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    found = shown(asked_for(f"{MODEL} --round v6.1 --scenario Offline --user_conf {folder}/user.conf"))
    assert found["Offline: expected rate, samples/s"].value == 1
    assert "user.conf:6: max_duration is left out" in caplog.text


def test_user_conf_follows_loadgens_precedence_and_options_count_before_it(folder: Path) -> None:
    (folder / "user.conf").write_text(USER_CONF)
    server = f"{MODEL} --scenario Server,Offline --user_conf {folder}/user.conf"
    found = shown(asked_for(server))
    # *.Server before resnet50.*, and resnet50.Server before both.
    assert found["Server: offered rate, queries/s"].value == 30
    assert found["Offline: expected rate, samples/s"].value == 10
    assert found["Offline: expected rate, samples/s"].origin == "--user_conf"
    assert shown(asked_for(f"{server} --qps 3"))["Server: offered rate, queries/s"].value == 3


@pytest.mark.parametrize(
    "changed", ["--queries-single 5", "--samples-per-query 4", "--performance-sample-count 9"]
)
def test_a_round_takes_nothing_that_changes_it(changed: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"takes no {changed.split()[0]}"):
        asked_for(f"{MODEL} --round v6.1 {changed}")
    with pytest.raises(
        ConfigError, match="takes no min_duration of --user_conf, target_latency of --user_conf"
    ):
        asked_for(f"{MODEL} --round v6.1 --user_conf {folder}/user.conf")


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "defaults"])
def test_a_profile_is_a_model_that_is_preprocessed_as_the_reference_does(name: str) -> None:
    config = asked_for(f"--profile {name}").configs[0]
    variant = get_variant(config.spec, config.platform)
    assert has_same_arithmetic(RECIPES[PROFILES[name].dataset], variant.preprocess)


def test_published_weights_in_model_dir_are_official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIR", str(folder))
    found = shown(asked_for(f"--model {folder}/resnet50_v1.pb"))
    assert found["weights"] == Setting("weights", "official", "--model", of="request")
    assert found["folder of weights"] == Setting("folder of weights", str(folder), "MODEL_DIR")


def test_a_server_is_known_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", "triton:8001")
    assert shown(asked_for(MODEL))["url"] == Setting("url", ["triton:8001"], "TRITON_URL", of="request")
    assert shown(asked_for(f"{MODEL} --url b:1"))["url"].origin == "command line"


def test_threads_and_their_origin_agree_on_a_cpu_for_a_file_of_ones_own_too(folder: Path) -> None:
    cpus, own = cpu_count(), f"{MODEL} --weights {folder}/model.onnx"
    (folder / "model.onnx").touch()
    for words in (MODEL, own):
        (config,) = asked_for(words).configs
        text = "\n".join(settings.lines(config))
        assert re.search(rf"^  threads +{cpus} +number of CPUs$", text, re.MULTILINE)
    for elsewhere in ("--device gpu", "--url localhost:1"):
        threads = shown(asked_for(f"{own} {elsewhere}"))["threads"]
        assert (threads.value, threads.origin) == (None, "the framework's")


def test_a_dry_run_writes_nothing_but_its_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(folder.iterdir())
    output = folder / "results" / "all.json"
    assert cli.main(shlex.split(f"{MODEL} --scenario Server --time 3 --output {output} --dry-run")) == 0
    printed = capsys.readouterr()
    assert set(folder.iterdir()) == before
    assert re.search(r"(?m)^  scenario +Server +command line$", printed.out)
    assert re.search(r"(?m)^  latency bound, ms +15 +round v6.1$", printed.out)
    assert printed.out.endswith("--dry-run: nothing was started or written.\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--dataset-path {0}/nowhere", "dataset folder {0}/nowhere does not exist"),
        (
            "--output /dev/null/x",
            "cannot write results to /dev/null/x: /dev/null: it is no folder; see --output",
        ),
        ("--cache /dev/full", "cannot write samples to /dev/full: /dev/full: it is no folder; see --cache"),
    ],
)
def test_a_dry_run_looks_for_the_folders_of_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, says: str
) -> None:
    assert cli.main(shlex.split(f"{MODEL} {options.format(folder)} --dry-run")) == 2
    assert says.format(folder) in capsys.readouterr().err


def test_a_dry_run_tells_what_a_file_of_settings_says_and_that_it_is_from_there(folder: Path) -> None:
    file, words = (
        folder / "part.pbtxt",
        f"{MODEL} --scenario Offline --device gpu --threads 4 --queue-delay 9",
    )
    before = shown(asked_for(words))
    file.write_text(
        "max_batch_size: 16 instance_group { count: 3 } dynamic_batching { preferred_batch_size: [ 8, 16 ] }"
        'parameters { key: "arena" value { string_value: "1" } }'
    )
    found = shown(asked_for(f"{words} --server-config {file}"))
    told = {
        "max-batchsize": 16,
        "Offline: server: instances": 3,
        "Offline: server: largest batch": 16,
        "Offline: server: preferred batches": [8, 16],
        "Offline: server: arena": 1,
    }
    assert {name: (str(found[name].value), found[name].origin) for name in told} == {
        name: (str(value), str(file)) for name, value in told.items()
    }
    # What follows: two batches for each of three instances.
    followed = {"Offline: client: samples per request": 16, "Offline: client: requests in flight": 6}
    assert {name: found[name].value for name in followed} == followed
    others = found.keys() - told.keys() - followed.keys() - {"server-config"}
    assert {name: found[name] for name in others} == {name: before[name] for name in others}

    # A 0, too, and threads.
    file.write_text(
        "dynamic_batching { max_queue_delay_microseconds: 0 }"
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }'
    )
    found = shown(asked_for(f"{words} --server-config {file}"))
    for name, value in {"server: queue delay, us": 0, "server: threads of each": 2}.items():
        assert found[f"Offline: {name}"] == Setting(name, value, str(file))
    # The option stays what was asked for.
    assert found["threads"] == before["threads"]


def test_a_dry_run_counts_the_instances_of_a_file_on_the_gpus_that_it_names(folder: Path) -> None:
    group = "instance_group [ { count: 2 gpus: [ 0, 1 ] }, { count: 1 gpus: [ 2 ] } ]"
    (folder / "part.pbtxt").write_text(group)
    words = f"{MODEL} --scenario Offline --gpus 7 --server-config {folder}/part.pbtxt"
    found = shown(asked_for(words))
    told = {"server: GPUs": [0, 1, 2], "server: instances": 5, "client: requests in flight": 10}
    assert {name: found[f"Offline: {name}"].value for name in told} == told


@pytest.mark.parametrize(("option", "level"), [("--quiet", logging.WARNING), ("--debug", logging.DEBUG)])
def test_quiet_and_debug_are_levels_of_the_log(
    option: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    assert cli.main(shlex.split(f"{MODEL} {option} --dry-run")) == 0
    assert root.level == level
