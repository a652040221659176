"""The program of the tests in Python: what a run comes to is in its name."""

import datetime
import decimal
import subprocess
import types

import pyarrow as pa

import underbelly_worker as ub


class Instant(datetime.datetime):
    """As pandas has them."""

    nanosecond = 789


# What stands in the key of a cell of slot T.
INSTANTS = {
    "nanoseconds": Instant(2024, 1, 2, microsecond=123456),
    "scalar": types.SimpleNamespace(item=lambda: ub.Nanoseconds(7)),
    "far": datetime.datetime(9999, 1, 1),
    "decimal": decimal.Decimal(1),
    "bytes": b"1",
    "list": [1],
}


def produce(run):
    name, n = run.key["name"], run.input("A")["n"][0].as_py()
    if name == "declined":
        raise ub.Declined("nothing to do")
    if name == "retry" and run.attempts < 1:
        raise ub.Retry("the line is down")
    if name == "fatal":
        raise ValueError("no such thing")
    if name == "absent":
        return None
    if name == "error":
        return ub.Outputs().fail("B", "half of it is missing")
    if name == "small":
        return {"B": pa.table({"n": pa.array([2 * n], pa.int16())})}
    if name == "dictionary":
        return {"B": pa.table({"n": pa.array(["x"]).dictionary_encode()})}
    if name == "slot":
        return {7: pa.table({"n": [n]})}
    if name == "long":
        return ub.Outputs().fail("B", "x" * (17 << 20))
    if name == "verbose":
        raise ub.Declined("ü" * (9 << 20))
    if name == "surrogate":
        raise ub.Declined("half a \ud800")
    if name == "inherit":
        subprocess.run(["cat"], stdout=subprocess.DEVNULL, check=True)
    if name in INSTANTS:
        return ub.Outputs().put("T", pa.table({"n": [n]}), key={"at": INSTANTS[name]})
    print("doubling", n)
    return ub.Outputs().put("B", pa.table({"n": [2 * n]}), key={"name": name}, uses=["A"])


ub.serve(produce)
