"""Downloads from a real HTTP server on this machine."""

import hashlib
import io
import logging
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from converters.fetch import __main__, download, imagenet
from converters.fetch.published import fetch_weights
from harness.errors import ConversionError
from harness.machine.paths import PROJECT_ROOT
from harness.models.spec import Weights
from tests.unit.converters.fetch.served import left_in, serving, zipped

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers by the first part of the path; remembers what it was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.content = CONTENT
        self.broken = 0
        """How many of the next answers break off, or fail."""
        self.may_go_on = threading.Event()

    def url(self, behaviour, name="model.pb"):
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/{name}"

    @property
    def ranges(self):
        return [asked_range for _, asked_range in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        self.server.asked.append((behaviour, self.headers.get("Range", "")))
        getattr(self, behaviour)(self.server.content)

    def log_message(self, *_):
        pass

    def ok(self, content):
        """Supports Range."""
        first = self.first_byte()
        if first is None:
            self.answer(200, content)
        elif first >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            where = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[first:], {"Content-Range": where})

    def rangeless(self, content):
        self.answer(200, content)

    def shifted(self, content):
        """Goes on elsewhere than it was asked to."""
        if self.first_byte() is None:
            self.answer(200, content)
        else:
            self.answer(206, content[7:], {"Content-Range": f"bytes 7-{len(content) - 1}/{len(content)}"})

    def dropping(self, content):
        """Breaks off after 100,000 bytes while the server is `broken`."""
        first = self.first_byte() or 0
        if not self.server.broken:
            return self.ok(content)
        self.server.broken -= 1
        where = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        self.answer(206 if first else 200, content[first : first + 100_000], where, len(content) - first)
        self.close_connection = True
        return None

    def dying(self, content):
        """Breaks off once, then has nothing any more."""
        if self.first_byte() is None:
            self.answer(200, content[:300_000], {}, len(content))
            self.close_connection = True
        else:
            self.answer(404, b"gone")

    def stalling(self, content):
        """Sends a half, and the rest to whoever asks for it."""
        if self.first_byte() is not None:
            return self.ok(content)
        self.answer(200, content[: len(content) // 2], {}, len(content))
        self.server.may_go_on.wait()
        self.close_connection = True
        return None

    def busy(self, content):
        """Is overloaded while the server is `broken`."""
        if not self.server.broken:
            return self.ok(content)
        self.server.broken -= 1
        return self.answer(503, b"later")

    def encoded(self, content):
        """Labels an archive as a compressed transfer, as some servers do with .tgz files."""
        self.answer(200, content, {"Content-Encoding": "x-gzip"})

    def missing(self, _):
        self.answer(404, b"<html>not here</html>")

    def other(self, content):
        self.answer(200, content[:-1] + b"?")

    def first_byte(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked else None

    def answer(self, status, body, headers=(), length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_RETRY_AFTER_S", 0.0)
    running = Server()
    with serving(running):
        yield running


def weights(*urls, checksum=SHA256, filename="model.pb", member=""):
    return Weights(filename=filename, urls=urls, checksum=checksum, member=member)


@pytest.mark.parametrize("checksum", [SHA256, MD5])
@pytest.mark.parametrize("behaviour", ["ok", "rangeless"])
def test_a_file_is_fetched_and_nothing_else_is_left(server, tmp_path, behaviour, checksum):
    path = fetch_weights(weights(server.url(behaviour), checksum=checksum), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "model.pb"
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path / "new" / "folder") == ["model.pb"]


def test_a_verified_file_needs_no_network(server, tmp_path):
    wanted = weights(server.url("ok"))
    fetch_weights(wanted, tmp_path)
    assert len(server.asked) == 1
    fetch_weights(wanted, tmp_path)
    assert len(server.asked) == 1


def test_a_damaged_file_is_reported_with_both_checksums_and_replaced(server, tmp_path, caplog):
    (tmp_path / "model.pb").write_bytes(b"damaged")
    path = fetch_weights(weights(server.url("ok"), checksum=MD5), tmp_path)
    assert path.read_bytes() == CONTENT
    # md5sum of the seven bytes "damaged"
    assert "model.pb is damaged (checksum md5:46cc0df55d22d6eb6c37cabbc09f5193" in caplog.text
    assert f"expected {MD5}" in caplog.text


def test_a_damaged_file_is_named_when_it_cannot_be_replaced(server, tmp_path):
    (tmp_path / "model.pb").write_bytes(b"damaged")
    with pytest.raises(ConversionError, match=r"model\.pb is damaged .*; cannot get .*HTTP 404"):
        fetch_weights(weights(server.url("missing")), tmp_path)


def test_urls_are_tried_in_order(server, tmp_path):
    urls = [server.url(behaviour) for behaviour in ("missing", "other", "ok", "rangeless")]
    assert fetch_weights(weights(*urls), tmp_path).read_bytes() == CONTENT
    assert [behaviour for behaviour, _ in server.asked] == ["missing", "other", "ok"]


def test_a_wrong_checksum_shows_both_and_leaves_no_file(server, tmp_path):
    wrong = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    expected = SHA256.removeprefix("sha256:")
    with pytest.raises(ConversionError, match=rf"/other/model\.pb .*expected .*{expected} but got .*{wrong}"):
        fetch_weights(weights(server.url("other")), tmp_path)
    assert left_in(tmp_path) == []
    assert len(server.asked) == 1


def test_unreachable_sources_are_named_with_the_place_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_RETRY_AFTER_S", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        urls = [f"http://127.0.0.1:{closed.getsockname()[1]}/{mirror}/model.pb" for mirror in "ab"]
        with pytest.raises(ConversionError) as caught:
            fetch_weights(weights(*urls), tmp_path)
    message = str(caught.value)
    assert all(f"{url} (no connection" in message for url in urls)
    assert message.endswith(f"it can be put by hand at {tmp_path / 'model.pb'}")
    assert "\n" not in message
    assert left_in(tmp_path) == []


def test_a_host_that_does_not_exist_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_RETRY_AFTER_S", 0.0)
    with pytest.raises(ConversionError, match=r"host name not found"):
        fetch_weights(weights("http://no-such-host.invalid/model.pb"), tmp_path)


def test_a_broken_connection_is_taken_up_where_it_stopped(server, tmp_path):
    server.broken = 4
    assert fetch_weights(weights(server.url("dropping")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=100000-", "bytes=200000-", "bytes=300000-", "bytes=400000-"]


def test_an_interrupted_download_goes_on_next_time(server, tmp_path):
    with pytest.raises(ConversionError, match="HTTP 404"):
        fetch_weights(weights(server.url("dying")), tmp_path)
    assert not (tmp_path / "model.pb").exists()
    assert fetch_weights(weights(server.url("ok")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=300000-", "bytes=300000-"]
    assert left_in(tmp_path) == ["model.pb"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_download_that_was_stopped_goes_on_next_time(server, tmp_path, how):
    wanted = weights(server.url("stalling"))
    code = (
        "import sys; from pathlib import Path; from converters.fetch.published import fetch_weights;"
        f"from harness.models.spec import Weights; fetch_weights({wanted!r}, Path(sys.argv[1]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL
    )
    part = tmp_path / ".model.pb.download" / "part"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline, "no download began"
        time.sleep(0.001)
    child.send_signal(how)
    child.wait()
    server.may_go_on.set()
    assert not (tmp_path / "model.pb").exists()
    had = part.stat().st_size
    assert had < len(CONTENT)
    assert fetch_weights(wanted, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={had}-"]
    assert left_in(tmp_path) == ["model.pb"]


def with_part(folder, content):
    (folder / ".model.pb.download").mkdir()
    (folder / ".model.pb.download" / "part").write_bytes(content)


@pytest.mark.parametrize("behaviour", ["rangeless", "shifted"])
def test_a_server_that_cannot_go_on_starts_again(server, tmp_path, behaviour):
    with_part(tmp_path, CONTENT[:5000])
    assert fetch_weights(weights(server.url(behaviour)), tmp_path).read_bytes() == CONTENT
    assert server.ranges[0] == "bytes=5000-"


@pytest.mark.parametrize(
    "part",
    [CONTENT, b"?" * 5000, b"?" * len(CONTENT), CONTENT + b"?", b""],
    ids=["whole", "of something else", "of its size", "too long", "empty"],
)
def test_whatever_part_was_left_the_right_file_comes_out(server, tmp_path, part):
    with_part(tmp_path, part)
    assert fetch_weights(weights(server.url("ok")), tmp_path).read_bytes() == CONTENT
    assert left_in(tmp_path) == ["model.pb"]


def test_a_part_that_was_complete_is_not_sent_again(server, tmp_path):
    with_part(tmp_path, CONTENT)
    assert fetch_weights(weights(server.url("ok")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_an_overloaded_server_is_asked_again_but_not_for_ever(server, tmp_path):
    server.broken = 2
    assert fetch_weights(weights(server.url("busy")), tmp_path).read_bytes() == CONTENT
    server.broken = 99
    (tmp_path / "model.pb").unlink()
    with pytest.raises(ConversionError, match="HTTP 503"):
        fetch_weights(weights(server.url("busy")), tmp_path)
    assert server.broken == 99 - 3


def test_two_processes_download_once(server, tmp_path):
    server.content = CONTENT * 20
    wanted = weights(server.url("ok"), checksum="sha256:" + hashlib.sha256(server.content).hexdigest())
    threads = [threading.Thread(target=fetch_weights, args=(wanted, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert left_in(tmp_path) == ["model.pb"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConversionError, match=r"cannot get .*file/x/model\.pb: Not a directory"):
        fetch_weights(weights(server.url("ok")), tmp_path / "file" / "x")
    assert server.asked == []


def tar(members):
    """A .tar.gz of (name, content); a content of str makes a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive(server, content, member, behaviour="ok", filename="model.tgz"):
    server.content = content
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    return weights(server.url(behaviour, filename), checksum=checksum, filename=filename, member=member)


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["frozen.pb", "./frozen.pb"])
def test_only_the_wanted_member_is_unpacked(server, tmp_path, pack, name):
    wanted = archive(server, pack([("readme", b"hello"), (name, CONTENT)]), "frozen.pb")
    path = fetch_weights(wanted, tmp_path)
    assert path == tmp_path / "frozen.pb"
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path) == ["frozen.pb", "frozen.pb.sha256", "model.tgz"]


def test_a_member_in_a_folder_of_the_archive_is_unpacked_without_it(server, tmp_path):
    wanted = archive(server, zipped([("a/b/frozen.pb", CONTENT), ("frozen.pb", b"other")]), "a/b/frozen.pb")
    assert fetch_weights(wanted, tmp_path) == tmp_path / "frozen.pb"
    assert (tmp_path / "frozen.pb").read_bytes() == CONTENT


def test_an_unpacked_member_needs_neither_network_nor_archive(server, tmp_path):
    wanted = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb")
    path = fetch_weights(wanted, tmp_path)
    (tmp_path / "model.tgz").unlink()
    assert fetch_weights(wanted, tmp_path) == path
    assert len(server.asked) == 1
    # The note beside it is also what `sha256sum -c` reads.
    check = subprocess.run(
        ["sha256sum", "-c", "frozen.pb.sha256"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "frozen.pb: OK" in check.stdout


def test_a_damaged_member_is_unpacked_again(server, tmp_path, caplog):
    wanted = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb")
    fetch_weights(wanted, tmp_path).write_bytes(b"damaged")
    assert fetch_weights(wanted, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert hashlib.sha256(b"damaged").hexdigest() in caplog.text
    assert SHA256.removeprefix("sha256:") in caplog.text


def test_another_release_of_the_archive_is_unpacked_again(server, tmp_path):
    fetch_weights(archive(server, tar([("frozen.pb", b"old")]), "frozen.pb"), tmp_path)
    newer = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb")
    assert fetch_weights(newer, tmp_path).read_bytes() == CONTENT


def test_a_users_own_file_is_not_overwritten(server, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(b"mine")
    wanted = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb")
    with pytest.raises(ConversionError, match="not put there by this tool: move it away"):
        fetch_weights(wanted, tmp_path)
    assert (tmp_path / "frozen.pb").read_bytes() == b"mine"


def test_the_same_file_put_by_hand_is_taken(server, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(CONTENT)
    wanted = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb")
    assert fetch_weights(wanted, tmp_path).read_bytes() == CONTENT


def test_members_that_point_outside_write_nothing_there(server, tmp_path):
    folder = tmp_path / "inside"
    members = [("../frozen.pb", b"evil"), ("/tmp/../frozen.pb", b"evil"), ("link.pb", "../victim")]
    (tmp_path / "victim").write_bytes(b"untouched")
    for pack in (tar, zipped):
        wanted = archive(server, pack(members), "frozen.pb", filename=f"{pack.__name__}.archive")
        with pytest.raises(ConversionError, match=r"has no file frozen\.pb; it has: "):
            fetch_weights(wanted, folder)
    linked = archive(server, tar(members), "link.pb", filename="linked.tgz")
    with pytest.raises(ConversionError, match=r"has no file link\.pb"):
        fetch_weights(linked, folder)
    assert left_in(tmp_path) == [
        "inside", "inside/linked.tgz", "inside/tar.archive", "inside/zipped.archive", "victim",
    ]  # fmt: skip
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_an_archive_that_a_server_labels_as_compressed_arrives_as_it_is(server, tmp_path):
    wanted = archive(server, tar([("frozen.pb", CONTENT)]), "frozen.pb", behaviour="encoded")
    assert fetch_weights(wanted, tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_no_archive_is_said_so(server, tmp_path):
    with pytest.raises(ConversionError, match=r"model\.tgz is neither a tar nor a zip archive"):
        fetch_weights(archive(server, CONTENT, "frozen.pb"), tmp_path)


def test_a_broken_archive_is_said_so_and_leaves_no_member(server, tmp_path):
    content = tar([("frozen.pb", hashlib.sha512(b"x").digest() * 5000)])
    broken = archive(server, content[: len(content) // 2], "frozen.pb")
    with pytest.raises(ConversionError, match=r"cannot get .*frozen\.pb|has no file frozen\.pb"):
        fetch_weights(broken, tmp_path)
    assert left_in(tmp_path) == ["model.tgz"]


@pytest.fixture
def labels(server, monkeypatch):
    """ImageNet's two sources, on this server: the mirror's archive differs from the original."""
    original, mirror = (tar([("val.txt", b"a.JPEG 1\n"), ("x", extra)]) for extra in (b"1", b"2"))
    server.content = mirror
    monkeypatch.setattr(
        imagenet,
        "_IMAGENET_LABELS",
        tuple(
            weights(
                server.url(behaviour),
                checksum="md5:" + hashlib.md5(content).hexdigest(),
                filename="labels.tgz",
                member="val.txt",
            )
            for behaviour, content in (("missing", original), ("ok", mirror))
        ),
    )


@pytest.mark.usefixtures("labels")
def test_imagenets_labels_come_from_whichever_source_has_them(server, tmp_path, capsys):
    assert __main__.main(["imagenet", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "val_map.txt").read_bytes() == b"a.JPEG 1\n"
    output = capsys.readouterr().out
    assert output.startswith(f"{tmp_path}/val_map.txt\n")
    assert f"unpack it into {tmp_path}" in output
    asked = len(server.asked)
    assert __main__.main(["imagenet", "--to", str(tmp_path)]) == 0
    (tmp_path / "val_map.txt").unlink()
    assert __main__.main(["imagenet", "--to", str(tmp_path)]) == 0
    assert len(server.asked) == asked


def test_without_a_network_too_it_is_said_what_of_imagenet_belongs_where(monkeypatch, tmp_path, capsys):
    nowhere = [
        weights(f"http://127.0.0.1:1/{name}", checksum=MD5, filename="labels.tgz", member="val.txt")
        for name in "xy"
    ]
    monkeypatch.setattr(imagenet, "_IMAGENET_LABELS", nowhere)
    assert __main__.main(["imagenet", "--to", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert f"unpack it into {tmp_path}\n" in said.out
    assert "into val_map.txt: a line `ILSVRC2012_val_00000001.JPEG 65`" in said.out
    remedy = f"it can be put by hand at {tmp_path}/labels.tgz"
    assert said.err.endswith(f"{remedy}\n")
    assert said.err.count(remedy) == 1


@pytest.mark.usefixtures("labels")
def test_a_users_own_list_of_labels_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "val_map.txt").write_text("mine.JPEG 3\n")
    assert __main__.main(["imagenet", "--to", str(tmp_path)]) == 2
    assert "move it away" in capsys.readouterr().err
    assert (tmp_path / "val_map.txt").read_text() == "mine.JPEG 3\n"


def test_an_unknown_name_is_a_usage_error_that_lists_models_and_data_sets(capsys):
    assert __main__.main(["coco"]) == 2
    assert capsys.readouterr().err == (
        "error: nothing to fetch is called 'coco' (did you mean coco2017?); there are resnet50, mobilenet, "
        "ssd-mobilenet, ssd-resnet34, imagenet, coco2017\n"
    )


def test_an_interrupted_command_ends_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "fetch_weights", interrupted)
    assert __main__.main(["mobilenet", "--to", str(tmp_path)]) == 130
    assert "goes on" in capsys.readouterr().err


def test_progress_of_a_long_download_is_logged(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("harness.machine.progress._SHOW_AFTER_S", 0.0)
    caplog.set_level(logging.INFO)
    fetch_weights(weights(server.url("ok")), tmp_path)
    assert "downloading model.pb: 0 of 1 MB (25%)" in caplog.text
