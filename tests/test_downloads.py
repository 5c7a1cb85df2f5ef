"""Published files on a web server: what is missing is downloaded, and no wrong or unfinished file is kept."""

import contextlib
import functools
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stand_ins
from prepared_sets import IMAGES, LABELS, SIZES, flip_a_bit, refused
from stand_ins import data_section, publish

from asvae_jax.data.prepare import prepare


class Files(SimpleHTTPRequestHandler):
    """A web server for a folder."""

    def log_message(self, *_):
        pass


class Half(BaseHTTPRequestHandler):
    """A web server that goes away in the middle."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        self.wfile.write(b"0" * 5_000)

    def log_message(self, *_):
        pass


class Babble(BaseHTTPRequestHandler):
    """Something that is no web server."""

    def do_GET(self):
        self.wfile.write(b"220 mail.example.org ready\r\n")


@contextlib.contextmanager
def served(handler: Callable) -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web(tmp_path, monkeypatch) -> Path:
    """MNIST's files, as they lie on a server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publish("mnist", tmp_path / "web", monkeypatch)
    return tmp_path / "web"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_published_files_are_downloaded_to_the_manual_folder(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert prepare(data_section("mnist", tmp_path), manual_dir=originals).sizes == SIZES["mnist"]
    assert contents(originals) == contents(web)


def test_only_what_is_missing_is_downloaded(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        shutil.copytree(web, originals)
        (originals / LABELS).unlink()
        for name in contents(originals):
            (web / name).unlink()
        assert prepare(data_section("mnist", tmp_path), manual_dir=originals).sizes == SIZES["mnist"]


def test_a_download_that_is_not_the_published_file_is_refused(web, tmp_path, originals, monkeypatch):
    data, right = data_section("mnist", tmp_path), (web / LABELS).read_bytes()
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        flip_a_bit(web / LABELS)
        assert "SHA-256" in refused(data, originals)
        # What was right is kept; what was wrong has gone, under any name.
        assert contents(originals).keys() == {IMAGES}
        (web / LABELS).write_bytes(right)
        assert prepare(data, manual_dir=originals).sizes == SIZES["mnist"]


@pytest.mark.parametrize("server", [Half, Babble])
def test_a_download_that_breaks_off_is_refused(server, web, tmp_path, originals, monkeypatch):
    data = data_section("mnist", tmp_path)
    with served(server) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert IMAGES in refused(data, originals)
        assert not contents(originals).keys() & contents(web).keys()
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert prepare(data, manual_dir=originals).sizes == SIZES["mnist"]
        assert contents(originals) == contents(web)


def test_a_server_that_does_not_answer_is_named_with_the_files(web, tmp_path, originals, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    stand_ins.acknowledge("mnist", web, monkeypatch, url)
    message = refused(data_section("mnist", tmp_path), originals)
    assert "127.0.0.1 does not answer" in message and message.count("127.0.0.1") == 1
    assert all(f"{file.name} ({file.stat().st_size:,} bytes)" in message for file in web.iterdir())
    assert str(originals) in message


def test_a_file_that_a_server_no_longer_has_is_named(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=tmp_path)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        message = refused(data_section("mnist", tmp_path), originals)
    assert IMAGES in message and "not found" in message.lower()
