"""`backtide send`, the reference sender: every file form, refusals, and what an interrupted run leaves."""

import csv
import gzip
import io
import json
import signal
from datetime import datetime

import pytest

import truth
from world import CHANNEL, CSV_COLUMNS, FAILED, OK, PARTIAL, POINTS, SAMPLE, USAGE, eventually

HEADER = "Wind_turbine_name,Date_time,P_avg,Ws_avg\n"
GOOD = HEADER + "R80711,2014-01-01T01:00:00+01:00,1.5,2.5\nR80721,2014-01-01T01:00:00+01:00,3.5,\n"
T0 = 1_388_534_400_000
GOOD_CELLS = {("R80711", T0, "P_avg"): 1.5, ("R80711", T0, "Ws_avg"): 2.5, ("R80721", T0, "P_avg"): 3.5}
LENIENT = "kind: Channel\nname: lenient-history\nproduct: wind-farm\nmode: lenient\n"


def written(gateway, name, content):
    path = gateway.folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_ndjson(text):
    rows = csv.DictReader(io.StringIO(text))
    return "".join(json.dumps({"deviceKey": row.pop("Wind_turbine_name"), "time": row.pop("Date_time"),
                               **{point: float(cell) for point, cell in row.items() if cell}}) + "\n" for row in rows)


def test_a_csv_file_is_sent_and_counted(farm):
    _, sent = farm.send(written(farm, "good.csv", GOOD), *CSV_COLUMNS)
    assert (sent["rows"], sent["values"], sent["rejected"]) == (2, 3, 0)
    assert farm.cells() == GOOD_CELLS


def test_gz_and_zst_files_are_sent_as_they_are(farm):
    plain = written(farm, "one.csv", GOOD)
    farm.send(truth.compressed_with_zstd(plain), *CSV_COLUMNS)
    assert farm.cells() == GOOD_CELLS
    _, sent = farm.send(written(farm, "two.csv.gz", gzip.compress(GOOD.replace("1.5", "9.5").encode())), *CSV_COLUMNS)
    assert sent["values"] == 3
    assert farm.cells() == {**GOOD_CELLS, ("R80711", T0, "P_avg"): 9.5}


def test_ndjson_is_sent_with_iso_times_and_with_milliseconds(farm):
    farm.send(written(farm, "iso.ndjson", as_ndjson(GOOD)))
    assert farm.cells() == GOOD_CELLS
    farm.send(written(farm, "ms.ndjson", json.dumps({"deviceKey": "R80790", "time": T0, "P_avg": 1.0}) + "\n"))
    assert farm.cells() == {**GOOD_CELLS, ("R80790", T0, "P_avg"): 1.0}


def test_what_query_prints_as_ndjson_can_be_sent_again(farm, gateways):
    farm.send(written(farm, "good.csv", GOOD), *CSV_COLUMNS)
    other = gateways(folder="other").start()
    other.apply(farm_objects(farm))
    other.send(written(other, "back.ndjson", farm.query().out))
    assert other.cells() == GOOD_CELLS


def farm_objects(gateway):
    return json.dumps(gateway.cli("get", "model", "turbine", "-o", "json").json()) + "\n---\n" + "\n---\n".join(
        json.dumps(o) for kind in ("product", "device", "channel") for o in gateway.cli("get", kind, "-o", "json").json())


def test_local_times_are_read_in_the_zone_that_is_named(farm):
    local = HEADER + "R80711,2014-07-01 12:00:00,1.0,\nR80711,2014-01-01 12:00:00,2.0,\n"
    farm.send(written(farm, "local.csv", local), *CSV_COLUMNS, "--timezone", "Europe/Paris")
    summer = int(datetime.fromisoformat("2014-07-01T12:00:00+02:00").timestamp() * 1000)
    winter = int(datetime.fromisoformat("2014-01-01T12:00:00+01:00").timestamp() * 1000)
    assert farm.cells() == {("R80711", summer, "P_avg"): 1.0, ("R80711", winter, "P_avg"): 2.0}


def test_a_local_time_without_a_zone_is_not_guessed(farm):
    local = HEADER + "R80711,2014-07-01 12:00:00,1.0,\n"
    run = farm.run("send", written(farm, "local.csv", local), "--channel", CHANNEL, *CSV_COLUMNS)
    assert run.code != OK and "timezone" in run.err, run
    assert farm.cells() == {}


def test_columns_are_renamed_and_dropped(farm):
    text = "turbine,at,power,comment\nR80711,1388534400000,1.5,good day\n"
    farm.send(written(farm, "other.csv", text), "--device-column", "turbine", "--time-column", "at",
              "--map", "power=P_avg", "--drop", "comment")
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5}


def test_a_dry_run_counts_and_sends_nothing(farm):
    _, sent = farm.send(SAMPLE, *CSV_COLUMNS, "--dry-run")
    assert (sent["rows"], sent["values"]) == (9_791, 68_537)
    assert farm.cells() == {}
    assert not [e for e in farm.channel_log() if e.kind == "transmission"]


def test_refused_rows_end_with_2_say_where_to_see_them_and_leave_the_good_ones_stored(farm):
    farm.apply(LENIENT)
    bad = GOOD + "nobody,2014-01-01T01:00:00+01:00,1.0,1.0\nR80790,2014-01-01T01:00:00+01:00,4.5,\n"
    run, sent = farm.send(written(farm, "bad.csv", bad), *CSV_COLUMNS, channel="lenient-history", code=PARTIAL)
    assert "backtide quarantine ls" in run.err, run
    assert sent["rejected"] == 1
    assert farm.cells() == {**GOOD_CELLS, ("R80790", T0, "P_avg"): 4.5}
    assert [e.code for e in farm.quarantine("lenient-history")] == [1257]


def test_a_strict_channel_refuses_the_whole_message_and_send_ends_with_2(farm):
    bad = GOOD + "nobody,2014-01-01T01:00:00+01:00,1.0,1.0\n"
    run, sent = farm.send(written(farm, "bad.csv", bad), *CSV_COLUMNS, code=PARTIAL)
    assert "backtide quarantine ls" in run.err and sent["rejected"] >= 1, run
    assert [e.code for e in farm.quarantine()] == [1257]


@pytest.mark.parametrize("options, named", [
    (["--device-column", "nope", "--time-column", "Date_time"], "nope"),
    (["--device-column", "Wind_turbine_name", "--time-column", "nope"], "nope"),
    ([*CSV_COLUMNS, "--timezone", "Mars/Olympus"], "Mars/Olympus"),
    ([*CSV_COLUMNS, "--drop", "P_avg", "--drop", "Ws_avg"], "no column holds values"),
])
def test_a_wrong_mapping_is_a_usage_error_that_names_it(farm, options, named):
    run = farm.cli("send", written(farm, "good.csv", GOOD), "--channel", CHANNEL, *options, code=USAGE)
    assert named in run.err
    assert farm.cells() == {}


def test_an_unknown_channel_fails_and_is_named(farm):
    run = farm.run("send", written(farm, "good.csv", GOOD), "--channel", "nowhere", *CSV_COLUMNS)
    assert run.code in (USAGE, FAILED) and "nowhere" in run.err, run


def test_a_missing_file_is_a_usage_error(farm):
    assert "missing.csv" in farm.cli("send", farm.folder / "missing.csv", "--channel", CHANNEL, *CSV_COLUMNS, code=USAGE).err


def test_an_interrupted_send_resumes_and_ends_with_exactly_the_data(farm, history):
    part = farm.folder / "year.csv"
    rows = history.write_part(part, "2014-01-01", "2014-08-31")
    sender = farm.spawn("send", part, "--channel", CHANNEL, *CSV_COLUMNS)
    eventually(lambda: of_day(farm, "2014-01-01"), "first rows", every_s=0.01)
    sender.send_signal(signal.SIGINT)
    out, err = sender.communicate(timeout=30)
    assert sender.returncode != OK, err
    before = truth.read_query_csv(farm.query(output="csv").out)
    assert 0 < len(before) < len(truth.winners(rows)), "interrupted in the middle"

    run, sent = farm.send(part, *CSV_COLUMNS, "--resume")
    assert sent["rows"] < len(rows.dropna(how="all", subset=POINTS)), f"what was acknowledged is not sent again: {run}"
    assert truth.difference(truth.winners(rows), truth.read_query_csv(farm.query(output="csv").out)) == ""


def of_day(gateway, day):
    """What is there of a day; rows without a value come first in no file."""
    return gateway.query(points=["P_avg"], start=f"{day}T00:00:00Z", end=f"{day}T23:59:59Z").out


def test_a_send_outlives_a_server_that_is_killed_under_it_again_and_again(farm, history):
    part = farm.folder / "months.csv"
    rows = history.write_part(part, "2014-01-01", "2014-06-30")
    sender = farm.spawn("send", part, "--channel", CHANNEL, *CSV_COLUMNS)
    for day in ["2014-01-01", "2014-01-15", "2014-02-10", "2014-03-10", "2014-04-05"]:
        eventually(lambda: of_day(farm, day), f"rows of {day}", every_s=0.01)
        farm.kill()
        farm.start()
    out, err = sender.communicate(timeout=120)
    if sender.returncode != OK:  # giving up is allowed, losing is not
        farm.send(part, *CSV_COLUMNS, "--resume")
    assert truth.difference(truth.winners(rows), truth.read_query_csv(farm.query(output="csv").out)) == ""


def test_a_client_with_the_strings_of_the_channel_stays_connected_while_a_file_is_sent(farm, connect):
    client = connect()
    farm.send(written(farm, "good.csv", GOOD), *CSV_COLUMNS)
    farm.send(written(farm, "again.csv", GOOD), *CSV_COLUMNS, "--connections", "3")
    assert client.disconnects == [] and client.post(("R80790", T0, {"P_avg": 1.0}))["code"] == 200
