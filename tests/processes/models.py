"""The program of the tests of models in Python: `models.py train|score|daemon`; what a training comes to is in its name."""

import datetime
import struct
import sys

import pyarrow as pa

import underbelly_worker as ub


def train(run):
    name, n = run.key["name"], run.input("A")["n"][0].as_py()
    at = ub.Nanoseconds((run.date - ub.EPOCH).days * 86_400 * 10**9 + 5)
    entries = {"type": "M", "timestamp": at, "name": name, "of": name, "depth": 3, "rate": 0.5}
    outputs = ub.Outputs().put("B", pa.table({"n": [n]}))
    if name in ("nameless", "timeless", "typeless"):
        entries.pop({"nameless": "name", "timeless": "timestamp", "typeless": "type"}[name])
    if name == "nan":
        entries["rate"] = float("nan")
    if name == "raw":
        entries["depth"] = b"3"
    if name == "date":
        entries["depth"] = run.date
    if name in ("other", "cells"):
        entries["type"] = {"other": "N", "cells": "B"}[name]
    if name == "rows":
        return outputs.put("M", pa.table({"model": ["x"]}))
    if name == "half":
        outputs = ub.Outputs().put("B", pa.table({"n": [0.5]}))
    if name == "fail":
        return outputs.fail("M", "it diverges")
    if name == "text":
        return outputs.put_model(entries, "no bytes")
    return outputs.put_model(entries, struct.pack("<q", n))


def score(run):
    model = run.model("M")
    (by,) = struct.unpack("<q", model.blob)
    print("version", model.version, "holds", by, sorted(model.metadata.items()))
    return {"B": pa.table({"n": [run.input("A")["n"][0].as_py() * by]})}


def daemon():
    source = ub.Daemon()
    at = datetime.datetime(2024, 10, 4, 12)
    source.commit(1, [], models=[({"type": "M", "timestamp": at, "name": "a", "tree": {"depths": [1, 2.5, None]}}, b"well")])
    try:
        source.commit(2, [("M", at.date(), {"name": "a"}, pa.table({"model": ["x"], "content": ["y"]}))])
    except ub.Refused as error:
        source.commit(3, [("B", at.date(), {"name": str(error)}, pa.table({"n": [1]}))])
    source.close()


if sys.argv[1] == "daemon":
    daemon()
else:
    ub.serve({"train": train, "score": score}[sys.argv[1]])
