"""COCO from a real HTTP server on this machine."""

import dataclasses
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.fetch import __main__, coco, download
from harness.data.coco import open_coco
from harness.machine.paths import PROJECT_ROOT
from tests.unit.converters.fetch.served import left_in, serving, zipped

JPEG = cv2.imencode(".jpg", np.full((8, 8, 3), 9, np.uint8))[1].tobytes()
NAMES = [f"{number:012}.jpg" for number in (139, 285, 632)]
IMAGES = {f"val2017/{name}": JPEG + name.encode() for name in NAMES}
INSTANCES = json.dumps(
    {
        "images": [
            {"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(NAMES)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
).encode()
ANNOTATIONS = {
    "annotations/instances_train2017.json": b"{}",
    "annotations/instances_val2017.json": INSTANCES,
}
UNPACKED = [
    "annotations", "annotations.sha256", "annotations/instances_val2017.json", "annotations_trainval2017.zip",
    "val2017", *(f"val2017/{name}" for name in NAMES), "val2017.sha256", "val2017.zip",
]  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves `files` by the last part of the path; remembers what it was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.breaks_after: int | None = None
        """Bytes after which the next answer breaks off; what comes after that is not found."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        asked = self.headers.get("Range", "")
        self.server.asked.append((name, asked))
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.server.breaks_after is None:
            self.wfile.write(content[first:])
        else:
            self.wfile.write(content[first : self.server.breaks_after])
            self.server.files.pop(name)
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Has both archives; `publish` gives another one."""
    monkeypatch.setattr(download, "_RETRY_AFTER_S", 0.0)
    running = Server()
    publish(running, monkeypatch, zipped(IMAGES), zipped(ANNOTATIONS))
    with serving(running):
        yield running


def publish(server, monkeypatch, images, annotations):
    """Serve these archives, and expect their checksums."""
    parts = []
    for part, content in zip(coco._PARTS, (images, annotations), strict=True):
        server.files[part.archive.filename] = content
        archive = dataclasses.replace(
            part.archive,
            urls=(f"http://127.0.0.1:{server.server_port}/{part.archive.filename}",),
            checksum="md5:" + hashlib.md5(content).hexdigest(),
        )
        parts.append(dataclasses.replace(part, archive=archive))
    monkeypatch.setattr(coco, "_PARTS", tuple(parts))


def fetched(folder):
    return __main__.main(["coco2017", "--to", str(folder)])


def test_the_published_archives_are_those_of_mlperf():
    # FACTS: mlcommons/mlperf-automations.
    assert [(part.archive.urls, part.archive.checksum) for part in coco._PARTS] == [
        (("http://images.cocodataset.org/zips/val2017.zip",), "md5:442b8da7639aecaf257c1dceb8ba8c80"),
        (
            ("http://images.cocodataset.org/annotations/annotations_trainval2017.zip",),
            "md5:f4bbac642086de4f52a3fdda2de5fa2c",
        ),
    ]


def test_images_and_annotations_are_fetched_and_open_as_a_data_set(server, tmp_path, capsys):
    folder = tmp_path / "new" / "coco"
    assert fetched(folder) == 0
    assert left_in(folder) == sorted(UNPACKED)
    assert (folder / "val2017" / NAMES[1]).read_bytes() == IMAGES[f"val2017/{NAMES[1]}"]
    assert capsys.readouterr().out.startswith(f"{folder}\n")
    dataset = open_coco(folder, list_file=None, count=None)
    assert [sample.path.name for sample in dataset.samples] == NAMES


def test_data_dir_is_where_it_goes(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    assert __main__.main(["coco2017"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/data\n")
    assert (tmp_path / "data" / "val2017" / NAMES[0]).is_file()


def test_a_second_call_says_where_it_is_and_needs_neither_network_nor_archives(server, tmp_path, capsys):
    assert fetched(tmp_path) == 0
    first = capsys.readouterr().out
    for archive in tmp_path.glob("*.zip"):
        archive.unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jp*g")}
    asked = len(server.asked)
    assert fetched(tmp_path) == 0
    assert capsys.readouterr().out == first
    assert len(server.asked) == asked == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jp*g")} == before
    # The notes beside the folders are also what `sha256sum -c` reads.
    notes = [path.name for path in tmp_path.glob("*.sha256")]
    check = subprocess.run(
        ["sha256sum", "-c", *notes], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert check.stdout.count(": OK") == 4


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path, capsys):
    images = server.files["val2017.zip"]
    server.breaks_after = 300
    assert fetched(tmp_path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cannot get val2017.zip from ")
    assert error.endswith(f"it can be put by hand at {tmp_path / 'val2017.zip'}")
    assert not (tmp_path / "val2017").exists()
    server.breaks_after = None
    server.files["val2017.zip"] = images
    server.asked.clear()
    assert fetched(tmp_path) == 0
    assert server.asked == [("val2017.zip", "bytes=300-"), ("annotations_trainval2017.zip", "")]


def test_archives_put_by_hand_are_used(server, tmp_path):
    for name, content in server.files.items():
        (tmp_path / name).write_bytes(content)
    assert fetched(tmp_path) == 0
    assert server.asked == []
    assert left_in(tmp_path) == sorted(UNPACKED)


def test_a_wrong_checksum_unpacks_nothing(server, tmp_path, capsys):
    wrong = zipped({**IMAGES, "val2017/000000000001.jpg": JPEG})
    expected = hashlib.md5(server.files["val2017.zip"]).hexdigest()
    server.files["val2017.zip"] = wrong
    assert fetched(tmp_path) == 2
    error = capsys.readouterr().err
    assert hashlib.md5(wrong).hexdigest() in error
    assert expected in error
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["../x.jpg", "val2017/../../x.jpg", "/tmp/x.jpg", "val2017/link.jpg"])
@pytest.mark.parametrize("which", ["images", "annotations"])
def test_an_archive_with_a_member_outside_or_a_link_is_refused_whole(
    server, tmp_path, monkeypatch, capsys, name, which
):
    folder = tmp_path / "deep" / "coco"
    evil = {name: b"../../victim"}
    links = (name,) if "link" in name else ()
    archives = {
        "images": (zipped(IMAGES | evil, links), zipped(ANNOTATIONS)),
        "annotations": (zipped(IMAGES), zipped(ANNOTATIONS | evil, links)),
    }
    publish(server, monkeypatch, *archives[which])
    assert fetched(folder) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert repr(name) in errors[0]
    assert not (folder / {"images": "val2017", "annotations": "annotations"}[which]).exists()
    assert not list(tmp_path.rglob("*.unpacking"))
    assert not list(tmp_path.rglob("x.jpg"))
    assert not Path("/tmp/x.jpg").exists()


def test_only_images_and_the_validation_instances_are_unpacked(server, tmp_path, monkeypatch):
    more = {"val2017/": b"", "val2017/notes.txt": b"?", "val2017/a/b.jpg": b"?", "other/1.jpg": b"?"}
    publish(server, monkeypatch, zipped(IMAGES | more), zipped(ANNOTATIONS))
    assert fetched(tmp_path) == 0
    assert left_in(tmp_path) == sorted(UNPACKED)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no archive at all", r"val2017\.zip is not a zip archive"),
        (zipped({"train2017/1.jpg": JPEG}), r"val2017\.zip has no file like val2017/"),
        (zipped(IMAGES).replace(JPEG, JPEG[:-1] + b"?", 1), r"cannot get .*val2017: Bad CRC-32 for file"),
    ],
    ids=["no zip", "of something else", "damaged inside"],
)
def test_an_archive_that_is_not_fit_is_one_line_and_leaves_no_folder(
    server, tmp_path, monkeypatch, capsys, content, complaint
):
    publish(server, monkeypatch, content, zipped(ANNOTATIONS))
    assert fetched(tmp_path) == 2
    assert re.fullmatch(rf"error: .*{complaint}.*", capsys.readouterr().err.splitlines()[-1])
    assert left_in(tmp_path) == ["val2017.zip"]


def test_a_damaged_and_a_lost_image_are_put_back(server, tmp_path, caplog):
    assert fetched(tmp_path) == 0
    (tmp_path / "val2017" / NAMES[0]).write_bytes(b"damaged")
    (tmp_path / "val2017" / NAMES[2]).unlink()
    (tmp_path / "val2017" / "mine.txt").write_text("kept")
    assert fetched(tmp_path) == 0
    assert re.search(rf"1 of 3 files differ from the archive, first .*{NAMES[0]}", caplog.text)
    assert len(server.asked) == 2
    for name in NAMES:
        assert (tmp_path / "val2017" / name).read_bytes() == IMAGES[f"val2017/{name}"]
    assert (tmp_path / "val2017" / "mine.txt").read_text() == "kept"


def test_a_users_own_images_are_not_overwritten(server, tmp_path, capsys):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / NAMES[1]).write_bytes(b"mine")
    assert fetched(tmp_path) == 2
    assert re.search(rf"{NAMES[1]} is not COCO's .*move .*val2017 away", capsys.readouterr().err)
    assert left_in(tmp_path) == ["val2017", "val2017.zip", f"val2017/{NAMES[1]}"]
    assert (tmp_path / "val2017" / NAMES[1]).read_bytes() == b"mine"


def test_the_same_images_put_by_hand_are_completed(server, tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / NAMES[1]).write_bytes(IMAGES[f"val2017/{NAMES[1]}"])
    (tmp_path / "annotations").mkdir()
    assert fetched(tmp_path) == 0
    assert left_in(tmp_path) == sorted(UNPACKED)


def test_an_unpacking_that_was_killed_leaves_no_folder_and_is_done_again(server, tmp_path, monkeypatch):
    many = {f"val2017/{number:012}.jpg": JPEG * 20 for number in range(4000)}
    publish(server, monkeypatch, zipped(many), zipped(ANNOTATIONS))
    for name, content in server.files.items():
        (tmp_path / name).write_bytes(content)
    checksums = [part.archive.checksum for part in coco._PARTS]
    code = (
        "import dataclasses, sys; from pathlib import Path; from converters.fetch import coco as f\n"
        "f._PARTS = tuple(dataclasses.replace(p, archive=dataclasses.replace(p.archive, checksum=c))"
        " for p, c in zip(f._PARTS, sys.argv[2:]))\n"
        "f.fetch(Path(sys.argv[1]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *checksums], cwd=PROJECT_ROOT)
    staging = tmp_path / ".val2017.unpacking"
    deadline = time.monotonic() + 120
    while not (staging.exists() and len(list(staging.iterdir())) > 10):
        assert time.monotonic() < deadline, "no unpacking began"
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "val2017").exists()
    assert not (tmp_path / "val2017.sha256").exists()
    assert fetched(tmp_path) == 0
    assert len(list((tmp_path / "val2017").iterdir())) == 4000
    assert not staging.exists()


def test_a_folder_without_its_note_is_compared_and_gets_it(server, tmp_path):
    assert fetched(tmp_path) == 0
    (tmp_path / "val2017.sha256").unlink()  # as if it was killed after the rename
    assert fetched(tmp_path) == 0
    assert left_in(tmp_path) == sorted(UNPACKED)


def test_another_release_replaces_what_this_tool_unpacked(server, tmp_path, monkeypatch):
    assert fetched(tmp_path) == 0
    publish(server, monkeypatch, zipped(dict.fromkeys(IMAGES, JPEG)), zipped(ANNOTATIONS))
    assert fetched(tmp_path) == 0
    assert (tmp_path / "val2017" / NAMES[0]).read_bytes() == JPEG


def test_two_at_once_download_and_unpack_once(server, tmp_path):
    threads = [threading.Thread(target=coco.fetch, args=(tmp_path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in server.asked) == ["annotations_trainval2017.zip", "val2017.zip"]
    assert left_in(tmp_path) == sorted(UNPACKED)


def test_a_folder_that_cannot_be_written_is_one_line(server, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert fetched(tmp_path / "file" / "x") == 2
    assert re.fullmatch(r"error: cannot get .*file/x/val2017: Not a directory\n", capsys.readouterr().err)


def test_the_help_names_coco(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    assert "coco2017" in capsys.readouterr().out
