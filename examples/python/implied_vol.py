"""A producer: the implied volatility of each option of a cell of quotes, by bisection of the Black-Scholes formula.

It reads the input `Quotes`, one cell for each expiry: columns strike, right ("C" or "P") and mid; years to expiry and the
forward are in its first row. It gives `Vol`: strike, right and vol.
"""

import math

import pyarrow as pa

import underbelly_worker as ub


def price(forward, strike, years, vol, right):
    """Black's price of an option on a forward, undiscounted."""
    deviation = vol * math.sqrt(years)
    d1 = math.log(forward / strike) / deviation + deviation / 2
    normal = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))
    call = forward * normal(d1) - strike * normal(d1 - deviation)
    return call if right == "C" else call - forward + strike


def implied_vol(forward, strike, years, mid, right):
    """The volatility at which the price is `mid`; None where there is none between 0.01 % and 1,000 %."""
    low, high = 1e-4, 10.0
    if not price(forward, strike, years, low, right) <= mid <= price(forward, strike, years, high, right):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        if price(forward, strike, years, middle, right) < mid:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def produce(run):
    quotes = run.input("Quotes").to_pydict()
    if not quotes["strike"]:
        raise ub.Declined("no quotes")
    forward, years = quotes["forward"][0], quotes["years"][0]
    if years <= 0:
        raise ub.Declined("expired")
    options = zip(quotes["strike"], quotes["mid"], quotes["right"])
    vols = [implied_vol(forward, strike, years, mid, right) for strike, mid, right in options]
    print("%d of %d have a volatility" % (sum(vol is not None for vol in vols), len(vols)))
    columns = {"strike": quotes["strike"], "right": quotes["right"], "vol": pa.array(vols, pa.float64())}
    return {"Vol": pa.table(columns)}


if __name__ == "__main__":
    ub.serve(produce)
