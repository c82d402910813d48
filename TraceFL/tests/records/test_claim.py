import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.helpers.processes import wait_until
from tracefl.errors import RecordError
from tracefl.records import claim
from tracefl.records.claim import CLAIM, Claim, is_claimed, refuse_if_claimed

HOLDER = """
import sys, time
from pathlib import Path
from tracefl.records.claim import Claim
Claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_living_writer_keeps_others_out(holder, tmp_path):
    assert is_claimed(tmp_path)
    with pytest.raises(RecordError, match=f"is being written by process {holder.pid} on .* set run_name"):
        Claim(tmp_path)
    assert is_claimed(tmp_path)  # and goes on


def test_a_killed_writer_keeps_nobody_out(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert not is_claimed(tmp_path)
    began = time.monotonic()
    ours = Claim(tmp_path)
    assert time.monotonic() - began < claim._SILENT_SECONDS  # else it is silence that it waited for
    ours.check()
    ours.release()
    assert not (tmp_path / CLAIM).exists()


def test_a_silent_writer_on_another_machine_is_replaced(tmp_path, monkeypatch):
    (tmp_path / CLAIM).write_text(json.dumps({"machine": "node7", "pid": 1, "token": "a"}))
    assert is_claimed(tmp_path)  # at a glance it may live
    long_ago = time.time() - 1000
    os.utime(tmp_path / CLAIM, (long_ago, long_ago))
    assert not is_claimed(tmp_path)
    monkeypatch.setattr(claim, "_SILENT_SECONDS", 0.5)
    refuse_if_claimed(tmp_path)
    Claim(tmp_path).release()


def test_a_beating_writer_on_another_machine_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_HEARTBEAT_SECONDS", 0.1)
    ours = Claim(tmp_path)
    monkeypatch.setattr(claim, "_machine", lambda: "node8")
    with pytest.raises(RecordError, match="is being written by process"):
        refuse_if_claimed(tmp_path)
    ours.release()


def test_a_writer_that_stood_still_does_not_write_on(tmp_path):
    ours = Claim(tmp_path)
    (tmp_path / CLAIM).write_text(json.dumps({"machine": "node7", "pid": 1, "token": "a"}))
    with pytest.raises(RecordError, match="another process took over"):
        ours.check()
    ours.release()
    assert (tmp_path / CLAIM).exists()  # theirs


def test_a_suspended_writer_is_replaced(holder, tmp_path, monkeypatch):
    holder.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(claim, "_SILENT_SECONDS", 0.5)
    Claim(tmp_path).release()


def test_half_a_claim_is_held_until_it_is_silent(tmp_path, monkeypatch):
    (tmp_path / CLAIM).write_text('{"machi')
    assert is_claimed(tmp_path)
    monkeypatch.setattr(claim, "_SILENT_SECONDS", 0.5)
    Claim(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_take_over_at_once_one_holds_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(claim, "_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(claim, "_SETTLE_SECONDS", 0.2)
    (tmp_path / CLAIM).write_text(json.dumps({"machine": "node7", "pid": 1, "token": "a"}))
    held, refused = [], []

    def take():
        try:
            held.append(Claim(tmp_path))
        except RecordError as error:
            refused.append(str(error))

    both = [threading.Thread(target=take) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(held) == 1
    assert ["is being written by process" in words for words in refused] == [True]
    held[0].check()
    held[0].release()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_was_silent_and_has_been_replaced_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(claim, "_SILENT_SECONDS", 0.5)
    silent = json.dumps({"machine": "node7", "pid": 1, "token": "a"})
    (tmp_path / CLAIM).write_text(silent)
    first = Claim(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(claim, "_silent_claim", lambda path: silent)  # what the second has seen before
        second = object.__new__(Claim)
        second._path, second._text = tmp_path / CLAIM, "second"
        assert not second._replace()
        assert not second._create()
    first.check()
    with pytest.raises(RecordError, match="is being written"):
        Claim(tmp_path)
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_does_not_end_the_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_HEARTBEAT_SECONDS", 0.05)
    ours = Claim(tmp_path)
    utime, failures = os.utime, []

    def fail_once(path):
        if not failures:
            failures.append(path)
            raise OSError(116, "Stale file handle")
        utime(path)

    monkeypatch.setattr(os, "utime", fail_once)
    wait_until(lambda: failures)
    before = (tmp_path / CLAIM).stat().st_mtime_ns
    wait_until(lambda: (tmp_path / CLAIM).stat().st_mtime_ns > before)
    ours.check()
    ours.release()
