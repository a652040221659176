"""Producers of Underbelly in Python: the child's end of PROTOCOL.md, on the standard library and pyarrow.

    import pyarrow as pa
    import underbelly_worker as ub

    def produce(run):
        quotes = run.input("Quotes")                  # a pyarrow.Table
        return {"Mean": pa.table({"mean": [sum(quotes["bid"].to_pylist()) / len(quotes)]})}

    ub.serve(produce)

The program is started by the engine, as `Database::register_program` was told. Standard input and output are the engine's: what
is printed goes to standard error, which the engine keeps with the run, and there is nothing to read. The process ends when the
engine says goodbye or is gone, in the middle of a run too.
"""

import datetime
import json
import os
import queue
import struct
import sys
import threading
import traceback

import pyarrow as pa

VERSION = 1
MAGIC = b"UBF1"
CONTROL_BYTES_MAX = 16 << 20
DATA_BYTES_MAX = 1 << 30
DEPTH_MAX = 16
REASON_CHARACTERS_MAX = 16 << 10
HEARTBEAT_SECONDS_MAX = 3600
EPOCH = datetime.date(1970, 1, 1)


class Declined(Exception):
    """There is nothing to produce from these inputs, and that is fine: outputs become absent."""


class Retry(Exception):
    """It failed, and may succeed later: the run is tried again."""


class Rejected(Exception):
    """It was not taken up, since something that it needs is too busy: tried again, and no attempt is used."""


class ProtocolError(Exception):
    """The engine cannot be understood."""


# CBOR, as far as messages need it (RFC 8949).


def encode(value):
    """The CBOR bytes of None, bools, integers, floats, texts, bytes, lists and dicts."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _head(major, number, out):
    for code, form, limit in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32), (27, ">Q", 1 << 64)):
        if number < 24:
            out.append(major << 5 | number)
            return
        if number < limit:
            out.append(major << 5 | code)
            out += struct.pack(form, number)
            return
    raise ValueError("%d does not fit into 64 bits" % number)


def _encode(value, out):
    if value is None:
        out.append(0xF6)
    elif isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        _head(0, value, out) if value >= 0 else _head(1, -1 - value, out)
    elif isinstance(value, float):
        out.append(0xFB)
        out += struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode()
        _head(3, len(text), out)
        out += text
    elif isinstance(value, (bytes, bytearray)):
        _head(2, len(value), out)
        out += value
    elif isinstance(value, (list, tuple)):
        _head(4, len(value), out)
        for item in value:
            _encode(item, out)
    elif isinstance(value, dict):
        _head(5, len(value), out)
        for key, item in value.items():
            _encode(key, out)
            _encode(item, out)
    else:
        raise ValueError("a %s cannot be said" % type(value).__name__)


def decode(data):
    """The value of CBOR bytes."""
    value, at = _decode(memoryview(data), 0, 0)
    if at != len(data):
        raise ProtocolError("%d bytes are behind a message" % (len(data) - at))
    return value


def _decode(data, at, depth):
    if depth > DEPTH_MAX:
        raise ProtocolError("a message is nested deeper than %d levels" % DEPTH_MAX)
    try:
        first, at = data[at], at + 1
        major, low = first >> 5, first & 31
        if major == 7:
            if low in (25, 26, 27):
                form, size = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}[low]
                return struct.unpack_from(form, data, at)[0], at + size
            return {20: False, 21: True, 22: None, 23: None}[low], at
        if low < 24:
            number = low
        else:
            form, size = {24: (">B", 1), 25: (">H", 2), 26: (">I", 4), 27: (">Q", 8)}[low]
            number, at = struct.unpack_from(form, data, at)[0], at + size
    except (IndexError, KeyError, struct.error):
        raise ProtocolError("a message is cut short, or uses CBOR that this does not read") from None
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        part = bytes(data[at : at + number])
        if len(part) < number:
            raise ProtocolError("a message is cut short")
        return (part if major == 2 else part.decode()), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _decode(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        entries = {}
        for _ in range(number):
            key, at = _decode(data, at, depth + 1)
            entries[key], at = _decode(data, at, depth + 1)
        return entries, at
    return _decode(data, at, depth + 1)  # a tag says nothing that is needed here


# Frames.


def _read(stream, count, part):
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the connection was closed within the %s of a frame" % part)
    return data


def receive(stream):
    """The next message: its name, its fields and the data beside it; None at the end."""
    header = stream.read(16)
    if not header:
        return None
    if header[:4] != MAGIC[: len(header)]:
        raise ProtocolError("%r is no frame" % header)
    control, data = struct.unpack_from("<IQ", header.ljust(16, b"\0"), 4)
    if control > CONTROL_BYTES_MAX or data > DATA_BYTES_MAX:
        raise ProtocolError("a frame of %d and %d bytes is too long" % (control, data))
    message = decode(_read(stream, control, "control part"))
    if not isinstance(message, dict) or len(message) != 1:
        raise ProtocolError("no message: %r" % (message,))
    ((name, fields),) = message.items()
    return name, fields, _read(stream, data, "data part")


def frame(name, fields, data=b""):
    """A message as it is sent: what is before its data. ValueError where it cannot be said."""
    control = encode({name: fields})
    for part, found, limit in (("control", len(control), CONTROL_BYTES_MAX), ("data", len(data), DATA_BYTES_MAX)):
        if found > limit:
            raise ValueError("a frame's %s part of %d bytes is longer than the %d that are allowed" % (part, found, limit))
    return MAGIC + struct.pack("<IQ", len(control), len(data)) + control


# Values of keys and dates.


def _value(field):
    if isinstance(field, dict):
        if "date" in field:
            try:
                return EPOCH + datetime.timedelta(days=field["date"])
            except OverflowError:
                raise ValueError("day %d from 1970 is not in Python's years, 1 to 9999" % field["date"]) from None
        if "timestamp" in field:
            return Nanoseconds(field["timestamp"])
    return field


def _integer(number):
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("%d does not fit into 64 bits" % number)
    return int(number)


def _field(value):
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":  # numpy.datetime64
        return _numpy_time(value)
    if hasattr(value, "item"):  # numpy's other scalars
        value = value.item()
    if isinstance(value, Nanoseconds):
        return {"timestamp": _integer(value)}
    if isinstance(value, datetime.datetime):
        if value != value:
            raise ValueError("NaT is no instant")
        utc = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        since = utc - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        microseconds = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
        return {"timestamp": _integer(microseconds * 1000 + getattr(value, "nanosecond", 0))}  # of pandas
    if isinstance(value, datetime.date):
        return {"date": (value - EPOCH).days}
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return _integer(value)
    raise ValueError("a %s is no value of a key" % type(value).__name__)


def _numpy_time(value):
    unit, form = ("date", "datetime64[D]") if value.dtype == "datetime64[D]" else ("timestamp", "datetime64[ns]")
    found, bits = value.astype(form), 31 if unit == "date" else 63
    number = int(found.astype("int64"))
    if found.astype(value.dtype) != value or not -(1 << bits) <= number < 1 << bits:
        raise ValueError("%s is no %s, or too far from 1970" % (value, unit))
    return {unit: number}


def _text(value):
    if not isinstance(value, str):
        raise ValueError("a %s is no name" % type(value).__name__)
    return value


def _reason(text):
    return text[:REASON_CHARACTERS_MAX].encode(errors="replace").decode()


class Nanoseconds(int):
    """An instant: nanoseconds since 1970 UTC."""


def _metadata(entries):
    """The dict of a model as a message says it: instants beside the JSON, which does not have them."""
    plain, instants = {}, {}
    for name, value in entries.items():
        try:
            field = value if isinstance(value, (list, tuple, dict)) else _field(value)
        except ValueError as error:
            raise ValueError("metadata entry %r: %s" % (name, error)) from None
        if field is value or not isinstance(field, dict):
            plain[_text(name)] = field
        elif "timestamp" in field:
            instants[_text(name)] = field["timestamp"]
        else:
            raise ValueError("metadata entry %r: a date is none; give an instant or a text" % name)
    return {"json": json.dumps(plain, allow_nan=False), "instants": instants}


class Model:
    """The version of a model that a run reads: id, version, content (the hash of its blob), metadata (a dict) and blob (bytes)."""

    def __init__(self, fields, data):
        self.id, self.version, self.content = fields["id"], fields["version"], fields["content"]
        self.metadata = json.loads(fields["metadata"]["json"])
        self.metadata.update({name: Nanoseconds(at) for name, at in fields["metadata"]["instants"].items()})
        at, size = fields["blob"]["at"], fields["blob"]["bytes"]
        self.blob = data[at : at + size]


class Cell:
    """A cell that a run reads: its key (a dict), its generation, and its rows (a pyarrow.Table)."""

    def __init__(self, fields, data):
        self.key = {name: _value(field) for name, field in fields["key"].items()}
        self.generation = fields["generation"]
        self._at, self._bytes, self._data = fields["rows"]["at"], fields["rows"]["bytes"], data
        self._model = fields.get("model")

    def rows(self):
        """Its rows: row keys, then values, sorted by row key."""
        part = pa.py_buffer(self._data).slice(self._at, self._bytes)
        with pa.ipc.open_stream(part) as stream:
            return stream.read_all()

    def model(self):
        """The version that the cell of a slot of models says, with its blob."""
        if self._model is None:
            raise ValueError("its slot is not one of models; define it with `SlotDefinition::models`")
        return Model(self._model, self._data)


class Run:
    """One run over one bundle: pid, attempts, date, key (a dict) and inputs. All inputs belong to one snapshot."""

    def __init__(self, fields, data, cancelled):
        self.pid = fields["pid"]
        self.attempts = fields["attempts"]
        self.date = _value(fields["date"])
        self.key = {name: _value(field) for name, field in fields["key"].items()}
        self.cancelled = cancelled
        self._inputs = {i["input"]: [Cell(cell, data) for cell in i["cells"]] for i in fields["inputs"]}

    def inputs(self, name):
        """All cells of an input, in order of their keys."""
        if name not in self._inputs:
            raise KeyError("the run has no input %r; its inputs are %s" % (name, ", ".join(self._inputs)))
        return self._inputs[name]

    def input(self, name):
        """The rows of the one cell of an input, as a pyarrow.Table."""
        return self._only(name).rows()

    def model(self, name):
        """The `Model` that is the one cell of an input, of a slot of models."""
        return self._only(name).model()

    def _only(self, name):
        cells = self.inputs(name)
        if len(cells) != 1:
            raise ValueError("input %r has %d cells; use `inputs`" % (name, len(cells)))
        return cells[0]

    def optional(self, name):
        """The same, or None where the input has no cell."""
        return self.input(name) if self.inputs(name) else None


def _part(rows, data):
    """Adds a table to the data of a message; where it is there."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write(rows)
    part = sink.getvalue()
    at = len(data)
    data += part
    return {"at": at, "bytes": part.size}


def _models(models, data):
    """Models as a message says them, with their blobs added to its data."""
    said = []
    for metadata, blob in models:
        at = len(data)
        data += memoryview(blob).cast("B")
        said.append({"metadata": _metadata(metadata), "blob": {"at": at, "bytes": len(data) - at}})
    return said


class Outputs:
    """What a run produces, where a dict of slots and tables does not say it: several cells of a slot, models, or errors."""

    def __init__(self):
        self._cells, self._models = [], []

    def put(self, slot, rows, key=None, uses=None):
        """Puts the rows of a cell. Key columns that are not named are the bundle's."""
        return self._give(slot, key, uses, rows=rows)

    def fail(self, slot, error, key=None, uses=None):
        """Says that a cell could not be made, while others could."""
        return self._give(slot, key, uses, error=str(error))

    def put_model(self, metadata, blob):
        """Puts a version of a model: its metadata, a dict with "type", a slot of models that the producer provides, and "timestamp",
        an instant or seconds since 1970; and its blob, bytes. It is the content of the cell of the bundle's date and of the entries
        that are its keys."""
        self._models.append((metadata, blob))
        return self

    def _give(self, slot, key, uses, **result):
        cell = {"slot": _text(slot), "key": {_text(name): _field(value) for name, value in (key or {}).items()}}
        if uses is not None:
            cell["uses"] = [_text(name) for name in uses]
        self._cells.append({**cell, **result})
        return self

    def _encode(self, data):
        cells = []
        for cell in self._cells:
            if "rows" in cell:
                cell = {**cell, "rows": _part(cell["rows"], data)}
            cells.append(cell)
        return {"outputs": cells, "models": _models(self._models, data)}


class _Connection:
    """The engine that has started this process."""

    def __init__(self):
        self.input = os.fdopen(os.dup(0), "rb")
        self.output = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # what this process starts reads no frames
        os.close(nothing)
        sys.stdout.flush()
        os.dup2(2, 1)  # what is printed is not for the engine
        self.lock = threading.Lock()

    def send(self, name, fields):
        self.write(frame(name, fields))

    def write(self, head, data=b""):
        with self.lock:
            self.output.write(head)
            self.output.write(data)
            self.output.flush()

    def greet(self, capabilities):
        """Says hello; the welcome, and how often to tell that this process lives, or None where the engine is gone."""
        hello = {"protocol": VERSION, "role": "worker", "process": os.getpid(), "language": "python"}
        self.send("hello", {**hello, "producer": "", "capabilities": capabilities})
        message = receive(self.input)
        if message is None:
            return None
        name, welcome, _ = message
        if name != "welcome" or welcome.get("protocol") != VERSION:
            raise ProtocolError("%s %r instead of a welcome of version %d" % (name, welcome, VERSION))
        return welcome, min(max(welcome.get("heartbeat_ms", 1000), 1) / 1000, HEARTBEAT_SECONDS_MAX)


class Refused(Exception):
    """The engine did not take a commit. Nothing was changed."""


class Fenced(Refused):
    """The session is over: it was lost, or the daemon was taken out."""


class Daemon(_Connection):
    """The daemon whose program this process is: it commits when it likes, each commit once by its number.

        daemon = ub.Daemon()
        for number in range((daemon.last or 0) + 1, 1000):
            daemon.commit(number, [("Quotes", datetime.date(2024, 1, 2), {"symbol": "AIG"}, table)])

    The process ends when the engine says goodbye or is gone, wherever it is then: `last` tells the next where to begin.
    """

    def __init__(self):
        super().__init__()
        greeted = self.greet([])
        if greeted is None:
            os._exit(0)
        welcome, every = greeted
        self.epoch, self.last = welcome["epoch"], welcome["last"]
        self.answers, self.parting = queue.Queue(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._beat, args=(every,), daemon=True).start()

    def commit(self, number, cells, end_of=(), due=(), as_of=None, models=()):
        """Commits cells, each (slot, date, key, pyarrow.Table or None to take it back), dates for which no further keys come,
        (slot, date, time) until when something is due, and models, each (metadata, blob) as in `Outputs.put_model`, of the day of
        its timestamp. The transaction, or None where the number was accepted before."""
        data, given = bytearray(), []
        for slot, date, key, rows in cells:
            key = {_text(name): _field(value) for name, value in (key or {}).items()}
            cell = {"slot": _text(slot), "date": _field(date), "key": key}
            if rows is not None:
                cell["rows"] = _part(rows, data)
            given.append(cell)
        fields = {"epoch": self.epoch, "source": number, "cells": given}
        fields["models"] = _models(models, data)
        fields["end_of"] = [_field(date) for date in end_of]
        fields["due"] = [{"slot": slot, "date": _field(date), "by": _field(by)} for slot, date, by in due]
        if as_of is not None:
            fields["as_of"] = _field(as_of)
        self.write(frame("commit", fields, data), data)
        answer = self._answer(lambda name, fields: name == "answer" and fields["source"] == number, "commit")
        if answer["verdict"] not in ("accepted", "duplicate"):
            raise (Fenced if answer["verdict"] == "fenced" else Refused)(answer["message"])
        self.last = max(number, self.last or 0)
        return answer["seq"] if answer["verdict"] == "accepted" else None

    def close(self, leave=False):
        """Ends the session, so that this program is not started again; with `leave` the daemon is taken out. What the program does
        yet it does within the engine's `close_grace`."""
        # The engine ends the connection as soon as it has answered.
        self.parting.set()
        try:
            self.send("goodbye", {"reason": "", "leave": leave})
            self._answer(lambda name, fields: name == "goodbye", "goodbye")
        except Exception:
            self.parting.clear()
            raise

    def _answer(self, is_it, about):
        """The answer to what was asked; other complaints are of what nobody waits for."""
        while True:
            name, fields = self.answers.get()
            if name == "end":
                os._exit(0)
            if name == "complaint" and fields.get("code") == "over":
                raise Fenced(fields["message"])
            if name == "complaint" and fields.get("about") == about:
                raise Refused(fields["message"])
            if is_it(name, fields):
                return fields

    def _listen(self):
        try:
            while True:
                message = receive(self.input)
                if message is None or (message[0] == "goodbye" and message[1].get("reason")):
                    break
                name, fields, _ = message
                if name in ("answer", "complaint", "goodbye"):
                    self.answers.put((name, fields))
        except Exception:
            traceback.print_exc()
        if self.parting.is_set():
            self.answers.put(("end", {}))
            return
        try:
            sys.stderr.flush()
        finally:
            os._exit(0)

    def _beat(self, every):
        while not self.parting.wait(every):
            try:
                self.send("heartbeat", {"batch": 0})
            except OSError:
                if not self.parting.is_set():
                    os._exit(0)


class _Worker(_Connection):
    def __init__(self, produce):
        super().__init__()
        self.produce = produce
        self.messages = queue.Queue()
        self.working = threading.Event()
        self.batch, self.cancelled = 0, {}

    def listen(self):
        """Reads what comes, while a run is in work too."""
        try:
            while True:
                message = receive(self.input)
                if message is None:
                    break
                name, fields, _ = message
                if name == "cancel":
                    for pid in fields.get("pids", ()):
                        cancelled = self.cancelled.get(pid)
                        if cancelled:
                            cancelled.set()
                else:
                    self.messages.put(message)
        except Exception:
            traceback.print_exc()
        # Nobody wants what this process does.
        try:
            if self.working.is_set():
                print("the engine is gone: what is in work ends here", file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(0)

    def beat(self, every):
        """Tells that this process lives, while it has work."""
        while True:
            self.working.wait()
            threading.Event().wait(every)
            if self.working.is_set():
                try:
                    self.send("heartbeat", {"batch": self.batch})
                except OSError:
                    os._exit(0)

    def serve(self):
        greeted = self.greet(["batch", "cancel"])
        if greeted is None:
            return
        _, every = greeted
        threading.Thread(target=self.listen, daemon=True).start()
        threading.Thread(target=self.beat, args=(every,), daemon=True).start()
        while True:
            name, fields, data = self.messages.get()
            if name == "run":
                self.work(fields, data)
            elif name == "goodbye":
                return
            elif name != "complaint":
                self.send("complaint", {"about": name, "message": "a worker has no use for it"})

    def work(self, fields, data):
        self.batch = fields["batch"]
        self.cancelled = {run["pid"]: threading.Event() for run in fields["runs"]}
        self.working.set()
        try:
            for run in fields["runs"]:
                self.write(*self.answer(fields, run, data))
        finally:
            self.working.clear()
            self.cancelled = {}

    def answer(self, batch, fields, data):
        """What one run comes to, as it is sent."""

        def said(result, parts=b""):
            results = [{"pid": fields["pid"], **result}]
            return frame("results", {"batch": batch["batch"], "epoch": batch["epoch"], "results": results}, parts), parts

        try:
            parts = bytearray()
            given = self.produce(Run(fields, data, self.cancelled[fields["pid"]]))
            if isinstance(given, dict):
                outputs = Outputs()
                for slot, rows in given.items():
                    outputs.put(slot, rows)
                given = outputs
            elif given is None:
                given = Outputs()
            return said({"outcome": "completed", **given._encode(parts)}, parts)
        except Exception as error:
            kinds = ((Declined, "declined"), (Retry, "retry"), (Rejected, "rejected"))
            outcome = next((outcome for kind, outcome in kinds if isinstance(error, kind)), "fatal")
            if outcome == "fatal":
                traceback.print_exc()
            text = str(error) if outcome != "fatal" else "%s: %s" % (type(error).__name__, error)
            return said({"outcome": outcome, "message": _reason(text)})
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def serve(produce):
    """Works for the engine that started this process: calls `produce` with each run, until the engine says goodbye.

    It gives a dict of slots and tables for the bundle's own cells, or `Outputs`, or None for no output; or raises `Declined`,
    `Retry` or `Rejected`. Any other exception is a fatal failure of the run.
    """
    _Worker(produce).serve()
