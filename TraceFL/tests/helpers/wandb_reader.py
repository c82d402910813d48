"""Reads what W&B has written, independently of its own programs."""

import struct

from wandb.proto.wandb_internal_pb2 import Record


def read_datastore(path):
    """Yield the records of a .wandb file: LevelDB's log format after a header of 7 bytes, protobuf inside."""
    content, at, parts = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
