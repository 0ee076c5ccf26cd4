"""Two years of a real wind farm through the MQTT door: value for value what other engines compute from the file."""

import pandas

import truth
from world import CSV_COLUMNS, POINTS, SEED, TURBINES, Late, eventually

VALUES = 2_925_377


def everything(gateway):
    return truth.read_query_csv(gateway.query(output="csv", timeout_s=240).out)


def conflicts_become(gateway, expected, within_s=90):
    """Conflicts are classified after the answer, within a minute of quiet."""
    found = []

    def listed():
        found[:] = sorted(conflict.change for conflict in gateway.conflicts())
        return found == expected
    try:
        eventually(listed, "", within_s, every_s=1)
    except Late:
        missing, extra = pandas.Index(expected).difference(found), pandas.Index(found).difference(expected)
        raise AssertionError(f"{len(found)} conflicts listed, {len(expected)} are right; "
                             f"missing {list(missing[:3])}, too many {list(extra[:3])}") from None


def test_two_years_of_a_wind_farm_come_back_value_for_value_and_a_second_time_in_another_order(farm, history):
    expected = truth.winners(history.rows)
    doubled = truth.doubled(history.rows)

    run, sent = farm.send(history.path, *CSV_COLUMNS)
    assert (sent["rows"], sent["values"], sent["rejected"]) == (417_911, VALUES, 0), run
    found = everything(farm)
    assert truth.difference(expected, found) == ""
    assert found["time"].is_monotonic_increasing, "a query prints in time order"

    first = truth.changes(doubled)
    assert len(first) == 307
    conflicts_become(farm, first)
    listed = farm.conflicts()
    assert all(old and new for old, new in (conflict.receipts for conflict in listed)), "both receipts are named"
    of_one = [c for c in listed if c["deviceKey"] == "R80711"]
    assert sorted(c.change for c in farm.conflicts("--device", "R80711")) == sorted(c.change for c in of_one)
    assert sorted(c.change for c in farm.conflicts("--points", "P_avg")) == [c for c in first if c[2] == "P_avg"]
    assert sorted(c.change for c in farm.conflicts("--from", "2015-01-01T00:00:00Z")) == [
        c for c in first if c[1] >= 1_420_070_400_000]
    assert farm.quarantine() == []

    farm.compact()
    assert truth.difference(expected, everything(farm)) == "", "compaction changes no value"
    bytes_once = farm.segment_bytes()
    assert bytes_once / (VALUES - 336) < 2.2, f"{bytes_once / (VALUES - 336):.2f} bytes a value"

    shuffled_file = farm.folder / "shuffled.csv"
    shuffled = history.write_shuffled(shuffled_file, SEED)
    run, sent = farm.send(shuffled_file, *CSV_COLUMNS)
    assert (sent["values"], sent["rejected"]) == (VALUES, 0), run
    both = pandas.concat([doubled, truth.doubled(shuffled)])
    conflicts_become(farm, truth.changes(both))
    assert truth.difference(truth.winners(history.rows, shuffled), everything(farm)) == ""
    assert farm.quarantine() == []

    farm.compact()
    growth = farm.segment_bytes() / bytes_once - 1
    assert growth < 0.01, f"the same data again made the segments grow by {growth:.1%}"
    assert truth.difference(truth.winners(history.rows, shuffled), everything(farm)) == ""

    farm.kill()
    farm.start()
    assert truth.difference(truth.winners(history.rows, shuffled), everything(farm)) == "", "and after a kill -9"
    assert sorted(c.change for c in farm.conflicts()) == truth.changes(both)


def test_the_sample_reads_the_same_as_csv_and_as_ndjson_device_by_device(farm, history):
    part = farm.folder / "march.csv"
    rows = history.write_part(part, "2014-03-28", "2014-04-01")
    farm.send(part, *CSV_COLUMNS)
    expected = truth.winners(rows)
    for turbine in TURBINES:
        of_one = expected[expected["deviceKey"] == turbine]
        assert truth.difference(of_one, truth.read_query_ndjson(farm.query(devices=[turbine]).out)) == ""
        assert truth.difference(of_one, truth.read_query_csv(farm.query(devices=[turbine], output="csv").out)) == ""
    assert everything(farm)[POINTS].notna().sum().sum() == expected[POINTS].notna().sum().sum()
