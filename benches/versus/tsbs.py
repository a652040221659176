"""What peers from PyPI answer to the queries of TSBS: `tsbs.py PEER DATA FOLDER`, PEER one of duckdb, polars, arcticdb.

DATA holds `tags`, a line for each host; `shape`, the begin and the interval in nanoseconds, readings and hosts; and `figures`, ten bytes
for each row, in order of time, then of host. A line of stdin is `KIND WIDTH FIELDS FROM TO HOST...`: what is asked, minute or hour, the
first so many figures, times in nanoseconds, and numbers of hosts, none for all. An answer is there as columns in memory when the clock stops.
"""

import os

import numpy
import pyarrow
import pyarrow.compute

from peers import serve, synced

TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
FIELDS = [f"usage_{name}" for name in
          ("user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")]
MINUTE = 60_000_000_000


def table(data):
    """All rows, and when they begin."""
    begin, interval, readings, hosts = map(int, open(os.path.join(data, "shape")).read().split())
    times = begin + numpy.repeat(numpy.arange(readings, dtype="i8") * interval, hosts)
    numbers = numpy.tile(numpy.arange(hosts, dtype="i4"), readings)
    columns = {"ts": pyarrow.array(times, pyarrow.timestamp("ns"))}
    tags = [line.rstrip("\n").split("\t") for line in open(os.path.join(data, "tags"))]
    for position, name in enumerate(TAGS):
        texts = [of_host[position] for of_host in tags]
        distinct = sorted(set(texts))
        code = numpy.array([distinct.index(text) for text in texts], dtype="i4")
        columns[name] = pyarrow.DictionaryArray.from_arrays(pyarrow.array(code[numbers]), pyarrow.array(distinct))
    figures = numpy.fromfile(os.path.join(data, "figures"), dtype="u1").reshape(-1, len(FIELDS))
    for position, name in enumerate(FIELDS):
        columns[name] = pyarrow.array(figures[:, position].astype("f8"))
    return pyarrow.table(columns), begin


def check(answer, begin):
    """Rows, figures, minutes since the beginning and numbers of hosts, added up."""
    total = float(answer.num_rows)
    for name, column in zip(answer.column_names, answer.columns):
        if pyarrow.types.is_timestamp(column.type):
            times = column.cast(pyarrow.timestamp("ns")).cast(pyarrow.int64()).to_numpy()
            total += float(((times - begin) / MINUTE).sum())
        elif pyarrow.types.is_floating(column.type):
            total += float(column.to_numpy().sum())
        elif name == "hostname":
            total += sum(int(text[len("host_"):]) for text in column.to_pylist())
    return total


class DuckDB:
    def __init__(self, data, folder):
        import duckdb

        self.data, self.path = data, os.path.join(folder, "duckdb.db")
        self.db = duckdb.connect(self.path, config={"threads": 2})

    def version(self):
        return self.db.execute("SELECT version()").fetchall()[0][0]

    def ingest(self):
        given, self.begin = table(self.data)

        def work():
            self.db.register("given", given)
            self.db.execute("CREATE OR REPLACE TABLE cpu AS SELECT * FROM given").fetchall()
            self.db.execute("CHECKPOINT").fetchall()
            return given.num_rows
        return work

    def answer(self, sql):
        found = self.db.sql(sql).to_arrow_table()
        return lambda: check(found, self.begin)

    def where(self, since, to, hosts):
        time = f"ts >= make_timestamp_ns({since}) AND ts < make_timestamp_ns({to})"
        names = ", ".join(f"'host_{host}'" for host in hosts)
        return f"{time} AND hostname IN ({names})" if hosts else time

    def window(self, width):
        return f"time_bucket(INTERVAL 1 {width}, ts::TIMESTAMP) AS begins"

    def each(self, function, fields):
        return ", ".join(f"{function}({name}) AS {name}" for name in FIELDS[:int(fields)])

    def largest(self):
        return lambda width, fields, since, to, *hosts: self.answer(
            f"SELECT {self.window(width)}, {self.each('max', fields)} FROM cpu "
            f"WHERE {self.where(since, to, hosts)} GROUP BY begins ORDER BY begins"
        )

    def means(self):
        return lambda width, fields, since, to: self.answer(
            f"SELECT {self.window(width)}, hostname, {self.each('avg', fields)} FROM cpu "
            f"WHERE {self.where(since, to, ())} GROUP BY begins, hostname ORDER BY begins, hostname"
        )

    def high(self):
        return lambda width, fields, since, to, *hosts: self.answer(
            f"SELECT * FROM cpu WHERE usage_user > 90 AND {self.where(since, to, hosts)} ORDER BY ts"
        )

    def last(self):
        # Faster than the suite's DISTINCT ON (hostname) … ORDER BY hostname, ts DESC, which sorts all rows.
        columns = ", ".join(f"arg_max({name}, ts) AS {name}" for name in TAGS[1:] + FIELDS)
        sql = f"SELECT max(ts) AS ts, hostname, {columns} FROM cpu GROUP BY hostname"
        return lambda *given: self.answer(sql)

    def newest(self):
        return lambda width, fields, since, to: self.answer(
            f"SELECT {self.window(width)}, {self.each('max', fields)} FROM cpu "
            f"WHERE ts < make_timestamp_ns({to}) GROUP BY begins ORDER BY begins DESC LIMIT 5"
        )


class Polars:
    """Reads a frame in memory, which is where Polars is at its best."""

    def __init__(self, data, folder):
        os.environ["POLARS_MAX_THREADS"] = "2"
        import polars

        self.polars, self.data, self.folder = polars, data, folder

    def version(self):
        return self.polars.__version__

    def ingest(self):
        given, self.begin = table(self.data)
        self.frame = self.polars.from_arrow(given).set_sorted("ts")
        path = os.path.join(self.folder, "cpu.parquet")

        def work():
            self.frame.write_parquet(path, compression="zstd")
            synced(path)
            return self.frame.height
        return work

    def answer(self, lazy):
        found = lazy.collect()
        return lambda: check(found.to_arrow(), self.begin)

    def within(self, since, to, hosts=()):
        pl = self.polars
        at = pl.col("ts").cast(pl.Int64)
        rows = self.frame.lazy().filter((at >= int(since)) & (at < int(to)))
        if len(hosts) == 1:
            return rows.filter(pl.col("hostname") == f"host_{hosts[0]}")
        return rows.filter(pl.col("hostname").is_in([f"host_{host}" for host in hosts])) if hosts else rows

    def window(self, width):
        return self.polars.col("ts").dt.truncate({"minute": "1m", "hour": "1h"}[width]).alias("begins")

    def largest(self):
        return lambda width, fields, since, to, *hosts: self.answer(
            self.within(since, to, hosts).group_by(self.window(width))
            .agg(self.polars.col(FIELDS[:int(fields)]).max()).sort("begins")
        )

    def means(self):
        return lambda width, fields, since, to: self.answer(
            self.within(since, to).group_by(self.window(width), "hostname")
            .agg(self.polars.col(FIELDS[:int(fields)]).mean()).sort("begins", "hostname")
        )

    def high(self):
        return lambda width, fields, since, to, *hosts: self.answer(
            self.within(since, to, hosts).filter(self.polars.col("usage_user") > 90)
        )

    def last(self):
        return lambda *given: self.answer(self.frame.lazy().group_by("hostname").last())

    def newest(self):
        return lambda width, fields, since, to: self.answer(
            self.within(self.begin, to).group_by(self.window(width))
            .agg(self.polars.col(FIELDS[0]).max()).sort("begins", descending=True).head(5)
        )


class ArcticDB:
    """On LMDB, its local storage. It groups by one column, and by time apart from that: what needs both is done with the frame that it
    reads. The newest row of each key is none of its queries."""

    def __init__(self, data, folder):
        import arcticdb
        import pandas

        self.arcticdb, self.pandas, self.data, self.folder = arcticdb, pandas, data, os.path.join(folder, "arctic")
        self.library = arcticdb.Arctic(f"lmdb://{self.folder}?map_size=20GB").get_library("tsbs", create_if_missing=True)

    def version(self):
        return self.arcticdb.__version__

    def ingest(self):
        given, self.begin = table(self.data)
        frame = given.to_pandas()
        frame[TAGS] = frame[TAGS].astype(str)
        frame = frame.set_index("ts")

        def work():
            self.library.write("cpu", frame)
            synced(self.folder)
            return len(frame)
        return work

    def query(self, hosts):
        query = self.arcticdb.QueryBuilder()
        return query[query["hostname"].isin([f"host_{host}" for host in hosts])] if hosts else query

    def read(self, since, to, columns, query=None):
        first = None if since is None else self.pandas.Timestamp(int(since))
        span = (first, self.pandas.Timestamp(int(to) - 1))
        return self.library.read("cpu", date_range=span, columns=columns, query_builder=query).data

    def answer(self, frame):
        return lambda: check(pyarrow.Table.from_pandas(frame.reset_index(), preserve_index=False), self.begin)

    def windows(self, width, fields, since, to, hosts):
        names = FIELDS[:int(fields)]
        query = self.query(hosts).resample({"minute": "1min", "hour": "1h"}[width]).agg({name: "max" for name in names})
        # It cannot choose columns beside that; those of the result are the ones that are read.
        return self.read(since, to, None, query)[names]

    def largest(self):
        return lambda width, fields, since, to, *hosts: self.answer(self.windows(width, fields, since, to, hosts))

    def means(self):
        def work(width, fields, since, to):
            frame = self.read(since, to, ["hostname"] + FIELDS[:int(fields)])
            return self.answer(frame.groupby([frame.index.floor("h"), "hostname"]).mean())
        return work

    def high(self):
        def work(width, fields, since, to, *hosts):
            query = self.query(hosts)
            return self.answer(self.read(since, to, None, query[query["usage_user"] > 90]))
        return work

    def newest(self):
        return lambda width, fields, since, to: self.answer(self.windows(width, fields, None, to, ()).tail(5))


if __name__ == "__main__":
    serve({"duckdb": DuckDB, "polars": Polars, "arcticdb": ArcticDB})
