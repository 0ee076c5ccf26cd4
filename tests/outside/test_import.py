"""Files that are uploaded: the same pipeline as messages, every form, breaks of every kind."""

import io
import json
import socket

import pandas
import pytest
import zstandard

from world import CHANNEL, CSV_COLUMNS, FAILED, FARM, OK, PARTIAL, SAMPLE, TURBINES, USAGE, eventually

T0 = 1_388_534_400_000
WIDE = "deviceKey,time,P_avg,Ws_avg,Ws_avg.quality\n" \
       f"R80711,{T0},1.5,2.5,3\nR80721,2014-01-01T01:00:00+01:00,3.5,,\n"
CELLS = {("R80711", T0, "P_avg"): 1.5, ("R80711", T0, "Ws_avg"): 2.5, ("R80721", T0, "P_avg"): 3.5}


def upload(gateway, name, content, *options, code=OK):
    path = gateway.folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = gateway.cli("import", "upload", path, "--channel", CHANNEL, "-o", "ndjson", *options, code=code)
    return json.loads(done.out) if code in (OK, PARTIAL) else done


def frame():
    return pandas.read_csv(io.StringIO(WIDE), dtype={"time": str})


def wide_parquet():
    table = frame()
    table["time"] = pandas.to_datetime([T0, T0], unit="ms", utc=True)
    table["Ws_avg.quality"] = table["Ws_avg.quality"].astype("Int64")
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


def long_rows():
    return pandas.DataFrame([("R80711", T0, "P_avg", 1.5, None), ("R80711", T0, "Ws_avg", 2.5, 3),
                             ("R80721", T0, "P_avg", 3.5, None)], columns=["deviceKey", "time", "point", "value", "quality"])


def long_parquet():
    table = long_rows()
    table["quality"] = table["quality"].astype("Int64")
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


FORMS = {
    "wide.csv": (lambda: WIDE, []),
    "wide.csv.zst": (lambda: zstandard.compress(WIDE.encode()), []),
    "wide.parquet": (wide_parquet, []),
    "wide.ndjson": (lambda: f'{{"deviceKey":"R80711","time":{T0},"P_avg":1.5,"Ws_avg":{{"value":2.5,"quality":3}}}}\n'
                            f'{{"deviceKey":"R80721","time":{T0},"P_avg":3.5}}\n', []),
    "long.csv": (lambda: long_rows().to_csv(index=False), ["--long"]),
    "long.parquet": (long_parquet, ["--long"]),
    "long.ndjson": (lambda: "".join(json.dumps({k: v for k, v in row.items() if v == v}) + "\n"
                                    for row in long_rows().to_dict("records")), ["--long"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_makes_the_same_values_uploaded_and_sent(farm, gateways, name):
    make, options = FORMS[name]
    farm.apply(FARM.read_text().replace("Ws_avg: { type: double,", "Ws_avg: { type: double, quality: true,"))
    done = upload(farm, name, make(), *options)
    assert done["state"] == "complete" and done["rows"]["rejected"] == 0
    assert farm.cells() == CELLS
    quality = farm.http("GET", "/api/v1/points?device=R80711&quality=true").json()["items"][0]["Ws_avg"]
    assert quality == {"value": 2.5, "quality": 3}
    # The same file over MQTT is the same values: nothing is stored twice, and none of them is in conflict.
    farm.send(farm.folder / name, *options)
    assert farm.cells() == CELLS
    assert farm.conflicts() == []


def test_real_history_uploaded_equals_the_same_history_sent(farm, gateways):
    done = upload(farm, SAMPLE.name, SAMPLE.read_bytes(), *CSV_COLUMNS)
    other = gateways(folder="other").start()
    other.apply(FARM)
    _, sent = other.send(SAMPLE, *CSV_COLUMNS)
    assert done["rows"]["stored"] == sent["rows"]
    assert farm.cells() == other.cells()


def test_a_bad_row_is_in_quarantine_with_its_number_and_can_be_driven_again(farm):
    text = f"deviceKey,time,P_avg\nR80711,{T0},1\nstranger,{T0},2\nR80711,noon,3\nR80711,{T0 + 1},4,5\n"
    done = upload(farm, "bad.csv", text, code=PARTIAL)
    assert (done["rows"]["stored"], done["rows"]["rejected"]) == (1, 3)
    listed = farm.cli("quarantine", "ls", "--client", done["clientId"], "-o", "json").json()
    reasons = sorted(item["message"] for entry in listed for item in entry["rejected"])
    assert [reason.split(":")[0] for reason in reasons] == ["row 2", "row 3", "row 4"], reasons
    farm.apply("kind: Device\nname: stranger\nproduct: wind-farm\nkey: stranger\n")
    farm.cli("quarantine", "redrive", "--device", "stranger")
    eventually(lambda: ("stranger", T0, "P_avg") in farm.cells(devices=(*TURBINES, "stranger")), "the row is stored")


def test_a_client_that_breaks_off_has_stored_what_is_answered_and_sends_again(farm):
    rows = [f"R80711,{T0 + n * 1000},{n}\n" for n in range(20_000)]
    text = "deviceKey,time,P_avg\n" + "".join(rows)
    host, port = farm.addresses["http"].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as link:
        head = (f"POST /api/v1/imports?channel={CHANNEL}&file=cut.csv HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {farm.token}\r\nContent-Length: {len(text)}\r\n\r\n")
        link.sendall(head.encode() + text[:300_000].encode())
        eventually(lambda: farm.http("GET", "/api/v1/imports/1").json().get("state") == "running", "it runs")
    eventually(lambda: farm.http("GET", "/api/v1/imports/1").json()["state"] == "interrupted", "the break is seen")
    cut = farm.http("GET", "/api/v1/imports/1").json()
    assert 0 < cut["rows"]["stored"] < 20_000
    assert len(farm.cells()) == cut["rows"]["stored"]
    assert upload(farm, "cut.csv", text)["rows"]["stored"] == 20_000
    assert farm.cells() == {("R80711", T0 + n * 1000, "P_avg"): float(n) for n in range(20_000)}
    assert farm.conflicts() == []


def test_kill_9_in_an_import_keeps_what_it_counts_and_the_same_file_completes_it(farm):
    rows = [f"R80711,{T0 + n * 1000},{n}\n" for n in range(200_000)]
    path = farm.folder / "long.csv"
    path.write_text("deviceKey,time,P_avg\n" + "".join(rows))
    sender = farm.spawn("import", "upload", path, "--channel", CHANNEL)
    eventually(lambda: farm.cells() != {}, "some of it is stored")
    farm.kill()
    sender.wait(timeout=60)
    farm.start()
    found = farm.http("GET", "/api/v1/imports/1").json()
    if found["state"] != "complete":
        assert found["state"] == "interrupted"
    assert len(farm.cells()) >= found["rows"]["stored"], "what is counted as stored is stored"
    answered = found["rows"]["answered"]
    done = json.loads(farm.cli("import", "upload", path, "--channel", CHANNEL, "--skip-rows", answered, "-o", "ndjson").out)
    assert done["rows"]["stored"] == 200_000 - answered
    assert len(farm.cells()) == 200_000


def test_a_quota_slows_an_import_and_loses_nothing(farm):
    farm.apply("kind: Channel\nname: scada-history\nproduct: wind-farm\nmode: strict\nquotas: { pointsPerSecond: 2000 }\n")
    text = "deviceKey,time,P_avg\n" + "".join(f"R80711,{T0 + n * 1000},{n}\n" for n in range(6_000))
    done = upload(farm, "quota.csv", text)
    assert done["rows"]["stored"] == 6_000
    assert done["ended"] - done["began"] >= 1_500


def test_what_makes_no_sense_is_told_with_the_way_to_mend_it(farm):
    wrong = upload(farm, "a.csv", "turbine,time,P_avg\nR80711,0,1\n", code=FAILED)
    assert "deviceKey" in wrong.err and "turbine" in wrong.err
    missing = farm.run("import", "upload", farm.folder / "none.csv", "--channel", CHANNEL)
    assert missing.code == FAILED
    unknown = upload(farm, "a.xlsx", "x", code=FAILED)
    assert ".csv" in unknown.err
    assert farm.run("import", "upload", farm.folder / "a.csv", "--channel", CHANNEL, "--map", "nonsense").code == USAGE


def test_an_import_says_how_much_of_it_was_there_already(farm):
    file = farm.folder / "again.csv"
    rows = [f"R80711,{1388534400000 + at * 600_000},{at}.5,{at}" for at in range(200)]
    file.write_text("deviceKey,time,P_avg,Ws_avg\n" + "\n".join(rows) + "\n")

    def imported():
        upload = farm.cli("import", "upload", file, "--channel", CHANNEL, "-o", "ndjson").json()
        farm.compact()
        return farm.http("GET", f"/api/v1/imports/{upload['id']}").json()

    first = imported()
    assert first["rows"]["values"] == 400 and first["repeated"] == {"values": 0, "complete": True}
    # Half of it is sent over another way too: what came by others is not counted.
    farm.send(file)
    farm.compact()
    again = imported()
    assert again["rows"]["stored"] == 200 and again["repeated"] == {"values": 400, "complete": True}
    # Some values are others, some are new: neither was there.
    rows[:50] = [f"R80711,{1388534400000 + at * 600_000},{at}.75,{at}" for at in range(50)]
    rows.append(f"R80711,{1388534400000 + 999 * 600_000},1.5,2")
    file.write_text("deviceKey,time,P_avg,Ws_avg\n" + "\n".join(rows) + "\n")
    changed = imported()
    assert changed["rows"]["values"] == 402 and changed["repeated"] == {"values": 350, "complete": True}
    assert farm.http("GET", "/api/v1/conflicts").json()["total"] == 50
    # The first one is what it was, and the command line says so too.
    assert farm.http("GET", f"/api/v1/imports/{first['id']}").json()["repeated"] == {"values": 0, "complete": True}
    shown = farm.cli("import", "show", changed["id"], "-o", "csv").out.splitlines()
    assert dict(zip(shown[0].split(","), shown[1].split(",")))["repeated"] == "350"
