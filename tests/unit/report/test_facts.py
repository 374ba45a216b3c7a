"""What a page says of settings, of the machine and how busy it was, and where it leads."""

import re
from pathlib import Path

import pytest

from harness.report import facts, index
from harness.report.write import write, write_all_or_warn
from harness.run.results import recorded_run, shelf

LOAD = {
    "cpus": 2,
    "others": 0.94,
    "ours": 0.75,
    "steal": 0.0,
    "throttled": None,
    "series": {
        "span_s": 1.0,
        "others": [0.9, 0.98],
        "ours": [1.0, 0.5],
        "steal": [0.0, 0.0],
        "mhz": [2600, 2500],
    },
}
BY_DEFAULT = ("round v6.1", "model", "shipped table")
BUSY = {"PerformanceOnly": {"load": LOAD}}
ENVIRONMENT = {
    "os": "Linux-6.18",
    "kernel": "6.18.44",
    "host": "rack7",
    "processor": {
        "sockets": 2,
        "cores": 4,
        "threads": 8,
        "numa_nodes": 2,
        "microcode": "0x2b000571",
        "governor": "performance",
        "mhz": 2600.5,
        "highest_mhz": 3700.0,
        "is_virtual": False,
    },
    "gpus": [{"name": "NVIDIA H100", "driver": "535.104.05", "uuid": f"GPU-{at}"} for at in (0, 1)],
    "tool": {"version": "0.1.0", "commit": "84d90e1" + "0" * 33, "is_dirty": True},
}


def page_of(folder: Path) -> str:
    return write(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("cmdline", "typed"),
    [
        ("/home/me/harness/__main__.py --model mobilenet", "./run.sh bench --model mobilenet"),
        ("'/home/my folder/harness/__main__.py' --label 'one thread'", "./run.sh bench --label 'one thread'"),
        ("harness/__main__.py --qps 5", "./run.sh bench --qps 5"),
        ("/opt/mlperf/harness --qps 5", "./run.sh bench --qps 5"),
        ("/home/me/harness/demo.py", "./run.sh demo"),
        ("bench --model mobilenet", "bench --model mobilenet"),
        ("", ""),
        ("harness/__main__.py 'never closed", "harness/__main__.py 'never closed"),
    ],
)
def test_the_command_can_be_pasted(cmdline: str, typed: str) -> None:
    assert facts.command(cmdline) == typed


def test_what_was_set_is_shown_and_the_defaults_are_folded(write_run) -> None:
    given = {"max-latency": ("run.toml", True), "url": ("TRITON_URL", True), "mode": ("default", False)}
    settings = [
        {"name": name, "value": "x", "origin": origin, "of": "request", "is_given": is_given}
        for name, (origin, is_given) in given.items()
    ]
    settings.append(
        {"name": "server: instances", "value": 2, "origin": "your tuning of 2026-11-27", "of": "test"}
    )
    page = page_of(write_run("a", settings=settings))
    assert "<caption>Options: 2 set, 1 default</caption>" in page
    shown, folded = page.split("<summary>1 default</summary>")
    assert ("max-latency" in shown, "TRITON_<wbr>URL" in shown, ">mode<" in shown) == (True, True, False)
    assert ">mode<" in folded.partition("</details>")[0]
    assert "your tuning of 2026-11-27" in folded


def test_what_a_test_came_to_by_default_is_folded_too_and_lists_break_after_commas(write_run) -> None:
    recipe = "imagenet_mobilenet: scale=1/255,order=RGB,layout=NCHW"
    rows = {
        "shortest duration, s": (8.0, "command line"),
        "fewest queries": (32, "--quick"),
        "expected latency, ms": (20.0, "calibrated"),
        "latency bound, ms": (10.0, "round v6.1"),
        "preprocessing": (recipe, "model"),
        "server: instances": (2, "shipped table"),
        "client: requests in flight": (4, "your tuning of 2026-11-27"),
    }
    settings = [
        {"name": name, "value": value, "origin": origin, "of": "test", "is_given": False}
        for name, (value, origin) in rows.items()
    ]
    page = page_of(write_run("a", settings=settings))
    table = page.partition("<caption>The test: 4 set, 3 defaults</caption>")[2].partition("</details>")[0]
    shown, _, folded = table.partition("<details>")
    names = re.compile(r'<th scope="row">([^<]*)</th>')
    assert names.findall(shown) == [name for name, (_, origin) in rows.items() if origin not in BY_DEFAULT]
    assert names.findall(folded) == [name for name, (_, origin) in rows.items() if origin in BY_DEFAULT]
    assert "imagenet_<wbr>mobilenet: scale=1/255,<wbr>order=RGB,<wbr>layout=NCHW" in folded


def test_the_servers_live_configuration_is_on_the_page(write_run) -> None:
    page = page_of(write_run("a"))
    assert "&#34;max_queue_delay_microseconds&#34;: &#34;0&#34;" in page


def test_the_machine_is_told_to_its_parts(write_run) -> None:
    found = dict(facts.machine(recorded_run.read(write_run("a", environment=ENVIRONMENT))))
    assert {
        "Cores": "2 sockets, 4 cores, 8 threads (SMT on), 2 NUMA nodes",
        "Clock": "2.60 GHz, up to 3.70 GHz, governor performance",
        "Microcode": "0x2b000571",
        "GPU": "2 x NVIDIA H100, driver 535.104.05",
        "Kernel": "6.18.44",
        "Host": "rack7",
        "This tool": "0.1.0, commit 84d90e100000, with changes that are not in it",
    }.items() <= found.items()


def test_of_a_server_elsewhere_every_part_is_the_clients(write_run) -> None:
    run = recorded_run.read(write_run("a", environment=ENVIRONMENT, server={"is_on_this_machine": False}))
    found = dict(facts.machine(run))
    assert found["CPU, memory and GPU"] == "not known"
    assert {"Cores of the client", "GPU of the client", "Host of the client"} <= found.keys()
    assert not {"Cores", "GPU", "Host"} & found.keys()


def test_what_a_result_does_not_tell_has_no_row(write_run) -> None:
    found = dict(facts.machine(recorded_run.read(write_run("a"))))
    assert not {"Cores", "Clock", "Microcode", "GPU", "Kernel", "Host"} & found.keys()
    assert found["This tool"] == "not known"


def test_a_busy_machine_is_told_at_the_top_in_a_chart_and_in_words(write_run) -> None:
    folder = write_run("a", tests=BUSY, others_before=0.25)
    page = page_of(folder)
    top, _, rest = page.partition("<h2>Server and machine</h2>")
    assert "<li>Other processes used 0.94 of 2 CPUs (47%).</li>" in top
    assert "Before the test, others used 0.25 of 2 CPUs (12%)." in rest
    picture = rest.partition('id="load"')[2].partition("</svg>")[0]
    assert "client and server 0.750 CPUs, others 0.940 CPUs, clock 2.50 to 2.60 GHz." in picture
    assert "taken by the host" not in picture


def test_a_machine_that_nobody_watched_has_no_chart(write_run) -> None:
    page = page_of(write_run("a"))
    assert "Use of the CPUs" not in page
    assert "Busy machine" not in page


def test_the_load_of_others_that_cannot_be_told_is_not_drawn(write_run) -> None:
    hidden = {**LOAD, "others": None, "why_unknown": "the server is hidden"}
    hidden["series"] = {**LOAD["series"], "others": [], "mhz": []}
    page = page_of(write_run("a", tests={"PerformanceOnly": {"load": hidden}}))
    assert "others: not known: the server is hidden." in page
    picture = page.partition('id="load"')[2].partition("</svg>")[0]
    assert "On average of 2 CPUs: client and server 0.750 CPUs." in picture
    assert "GHz" not in picture


def links(page: str) -> list[str]:
    return re.findall(r'href="([^"]+)"', page.partition("<main>")[2])


def test_a_page_leads_to_its_files_and_to_the_other_runs_of_its_command(write_run, tmp_path) -> None:
    mine, other, foreign = (
        write_run(name, invocation=of)
        for name, of in (("1 mine", "now"), ("2_other", "now"), ("3_foreign", "then"))
    )
    for name in ("mlperf_log_summary.txt", "mlperf_log_detail.txt"):
        (mine / "performance/run_1" / name).touch()
    (mine / "pictures").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text('{"invocation": "now"')
    assert write_all_or_warn([mine, other]) == tmp_path / "index.html"
    found = links(page_of(mine))
    assert found == [
        "results.json",
        "performance/run_1/mlperf_log_summary.txt",
        "performance/run_1/mlperf_log_detail.txt",
        "pictures",
        "../index.html",
        "../2_other/report.html",
    ]
    assert all((mine / link).exists() for link in found)
    assert "../1%20mine/report.html" in links((other / "report.html").read_text())
    assert not (foreign / "report.html").exists()


def test_the_index_has_all_runs_of_a_folder_by_their_command_the_newest_first(write_run, tmp_path) -> None:
    command = "/home/me/harness/demo.py --label one"
    for name, invocation, label in (("1", "first", ""), ("2", "second", "one"), ("3", "second", "one")):
        write_run(name, invocation=invocation, args={"label": label}, cmdline=command, tests=BUSY)
    page = index.write(tmp_path).read_text()
    newest, _, earlier = page.partition("<h2>Earlier</h2>")
    assert (links(newest), links("<main>" + earlier)) == (
        ["2/report.html", "3/report.html"],
        ["1/report.html"],
    )
    assert "<h2>one &middot; 25 November 2026" in newest
    assert "Busy machine: other processes used 0.94 of 2 CPUs" in newest
    assert '<span class="word">./run.sh</span> <span class="word">demo</span>' in newest
    assert "<script" not in page


def test_earlier_commands_are_told_apart_by_what_they_measured_and_offline_has_no_percentiles(
    write_run, tmp_path
) -> None:
    for name, model, scenario in (
        ("1", "mobilenet", "Offline"),
        ("2", "mobilenet", "SingleStream"),
        ("3", "resnet50", "Offline"),
        ("4", "vgg16", "Offline"),
        ("5", "alexnet", "Offline"),
    ):
        figures = {f"TestScenario.{scenario}": {"qps": 40.0, "percentiles": {"50.0": 4.0, "99.0": 8.0}}}
        invocation = "first" if name in "12" else "second"
        write_run(name, model=model, scenario=scenario, invocation=invocation, **figures)
    write_run("6", invocation="third")
    page = index.write(tmp_path).read_text()
    summaries = re.findall(r"<summary>[^<]*UTC &middot; ([^<]*)</summary>", page)
    assert summaries == [
        "resnet50 on onnxruntime, vgg16 on onnxruntime, 1 other model, Offline: 3 runs",
        "mobilenet on onnxruntime, Offline, SingleStream: 2 runs",
    ]
    cells = re.findall(r"<td>(SingleStream|Offline)</td>" + r'<td class="figure">([^<]*)</td>' * 3, page)
    assert cells[-2:] == [
        ("Offline", "40.00 samples/s", "-", "-"),
        ("SingleStream", "40.00 samples/s", "4,000", "8,000"),
    ]


def test_a_run_that_its_command_made_alone_has_no_heading_of_others(write_run, tmp_path) -> None:
    folders = [write_run(name, invocation=name) for name in "ab"]
    assert write_all_or_warn(folders)
    page = page_of(folders[0])
    assert "all runs in that folder" in page
    assert "Measured by the same command" not in page


def test_the_index_has_no_speed_of_runs_that_ask_for_the_answers_only(write_run, tmp_path) -> None:
    for name in "ab":
        write_run(name, args={"is_quick": True}, tests=BUSY, rate_origin="tried", invocation="one")
    page = index.write(tmp_path).read_text()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)[:6]
    assert cells == ["Server", "-", "-", "-", "98.44%", "wrong, quick"]
    assert "Busy machine" not in page
    assert "top-1 agreement 98.44%, wrong" in page_of(tmp_path / "a")


def test_one_run_needs_no_index(write_run, tmp_path) -> None:
    assert write_all_or_warn([write_run("1")]) is None
    assert not (tmp_path / "index.html").exists()


def test_an_index_that_cannot_be_written_is_a_warning(write_run, tmp_path, caplog) -> None:
    folders = [write_run("1"), write_run("2")]
    (tmp_path / "index.html").mkdir()
    assert write_all_or_warn(folders) is None
    assert "no index.html: cannot write" in caplog.text


def test_only_the_newest_results_are_read(write_run, tmp_path) -> None:
    for name in "abc":
        write_run(name)
    assert [result.folder.name for result in shelf.results_in(tmp_path, most=2)] == ["b", "c"]


def test_a_run_has_its_name_on_its_page(write_run) -> None:
    assert "one &lt;thread&gt; &middot; <time" in page_of(write_run("a", args={"label": "one <thread>"}))
    assert '<p class="muted"><time' in page_of(write_run("b"))
