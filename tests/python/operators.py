"""Compares operators with pandas and Polars on real ticks: `operators.py DATA OUT`.

OUT holds what the program `operators` wrote of the trades and quotes of AIG in DATA. Each result is computed anew from the files by
both libraries, as far as they have the operator; the first that differs ends this with exit 1.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.ipc as ipc

DATA, OUT = Path(sys.argv[1]) / "equity_ticks", Path(sys.argv[2])
SECOND = 1_000_000_000
KEY = "exchange"


def ours(name):
    """Our result, times as whole nanoseconds."""
    frame = ipc.open_file(OUT / f"{name}.arrow").read_all().to_pandas()
    frame["timestamp"] = frame["timestamp"].astype("int64") if "timestamp" in frame else 0
    return frame


def read(name):
    frame = pd.read_csv(DATA / f"aig_20131007_{name}.csv.gz", dtype={KEY: str})
    # Ties keep the order of the file.
    return frame.rename(columns={"ts_ns": "timestamp"}).sort_values("timestamp", kind="stable", ignore_index=True)


def same(what, found, expected, columns):
    assert len(found) == len(expected), f"{what}: {len(found)} rows where there are {len(expected)}"
    for column in columns:
        a, b = found[column].to_numpy(), expected[column].to_numpy()
        if a.dtype == object or b.dtype == object:
            equal = a.astype(str) == b.astype(str)
        else:
            equal = np.isclose(a.astype(float), b.astype(float), rtol=1e-9, atol=1e-6, equal_nan=True)
        if not equal.all():
            at = int(np.flatnonzero(~equal)[0])
            sys.exit(f"{what}: {column} of row {at} is {a[at]} where it is {b[at]}; {(~equal).sum()} rows differ")
    print(f"{what}: {len(found)} rows are the same")


trades = read("trades")[["timestamp", KEY, "price_e4", "size"]]
quotes = read("quotes")
bids = quotes[quotes["bid_price_e4"] > 0][["timestamp", KEY, "bid_price_e4"]]
pl_trades, pl_bids = (pl.from_pandas(frame).set_sorted("timestamp") for frame in (trades, bids))

# As-of joins. Where a row before and one behind are equally far, we take the earlier one, and pandas does too.
for direction in ("backward", "forward", "nearest"):
    for name, tolerance in (("", None), ("_second", SECOND)):
        what, found = f"asof {direction}{name}", ours(f"asof_{direction}{name}")
        expected = pd.merge_asof(trades, bids, on="timestamp", by=KEY, direction=direction, tolerance=tolerance)
        same(f"{what}, pandas", found, expected, ["timestamp", KEY, "price_e4", "bid_price_e4"])
        if direction != "nearest":
            expected = pl_trades.join_asof(pl_bids, on="timestamp", by=KEY, strategy=direction, tolerance=tolerance, check_sortedness=False)
            same(f"{what}, Polars", found, expected.to_pandas(), ["timestamp", KEY, "price_e4", "bid_price_e4"])
expected = pd.merge_asof(trades, bids, on="timestamp", by=KEY, allow_exact_matches=False)
same("asof without exact matches, pandas", ours("asof_strict"), expected, ["timestamp", "bid_price_e4"])

COLUMNS = ["open", "high", "low", "close", "price_e4_mean", "price_e4_std", "size_sum", "rows"]
PANDAS = {
    "open": ("price_e4", "first"),
    "high": ("price_e4", "max"),
    "low": ("price_e4", "min"),
    "close": ("price_e4", "last"),
    "price_e4_mean": ("price_e4", "mean"),
    "price_e4_std": ("price_e4", "std"),
    "size_sum": ("size", "sum"),
    "rows": ("size", "size"),
}
price = pl.col("price_e4")
POLARS = [
    price.first().alias("open"),
    price.max().alias("high"),
    price.min().alias("low"),
    price.last().alias("close"),
    price.mean().alias("price_e4_mean"),
    price.std().alias("price_e4_std"),
    pl.col("size").sum().alias("size_sum"),
    pl.len().alias("rows"),
]

# Bars by exchange, of minutes with trades.
found = ours("bars").sort_values(["timestamp", KEY], ignore_index=True)
minute = trades.assign(timestamp=trades["timestamp"] // (60 * SECOND) * (60 * SECOND))
expected = minute.groupby(["timestamp", KEY], as_index=False).agg(**PANDAS)
same("bars, pandas", found, expected, ["timestamp", KEY, *COLUMNS])
timed = pl_trades.with_columns(pl.from_epoch("timestamp", time_unit="ns")).set_sorted("timestamp")
expected = timed.group_by_dynamic("timestamp", every="1m", group_by=KEY).agg(POLARS).sort("timestamp", KEY)
expected = expected.with_columns(pl.col("timestamp").dt.epoch("ns"))
same("bars, Polars", found, expected.to_pandas(), ["timestamp", KEY, *COLUMNS])

# Five minutes of all, those without trades too.
found = ours("all_bars")
indexed = trades.set_index(pd.to_datetime(trades["timestamp"]))
expected = indexed.resample("5min").agg(**PANDAS).reset_index()
expected["timestamp"] = expected["timestamp"].astype("datetime64[ns]").astype("int64")
filled = found.assign(size_sum=found["size_sum"].fillna(0))
same("all bars, pandas", filled, expected, ["timestamp", *COLUMNS])

# Rolling windows of ten seconds; all trades of an instant are in the window of each.
found = ours("rolling")
expected = timed.with_row_index("at").rolling("timestamp", period="10s", group_by=KEY).agg(*POLARS, pl.col("at").last())
keyed = ["timestamp", KEY, *COLUMNS]
by = ["timestamp", KEY]
expected = expected.with_columns(pl.col("timestamp").dt.epoch("ns")).to_pandas()
sort = lambda frame: frame[keyed].sort_values(by, kind="stable", ignore_index=True)
same("rolling, Polars", sort(found), sort(expected), keyed)
parts = []
for exchange, frame in indexed.groupby(KEY):
    # pandas leaves out what is tied and stands behind, so the last of an instant is the one to compare.
    windows = frame.rolling("10s")
    part = pd.DataFrame({"high": windows["price_e4"].max(), "size_sum": windows["size"].sum(), "rows": windows["size"].count()})
    part[KEY] = exchange
    parts.append(part[~part.index.duplicated(keep="last")])
expected = pd.concat(parts).reset_index()
expected["timestamp"] = expected["timestamp"].astype("datetime64[ns]").astype("int64")
expected = expected.sort_values(by, ignore_index=True)
last = found.drop_duplicates(by, keep="last").sort_values(by, ignore_index=True)
same("rolling, pandas", last, expected, [*by, "high", "size_sum", "rows"])

# Sizes bid in the second before and behind each trade, both ends among them.
found, sums = ours("window"), np.full(len(trades), np.nan)
for exchange, places in trades.groupby(KEY).indices.items():
    own = quotes[quotes[KEY] == exchange]
    times, running = own["timestamp"].to_numpy(), np.concatenate([[0], own["bid_size"].cumsum().to_numpy()])
    at = trades["timestamp"].to_numpy()[places]
    first, end = np.searchsorted(times, at - SECOND, "left"), np.searchsorted(times, at + SECOND, "right")
    sums[places] = np.where(end > first, running[end] - running[first], np.nan)
same("window join, numpy", found, trades.assign(bid_size_sum=sums), ["timestamp", KEY, "bid_size_sum"])

# Groups.
found = ours("groups").sort_values(KEY, ignore_index=True)
expected = trades.groupby(KEY, as_index=False).agg(**PANDAS)
same("groups, pandas", found, expected, [KEY, *COLUMNS])
expected = pl_trades.group_by(KEY).agg(POLARS).sort(KEY).to_pandas()
same("groups, Polars", found, expected, [KEY, *COLUMNS])
for quantile in (0, 0.25, 0.5, 0.9, 1):
    expected = trades.groupby(KEY)["price_e4"].quantile(quantile).reset_index(name=f"price_e4_q{quantile}")
    same(f"quantile {quantile}, pandas", found, expected, [f"price_e4_q{quantile}"])
