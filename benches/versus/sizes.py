"""Bytes on disk of real ticks: `sizes.py UBCTL DATA`, DATA the folder of the real data with `equity_ticks` and `fx_ticks`.

Prints a line for each table: what `ubctl import` stores by itself, a file of DuckDB, a Parquet file of Polars with zstd at level 19, and
ArcticDB on LMDB, each as a part of its raw bytes: 8 for a number or a time, 4 for a text, which is one of few.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

import pandas

TABLES = {
    "aig.quotes": "equity_ticks/aig_*_quotes",
    "aig.trades": "equity_ticks/aig_*_trades",
    "ibm.quotes": "equity_ticks/ibm_*_quotes",
    "ibm.trades": "equity_ticks/ibm_*_trades",
    "eurusd.fxcm": "fx_ticks/fxcm_eurusd_*_quotes",
    "eurusd.oanda": "fx_ticks/oanda_eurusd_*_quotes",
    "xauusd.oanda": "fx_ticks/oanda_xauusd_*_quotes",
}


def ours(ubctl, folder, name, files):
    def run(*words):
        return subprocess.run([ubctl, "--db", folder, *words], check=True, capture_output=True, text=True).stdout

    run("init")
    run("import", *files, "--series", name, "--time", "ts_ns")
    run("checkpoint")
    info = json.loads(run("series", "info", name, "--format", "json"))
    return info["rows"], sum(os.path.getsize(file) for file in glob.glob(f"{folder}/**/*.seg", recursive=True))


def duckdb(frame, folder):
    import duckdb

    path = os.path.join(folder, "duckdb.db")
    db = duckdb.connect(path)
    db.register("given", frame)
    db.execute("CREATE TABLE ticks AS SELECT * FROM given")
    db.execute("CHECKPOINT")
    db.close()
    return os.path.getsize(path)


def polars(frame, folder):
    import polars

    path = os.path.join(folder, "ticks.parquet")
    polars.from_pandas(frame).write_parquet(path, compression="zstd", compression_level=19)
    return os.path.getsize(path)


def arcticdb(frame, folder):
    import arcticdb

    path = os.path.join(folder, "arctic")
    library = arcticdb.Arctic(f"lmdb://{path}?map_size=1GB").get_library("ticks", create_if_missing=True)
    library.write("ticks", frame.set_index("ts_ns"))
    return sum(os.stat(os.path.join(at, file)).st_blocks * 512 for at, _, files in os.walk(path) for file in files)


def main():
    ubctl, data = sys.argv[1:]
    for name, pattern in TABLES.items():
        files = sorted(glob.glob(os.path.join(data, pattern + ".csv.gz")))
        frame = pandas.concat([pandas.read_csv(file) for file in files], ignore_index=True)
        frame["ts_ns"] = pandas.to_datetime(frame["ts_ns"])
        texts = [column for column in frame if frame[column].dtype.kind not in "iufM"]
        raw = len(frame) * sum(4 if column in texts else 8 for column in frame)
        with tempfile.TemporaryDirectory() as folder:
            rows, bytes_of_ours = ours(ubctl, os.path.join(folder, "underbelly"), name, files)
            assert rows == len(frame), f"{name}: {rows} rows were imported of {len(frame)}"
            # What arrives as text is stored as text.
            frame[texts] = frame[texts].astype(str)
            peers = {peer.__name__: peer(frame, folder) for peer in (duckdb, polars, arcticdb)}
        shown = "".join(f" | {peer} {size / raw:.3f} of raw" for peer, size in peers.items())
        best = min(peers.values()) / bytes_of_ours
        print(f"versus real {name}: underbelly {bytes_of_ours / raw:.3f} of raw{shown} | ratio {best:.3g}", flush=True)


if __name__ == "__main__":
    main()
