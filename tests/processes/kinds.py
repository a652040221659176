"""The program of the tests in Python: what a run comes to is in its name."""

import pyarrow as pa

import underbelly_worker as ub


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
    print("doubling", n)
    return ub.Outputs().put("B", pa.table({"n": [2 * n]}), key={"name": name}, uses=["A"])


ub.serve(produce)
