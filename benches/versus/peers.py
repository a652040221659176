"""What peers from PyPI do with a day of trades and quotes: `peers.py PEER DATA FOLDER`, PEER one of duckdb, polars, arcticdb.

DATA holds the columns as files of little-endian numbers, `trade.ts`, `trade.sym`, `trade.price`, `trade.size`, and those of `quote`.
Reads names of work from stdin, a line each, and answers each with a line of JSON: {"seconds": S, "check": N}, or {"error": "..."}
where the peer has nothing of the kind. Two threads each; what is not the work itself is done before the clock starts.
"""

import json
import os
import sys
import time

import numpy
import pyarrow

SYMBOLS = [f"S{number:03}" for number in range(100)]
BEGIN = 1_704_153_600_000_000_000
HOUR = 3_600_000_000_000
FROM, TO = BEGIN + 10 * HOUR, BEGIN + 11 * HOUR


def table(data, name):
    def column(part, kind):
        return numpy.fromfile(os.path.join(data, f"{name}.{part}"), dtype=kind)

    codes = pyarrow.array(column("sym", "u1").astype("i4"))
    return pyarrow.table({
        "ts": pyarrow.array(column("ts", "<i8"), pyarrow.timestamp("ns")),
        "sym": pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(SYMBOLS)),
        "price": pyarrow.array(column("price", "<f8")),
        "size": pyarrow.array(column("size", "<i8")),
    })


def synced(path):
    """Writes back all that is in a file or folder."""
    paths = [path] if os.path.isfile(path) else [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
    for each in paths:
        with open(each, "rb") as file:
            os.fsync(file.fileno())


class DuckDB:
    def __init__(self, data, folder):
        import duckdb

        self.data, self.path = data, os.path.join(folder, "duckdb.db")
        self.db = duckdb.connect(self.path, config={"threads": 2})

    def version(self):
        return self.db.execute("SELECT version()").fetchall()[0][0]

    def ingest(self):
        given = {name: table(self.data, name) for name in ("trade", "quote")}

        def work():
            for name, rows in given.items():
                self.db.register("given", rows)
                self.db.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM given").fetchall()
            self.db.execute("CHECKPOINT").fetchall()
            return sum(rows.num_rows for rows in given.values())
        return work

    def one(self, sql):
        return lambda: float(self.db.execute(sql).fetchall()[0][0])

    def arrow(self, sql):
        return lambda: self.db.execute(sql).to_arrow_table()

    def scan(self):
        return self.one("SELECT sum(price * size) FROM trade")

    def hour(self):
        get = self.arrow(
            "SELECT ts, sym, price, size FROM trade "
            f"WHERE ts >= make_timestamp_ns({FROM}) AND ts < make_timestamp_ns({TO}) ORDER BY ts"
        )
        return lambda: get().num_rows

    def one_symbol(self):
        get = self.arrow("SELECT ts, price, size FROM trade WHERE sym = 'S042' ORDER BY ts")
        return lambda: get().num_rows

    def bars(self):
        get = self.arrow(
            "SELECT sym, time_bucket(INTERVAL 1 minute, ts::TIMESTAMP) AS minute, arg_min(price, ts) AS open, max(price) AS high, "
            "min(price) AS low, arg_max(price, ts) AS close, sum(size) AS size FROM trade GROUP BY ALL"
        )
        return lambda: float(numpy.sum(get()["close"].to_numpy()))

    def asof(self):
        return self.one("SELECT sum(q.price) FROM trade t ASOF JOIN quote q ON t.sym = q.sym AND t.ts >= q.ts")

    def last_points(self):
        get = self.arrow("SELECT sym, arg_max(price, ts) AS price FROM trade GROUP BY sym")
        return lambda: float(numpy.sum(get()["price"].to_numpy()))

    def last_point(self):
        return self.one("SELECT arg_max(price, ts) FROM trade WHERE sym = 'S042'")

    def size(self):
        return lambda: os.path.getsize(self.path)


class Polars:
    """Queries read frames in memory, which is where Polars is at its best."""

    def __init__(self, data, folder):
        os.environ["POLARS_MAX_THREADS"] = "2"
        import polars

        self.polars, self.data, self.folder, self.frames = polars, data, folder, {}

    def version(self):
        return self.polars.__version__

    def frame(self, name):
        if name not in self.frames:
            frame = self.polars.from_arrow(table(self.data, name))
            self.frames[name] = frame.with_columns(self.polars.col("sym").cast(self.polars.Enum(SYMBOLS))).set_sorted("ts")
        return self.frames[name]

    def ingest(self):
        frames = {name: self.frame(name) for name in ("trade", "quote")}

        def work():
            for name, frame in frames.items():
                path = os.path.join(self.folder, f"{name}.parquet")
                frame.write_parquet(path, compression="zstd")
                synced(path)
            return sum(frame.height for frame in frames.values())
        return work

    def scan(self):
        trade = self.frame("trade").lazy()
        return lambda: trade.select((self.polars.col("price") * self.polars.col("size")).sum()).collect().item()

    def hour(self):
        frame, low, high = self.frame("trade"), FROM, TO
        at = self.polars.col("ts").cast(self.polars.Int64)
        return lambda: frame.lazy().filter((at >= low) & (at < high)).collect().height

    def one_symbol(self):
        frame = self.frame("trade")
        return lambda: frame.lazy().filter(self.polars.col("sym") == "S042").collect().height

    def bars(self):
        pl, frame = self.polars, self.frame("trade")
        price = pl.col("price")
        aggregates = [price.first().alias("open"), price.max().alias("high"), price.min().alias("low"),
                      price.last().alias("close"), pl.col("size").sum()]
        # Polars has two ways; the faster one of them on such data.
        def work():
            bars = frame.lazy().group_by("sym", pl.col("ts").dt.truncate("1m")).agg(aggregates).collect()
            return bars["close"].sum()
        return work

    def asof(self):
        trade, quote = self.frame("trade").select("ts", "sym", "price"), self.frame("quote").select("ts", "sym", "price")
        return lambda: trade.join_asof(quote, on="ts", by="sym", suffix="_quote", check_sortedness=False)["price_quote"].sum()

    def last_points(self):
        frame = self.frame("trade").lazy()
        return lambda: frame.group_by("sym").agg(self.polars.col("price").last()).collect()["price"].sum()

    def last_point(self):
        frame = self.frame("trade").lazy()
        return lambda: frame.filter(self.polars.col("sym") == "S042").select(self.polars.col("price").last()).collect().item()

    def size(self):
        return lambda: sum(os.path.getsize(os.path.join(self.folder, f"{name}.parquet")) for name in ("trade", "quote"))


class ArcticDB:
    """On LMDB, its local storage. It has no joins; grouped work by time and key is none of its queries."""

    def __init__(self, data, folder):
        import arcticdb

        self.arcticdb, self.data, self.folder = arcticdb, data, os.path.join(folder, "arctic")
        self.library = arcticdb.Arctic(f"lmdb://{self.folder}?map_size=20GB").get_library("ticks", create_if_missing=True)

    def version(self):
        return self.arcticdb.__version__

    def ingest(self):
        frames = {}
        for name in ("trade", "quote"):
            frame = table(self.data, name).to_pandas()
            frame["sym"] = frame["sym"].astype(str)
            frames[name] = frame.set_index("ts")

        def work():
            for name, frame in frames.items():
                self.library.write(name, frame)
            synced(self.folder)
            return sum(len(frame) for frame in frames.values())
        return work

    def scan(self):
        def work():
            frame = self.library.read("trade", columns=["price", "size"]).data
            return float((frame["price"].to_numpy() * frame["size"].to_numpy()).sum())
        return work

    def hour(self):
        import pandas

        span = (pandas.Timestamp(FROM), pandas.Timestamp(TO - 1))
        return lambda: len(self.library.read("trade", date_range=span).data)

    def one_symbol(self):
        query = self.arcticdb.QueryBuilder()
        query = query[query["sym"] == "S042"]
        return lambda: len(self.library.read("trade", columns=["sym", "price", "size"], query_builder=query).data)

    def size(self):
        return lambda: sum(os.stat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(self.folder) for name in names)


def serve(peers):
    """Answers what is asked on stdin. Work answers with its check, or with a function that finds it once the clock has stopped."""
    peer, data, folder = sys.argv[1:4]
    store = peers[peer](data, folder)
    print(json.dumps({"version": store.version()}), flush=True)
    works = {}
    for line in sys.stdin:
        name, *given = line.split()
        try:
            if name not in works:
                if not hasattr(store, name):
                    raise NotImplementedError(f"{peer} has no {name}")
                works[name] = getattr(store, name)()
            began = time.perf_counter()
            check = works[name](*given)
            seconds = time.perf_counter() - began
            answer = {"seconds": seconds, "check": float(check() if callable(check) else check)}
        except Exception as error:  # what a peer cannot do is told and not fatal
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve({"duckdb": DuckDB, "polars": Polars, "arcticdb": ArcticDB})
