"""What must come out of the real data: computed by pandas and DuckDB over the CSV, never by our code."""

import functools
import io
import random
import subprocess

import duckdb
import numpy
import pandas
import zstandard

from world import POINTS

KEY = ["deviceKey", "time"]
COLUMNS = [*KEY, *POINTS]


def read_history(text):
    """The SCADA file as rows in file order: deviceKey, time in ms, points; doubles exact."""
    rows = pandas.read_csv(io.StringIO(text))
    times = pandas.to_datetime(rows["Date_time"], utc=True).dt.as_unit("ms").astype("int64")
    rows = rows.rename(columns={"Wind_turbine_name": "deviceKey", "Date_time": "time"}).assign(time=times)
    return rows[COLUMNS]


def read_query_csv(text):
    """What `query -o csv` printed, in its order."""
    rows = pandas.read_csv(io.StringIO(text), dtype={point: "float64" for point in POINTS})
    assert list(rows.columns) == COLUMNS, f"header is {list(rows.columns)}"
    return rows.assign(time=pandas.to_datetime(rows["time"], utc=True).dt.as_unit("ms").astype("int64"))


def read_query_ndjson(text):
    rows = pandas.read_json(io.StringIO(text), lines=True, precise_float=True, dtype=False)
    return rows.reindex(columns=COLUMNS)


def winners(*passes):
    """The value of every identity after these rows were committed in this order: the last one that is there, by cell."""
    rows = pandas.concat(passes, ignore_index=True).dropna(how="all", subset=POINTS)
    return rows.groupby(KEY, sort=True)[POINTS].last().reset_index()


def winners_by_sql(rows):
    """The same by another engine: it guards the comparison itself."""
    numbered = rows.assign(place=numpy.arange(len(rows)))
    last = ", ".join(f"arg_max({point}, place) FILTER (WHERE {point} IS NOT NULL AND NOT isnan({point})) AS {point}"
                     for point in POINTS)
    some = " OR ".join(f"{point} IS NOT NULL" for point in POINTS)
    with duckdb.connect() as engine:
        engine.register("numbered", numbered)
        return engine.sql(f"SELECT * FROM (SELECT deviceKey, time, {last} FROM numbered GROUP BY ALL) WHERE {some} "
                          "ORDER BY deviceKey, time").df()


def doubled(rows):
    """The rows of those (turbine, time) that stand more than once."""
    return rows[rows.duplicated(KEY, keep=False)]


def changes(rows):
    """Every change of a value when these rows are committed in this order: (device, time, point, overwritten, kept)."""
    current, found = {}, []
    for row in rows.itertuples(index=False):
        for point in POINTS:
            value = getattr(row, point)
            if value != value:
                continue
            identity = (row.deviceKey, row.time, point)
            before = current.get(identity)
            if before is not None and before != value:
                found.append((*identity, before, value))
            current[identity] = value
    return sorted(found)


def difference(expected, found):
    """Empty when both hold the same rows with bit for bit the same values, else what differs first."""
    expected = expected.sort_values(KEY, ignore_index=True)
    found = found.sort_values(KEY, ignore_index=True)
    twice = found[found.duplicated(KEY)]
    if len(twice):
        return f"{len(twice)} rows stand twice, such as\n{twice.head(3)}"
    left, right = pandas.MultiIndex.from_frame(expected[KEY]), pandas.MultiIndex.from_frame(found[KEY])
    if not left.equals(right):
        missing, extra = left.difference(right), right.difference(left)
        return f"{len(missing)} rows missing {list(missing[:3])}, {len(extra)} rows too many {list(extra[:3])}"
    wrong = bits(expected) != bits(found)
    if wrong.any():
        row, column = numpy.argwhere(wrong)[0]
        return (f"{wrong.sum()} values differ, such as {POINTS[column]} of {tuple(expected.loc[row, KEY])}: "
                f"wanted {expected[POINTS[column]][row]!r}, found {found[POINTS[column]][row]!r}")
    return ""


def bits(rows):
    """Doubles as integers, every absent value alike."""
    values = rows[POINTS].to_numpy(dtype="float64")
    return numpy.where(numpy.isnan(values), numpy.int64(0x7FF8 << 48), values.view("int64"))


class History:
    """The two years of the La Haute Borne wind farm."""

    def __init__(self, path):
        self.path = path

    @functools.cached_property
    def text(self):
        with open(self.path, "rb") as compressed:
            return zstandard.ZstdDecompressor().stream_reader(compressed).read().decode()

    @functools.cached_property
    def rows(self):
        return read_history(self.text)

    def lines(self):
        header, *lines = self.text.splitlines(keepends=True)
        return header, lines

    def write_shuffled(self, path, seed):
        """The same lines in another order; returns them as rows."""
        header, lines = self.lines()
        random.Random(seed).shuffle(lines)
        text = header + "".join(lines)
        path.write_text(text)
        return read_history(text)

    def write_part(self, path, first_day, last_day):
        """The rows of these local days, in file order; returns them as rows."""
        header, lines = self.lines()
        text = header + "".join(line for line in lines if first_day <= line.split(",", 2)[1][:10] <= last_day)
        path.write_text(text)
        return read_history(text)


def compressed_with_zstd(path):
    out = path.with_name(path.name + ".zst")
    subprocess.run(["zstd", "-q", "-f", str(path), "-o", str(out)], check=True)
    return out
