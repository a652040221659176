"""A daemon in Python: a random walk, one cell of slot Walk each step, which goes on where it was when it starts again.

usage: random_walk.py STEPS [SECONDS_BETWEEN]
"""

import datetime
import random
import sys
import time

import pyarrow as pa
import underbelly_worker as ub

steps, between = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
first = datetime.datetime(2024, 1, 2, 9, 30)
daemon = ub.Daemon()


def walk(number):
    """The walk after so many steps, the same each time."""
    chance = random.Random(7)
    return sum(chance.choice((-0.01, 0.01)) for _ in range(number))


for number in range((daemon.last or 0) + 1, steps + 1):
    rows = pa.table({"level": [100.0 + walk(number)]})
    daemon.commit(number, [("Walk", first + datetime.timedelta(minutes=number), {}, rows)])
    time.sleep(between)
daemon.close()
