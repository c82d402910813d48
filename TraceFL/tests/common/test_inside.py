"""Files of a folder that nobody vouches for: whatever stands in a file's place, it is read or refused, and at once."""

import hashlib
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from tracefl.common import inside
from tracefl.common.inside import is_there, opened, path_of, read_bytes, sha256_of
from tracefl.errors import RecordError

NAME = "rounds/0001/round.json"
CONTENT = b"what the run wrote"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "rounds" / "0001").mkdir(parents=True)
    (folder / NAME).write_bytes(CONTENT)
    return folder


def refused(folder, name, words):
    with pytest.raises(RecordError) as caught, opened(folder, name):
        pass
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_read_whole(folder):
    assert read_bytes(folder, NAME, len(CONTENT)) == CONTENT
    with opened(folder, NAME) as descriptor:
        os.lseek(descriptor, 3, os.SEEK_SET)
        assert sha256_of(descriptor) == hashlib.sha256(CONTENT).hexdigest()
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 3
    (folder / "large").write_bytes(b"x" * (3 << 20))  # more than is hashed at once
    with opened(folder, "large") as descriptor:
        assert sha256_of(descriptor) == hashlib.sha256(b"x" * (3 << 20)).hexdigest()


def test_the_folder_itself_may_be_reached_by_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert read_bytes(tmp_path / "link", NAME, 100) == CONTENT


@pytest.mark.parametrize("to", [NAME, "/etc/hostname", "/dev/zero", "/nowhere", "link"])
def test_a_link_is_refused_wherever_it_leads(folder, to):
    target = str(folder / to) if to == NAME else to
    (folder / "link").symlink_to(target)
    refused(folder, "link", "link is a link, and what a run leaves are files and folders of its own")
    assert is_there(folder, "link")


@pytest.mark.parametrize("part", ["rounds", "rounds/0001"])
@pytest.mark.parametrize("to", ["elsewhere", "/nowhere"])
def test_a_parent_that_leads_elsewhere_is_refused(folder, tmp_path, part, to):
    (folder / part).rename(tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / to)
    refused(folder, NAME, f"{part} is a link")


def test_a_parent_that_is_a_file_is_refused(folder):
    (folder / "rounds" / "0002").write_text("")
    refused(folder, "rounds/0002/round.json", "rounds/0002 is a file")


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    refused(folder, "pipe", "pipe is a pipe")
    refused(folder, "pipe/x", "pipe is a pipe")


def test_a_socket_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        refused(folder, "socket", "socket is a socket")


@pytest.mark.parametrize("name", ["zero", "null", "full"])
def test_a_device_is_refused(name):
    refused(Path("/dev"), name, f"/dev/{name} is a device")


def test_a_folder_in_a_file_s_place_is_refused(folder):
    refused(folder, "rounds/0001", "rounds/0001 is a folder")


@pytest.mark.parametrize("name", ["../run/x", "rounds/../../x", "/etc/hostname", "..", ".", "./", "", "//etc/hostname"])
def test_a_name_that_leads_out_or_to_nothing_is_refused(folder, name):
    refused(folder, name, "it is no file of that folder")


@pytest.mark.parametrize("name", ["x", "x/y", "rounds/0001/x"])
def test_a_missing_file_is_told_by_its_whole_path(folder, name):
    with pytest.raises(FileNotFoundError) as caught, opened(folder, name):
        pass
    assert caught.value.filename == str(folder / name.split("/y")[0])
    assert not is_there(folder, name)
    with pytest.raises(FileNotFoundError), opened(folder / "gone", "x"):
        pass


def test_a_file_is_read_up_to_a_size(folder):
    assert read_bytes(folder, NAME, len(CONTENT)) == CONTENT
    with pytest.raises(RecordError, match=f"holds {len(CONTENT)} bytes, and such a file has at most 17; it is damaged"):
        read_bytes(folder, NAME, len(CONTENT) - 1)
    os.truncate(folder / NAME, 1 << 42)  # of which nothing is read
    with pytest.raises(RecordError, match=f"holds {1 << 42} bytes"):
        read_bytes(folder, NAME, 1 << 20)


def test_a_file_that_grows_while_it_is_read_is_refused(folder, monkeypatch):
    fdopen = os.fdopen

    def once_it_has_grown(descriptor, *arguments, **options):  # after its size was looked at
        with (folder / NAME).open("ab") as file:
            file.write(b"more")
        return fdopen(descriptor, *arguments, **options)

    monkeypatch.setattr(inside.os, "fdopen", once_it_has_grown)
    with pytest.raises(RecordError, match="holds more than 18 bytes; it is damaged"):
        read_bytes(folder, NAME, len(CONTENT))


def test_what_was_opened_is_what_is_read_whatever_takes_its_place(folder):
    with opened(folder, NAME) as descriptor:
        (folder / "other").write_text("other")
        (folder / "other").replace(folder / NAME)
        assert Path(path_of(descriptor)).read_bytes() == CONTENT
        assert sha256_of(descriptor) == hashlib.sha256(CONTENT).hexdigest()


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(folder, tmp_path, monkeypatch):
    """Each folder is opened in the one before, so that no name is looked up twice."""
    (tmp_path / "away" / "0001").mkdir(parents=True)
    (tmp_path / "away" / "0001" / "round.json").write_text("away")
    step, steps = inside._step, []

    def then_it_changes(descriptor, path, flags):
        found = step(descriptor, path, flags)
        steps.append(path.name)
        if path.name == "rounds":
            (folder / "rounds").rename(tmp_path / "moved")
            (folder / "rounds").symlink_to(tmp_path / "away")
        return found

    monkeypatch.setattr(inside, "_step", then_it_changes)
    assert read_bytes(folder, NAME, 100) == CONTENT
    assert steps == ["rounds", "0001", "round.json"]


def test_nothing_stays_open(folder, tmp_path):
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    before = open_files()
    for name in (NAME, "pipe", "link", "x/y", "..", "rounds", "rounds/0001/x", f"{NAME}/x"):
        for most in (None, 3):
            try:
                with opened(folder, name, most):
                    raise RecordError("while it is open")
            except (RecordError, OSError):
                pass
    assert open_files() == before


def test_reading_takes_the_memory_of_what_is_there_and_not_of_what_may_be(folder):
    tracemalloc.start()
    try:
        assert read_bytes(folder, NAME, 1 << 30) == CONTENT
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
