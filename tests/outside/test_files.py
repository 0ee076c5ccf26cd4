"""What is exported makes the same content in another gateway: every kind, every format, odd values, qualities."""

import json

import duckdb
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from mqtt import Client
from world import CHANNEL, EVERY_TYPE, OK, PARTIAL, USAGE, eventually

T0 = 1_388_534_400_000
ODD = f"""
kind: Model
name: odd
measurepoints:{EVERY_TYPE.replace("d: { type: double", "d: { type: double, quality: true").replace("l: { type: long", "l: { type: long, quality: true")}
events:
  leak: {{ level: warn, output: {{ text: {{ type: string }}, n: {{ type: long }} }} }}
  restart: {{}}
attributes:{EVERY_TYPE}
---
kind: Product
name: plant
key: plant1
model: odd
---
kind: Device
name: pump 7
product: plant
key: pump-7
---
kind: Device
name: pump 8
product: plant
key: pump:8
---
kind: Channel
name: {CHANNEL}
product: plant
""".replace("name: pump 7", "name: pump-7").replace("name: pump 8", "name: pump-8")
TEXTS = ["plain", 'with "quotes", commas; and\ttabs', "two\nlines\r\nand three", "风机 №5 ß \U0001f30a", "5", "true", "null",
         '"quoted"', '{"a":1}', "  blanks around  ", " ", "a\\b/c", "=1+1"]
WHOLE = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]


def points():
    """Rows that hold every type, and every odd value of it."""
    rows = [{"deviceKey": "pump-7", "time": T0 + at, "s": text} for at, text in enumerate(TEXTS)]
    rows += [{"deviceKey": "pump:8", "time": T0 + at, "l": number} for at, number in enumerate(WHOLE)]
    rows += [{"deviceKey": "pump:8", "time": T0 + 60_000 + at, "d": {"value": value, "quality": at}, "l": {"value": -(2**53) - 1 - at, "quality": 9 - at}}
             for at, value in enumerate([0.1, -1e-300, 7.119999900000001, 1.7976931348623157e308])]
    rows += [{"deviceKey": "pump-7", "time": 1, "f": 0.1, "i": -(2**31), "b": False, "e": 1, "es": "MANUAL", "t": T0,
              "day": "2014-03-30 02:30:00", "a": [1, -2], "pos": {"x": 1.5, "y": 2}, "m": {"k\"": [1, {"z": None}], "ü": "\n"}},
             {"deviceKey": "pump-7", "time": T0 + 999, "b": True, "e": 0, "es": "AUTO", "i": 2**31 - 1, "d": 3, "a": [], "m": {}}]
    return rows


EVENTS = [{"deviceKey": "pump-7", "time": T0 + at, "events": {"leak": {"text": text, "n": 2**53 + 1}}} for at, text in enumerate(TEXTS)] + \
         [{"deviceKey": "pump-7", "time": T0, "events": {"leak": {"text": "another at once", "n": 1}}},
          {"deviceKey": "pump:8", "time": T0, "events": {"restart": {}}}]
ATTRIBUTES = [{"deviceKey": "pump-7", "attributes": {"s": text}} for text in TEXTS] + \
             [{"deviceKey": "pump:8", "attributes": {"l": number}} for number in WHOLE] + \
             [{"deviceKey": "pump:8", "attributes": {"d": 0.1, "f": 0.1, "i": 5, "b": True, "s": "5", "e": 1, "es": "MANUAL", "t": T0,
                                                     "day": "2014-03-30 02:30:00", "a": [1, 2], "pos": {"x": 1.0, "y": 2}, "m": {"a": {}}}}]


@pytest.fixture
def plant(gateways):
    gateway = gateways(folder="plant").start()
    gateway.apply(ODD)
    return gateway


@pytest.fixture
def other(gateways):
    gateway = gateways(folder="other").start()
    gateway.apply(ODD)
    return gateway


def fill(gateway):
    file = gateway.folder / "points.ndjson"
    file.write_text("".join(json.dumps(row) + "\n" for row in points()))
    _, sent = gateway.send(file)
    assert sent["rejected"] == 0
    client = Client(gateway.mqtt_address, gateway.channel()).connect()
    # One after the other: the order of attributes is their history.
    for kind, items in (("event", EVENTS), *(("attribute", [item]) for item in ATTRIBUTES)):
        message = {"id": "1", "version": "1.0", "method": f"integration.{kind}.post", "params": items}
        reply = client.ask(json.dumps(message).encode(), topic=f"/sys/plant1/integration/{kind}/post")
        assert reply["code"] == 200, reply
    client.close()


def of_points(gateway):
    lines = gateway.http("GET", "/api/v1/points?product=plant&quality=true&format=ndjson").content.decode().splitlines()
    return sorted(lines)


def of_events(gateway):
    rows = gateway.cli("query", "--product", "plant", "--events", "-o", "ndjson").ndjson()
    return sorted((row["deviceKey"], row["time"], row["event"], json.dumps(row["output"])) for row in rows)


def of_attributes(gateway):
    rows = gateway.cli("query", "--product", "plant", "--attributes", "--history", "-o", "ndjson").ndjson()
    return [(row["deviceKey"], row["attribute"], json.dumps(row["value"])) for row in rows]


def carried(plant, other, name, options, back, content, upload):
    """Exports from one gateway into a file, and takes the file into the other one."""
    file = plant.folder / name
    plant.cli("export", file, "--product", "plant", *options)
    assert not file.with_name(name + ".part").exists()
    if upload:
        done = other.cli("import", "upload", file, "--channel", CHANNEL, "-o", "ndjson", *back).json()
        assert done["rows"]["rejected"] == 0
    else:
        _, sent = other.send(file, *back)
        assert sent["rejected"] == 0
    wanted = content(plant)
    assert wanted and content(other) == wanted


@pytest.mark.parametrize("long", [[], ["--long"]], ids=["wide", "long"])
@pytest.mark.parametrize("name", ["a.csv", "a.ndjson.gz", "a.parquet"])
def test_exported_points_make_the_same_history_qualities_included(plant, other, name, long):
    fill(plant)
    carried(plant, other, name, ["--quality", *long], long, of_points, upload=bool(long))


@pytest.mark.parametrize("name", ["a.csv.zst", "a.ndjson", "a.parquet"])
def test_exported_events_and_attributes_make_the_same_ones(plant, other, name):
    fill(plant)
    carried(plant, other, "events-" + name, ["--events"], ["--events"], of_events, upload=True)
    carried(plant, other, "attributes-" + name, ["--attributes", "--history"], ["--attributes"], of_attributes, upload=False)
    # The other way in: the same again changes nothing.
    other.send(plant.folder / ("events-" + name), "--events")
    other.cli("import", "upload", plant.folder / ("attributes-" + name), "--channel", CHANNEL, "--attributes")
    assert of_events(other) == of_events(plant)


def test_an_empty_text_is_kept_where_the_format_can_say_it(plant, other):
    file = plant.folder / "empty.ndjson"
    file.write_text(json.dumps({"deviceKey": "pump-7", "time": T0, "s": "", "i": 1}) + "\n")
    plant.send(file)
    carried(plant, other, "empty.parquet", [], [], of_points, upload=False)
    assert json.loads(of_points(other)[0])["s"] == ""


def test_an_export_has_what_was_asked_for(plant):
    fill(plant)

    def exported(name, *options):
        file = plant.folder / name
        plant.cli("export", file, "--product", "plant", *options)
        return file

    events = exported("some.ndjson", "--events", "--device", "pump-7", "--event", "leak", "--from", str(T0 + 1), "--to", str(T0 + 3))
    assert [json.loads(line)["time"] for line in events.read_text().splitlines()] == [T0 + 1, T0 + 2]
    current = pandas.read_parquet(exported("current.parquet", "--attributes", "--device", "pump-7"))
    assert list(current["value"]) == [TEXTS[-1]] and str(current["confirmed"].dtype).endswith("UTC]")
    [(count,)] = duckdb.sql(f"SELECT count(*) FROM '{exported('all.parquet', '--events')}' WHERE event = 'leak'").fetchall()
    assert count == len(TEXTS) + 1
    stream = pyarrow.ipc.open_stream(exported("all.arrows", "--events").read_bytes()).read_all()
    assert stream.column_names == ["deviceKey", "time", "event", "output", "channel", "arrived", "receipt"]
    assert len(stream) == len(TEXTS) + 2
    nothing = pandas.read_parquet(exported("none.parquet", "--events", "--from", "2030-01-01T00:00:00Z"))
    assert len(nothing) == 0 and "output" in nothing.columns
    wrong = plant.run("export", plant.folder / "a.csv", "--product", "plant", "--events", "--points", "d")
    assert wrong.code == USAGE and not (plant.folder / "a.csv").exists()


def test_latest_values_are_the_same_in_every_format(plant):
    fill(plant)
    asked = "/api/v1/latest?product=plant&points=d,l,i,b"
    wanted = {(item["deviceKey"], point, at["time"], at["value"], at.get("quality"))
              for item in plant.http("GET", asked).json()["items"] for point, at in item["points"].items()}
    assert len(wanted) == 5
    lines = plant.http("GET", f"{asked}&format=ndjson").content.decode().splitlines()
    assert {(row["deviceKey"], row["point"], row["time"], row["value"], row.get("quality")) for row in map(json.loads, lines)} == wanted
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(plant.http("GET", f"{asked}&format=parquet").content))
    assert {(row["deviceKey"], row["point"], round(row["time"].timestamp() * 1000), json.loads(row["value"]), row["quality"])
            for row in table.to_pylist()} == wanted
    assert plant.http("GET", f"{asked}&format=csv").text.count("\n") == 1 + len(wanted)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_an_archive_of_attributes_can_be_sent_to_another_gateway(plant, other, format):
    fill(plant)
    plant.apply(f"kind: Archive\nname: said\nof: attributes\nformat: {format}\nto: {{ folder: said }}\n")
    plant.cli("archive", "run", "said", "--wait")
    [file] = (plant.data_dir / "archive/said").rglob(f"*.{format}")
    other.send(file, "--attributes")
    assert of_attributes(other) == of_attributes(plant)


@pytest.mark.parametrize("name", ["nan.csv", "nan.parquet"])
def test_what_is_no_number_is_refused_and_kept(plant, name):
    file = plant.folder / name
    if name.endswith("csv"):
        file.write_text(f"deviceKey,time,d\npump-7,{T0},NaN\npump-7,{T0 + 1},1.5\n")
    else:
        table = pyarrow.table({"deviceKey": ["pump-7", "pump-7"], "time": [T0, T0 + 1], "d": pyarrow.array([float("nan"), 1.5])})
        pyarrow.parquet.write_table(table, file)
    done = plant.cli("import", "upload", file, "--channel", CHANNEL, "-o", "ndjson", code=PARTIAL).json()
    assert (done["rows"]["stored"], done["rows"]["rejected"]) == (1, 1)
    assert "row 1: " in plant.cli("quarantine", "ls", "--client", done["clientId"], "-o", "ndjson").out


def test_a_row_of_events_that_fits_nothing_is_in_quarantine_with_its_number(plant):
    file = plant.folder / "odd.csv"
    file.write_text(f"deviceKey,time,event,output\npump-7,{T0},restart,{{}}\npump-7,{T0},flood,{{}}\npump-7,{T0},leak,not JSON\n")
    done = plant.cli("import", "upload", file, "--channel", CHANNEL, "--events", "-o", "ndjson", code=PARTIAL).json()
    assert (done["rows"]["stored"], done["rows"]["rejected"]) == (1, 2)
    shown = plant.http("GET", f"/api/v1/imports/{done['id']}").json()
    assert "repeated" not in shown and "conflicts" not in shown
    reasons = plant.cli("quarantine", "ls", "--client", done["clientId"], "-o", "ndjson").out
    assert "row 2: " in reasons and "row 3: " in reasons


ROWS = [f"R80711,{T0 + at * 600_000},{at}.5,{at}" for at in range(200)]


def written(farm, rows):
    file = farm.folder / "some.csv"
    file.write_text("deviceKey,time,P_avg,Ws_avg\n" + "\n".join(rows) + "\n")
    return file


def changed():
    """Fifty values are others, two are new, the rest was there."""
    rows = [f"R80711,{T0 + at * 600_000},{at}.75,{at}" for at in range(50)] + ROWS[50:]
    return [*rows, f"R80711,{T0 + 999 * 600_000},1.5,2"]


def test_an_import_counts_its_conflicts_and_lists_just_those(farm):
    def imported(rows):
        done = farm.cli("import", "upload", written(farm, rows), "--channel", CHANNEL, "-o", "ndjson").json()
        farm.compact()
        return farm.http("GET", f"/api/v1/imports/{done['id']}").json()

    first, second = imported(ROWS), imported(changed())
    assert first["conflicts"] == {"values": 0, "complete": True}
    assert second["conflicts"] == {"values": 50, "complete": True}
    assert second["repeated"] == {"values": 350, "complete": True}
    # A later message overwrites some of it: those conflicts are not the import's.
    farm.send(written(farm, [row.replace(".75,", ".25,") for row in changed()[:10]]))
    farm.compact()
    of_second = farm.conflicts("--import", second["id"])
    assert len(of_second) == 50 and len(farm.conflicts()) == 60 and farm.conflicts("--import", first["id"]) == []
    listed = farm.http("GET", f"/api/v1/conflicts?import={second['id']}&limit=20").json()
    assert listed["total"] == 50 and len(listed["items"]) == 20 and {item["kept"] for item in listed["items"]} <= {at + 0.75 for at in range(50)}
    rest = farm.http("GET", f"/api/v1/conflicts?import={second['id']}&limit=100&cursor={listed['next']}").json()
    assert len(rest["items"]) == 30
    rows = farm.http("GET", f"/api/v1/conflicts?import={second['id']}&by=row").json()
    assert rows["total"] == 50
    shown = farm.cli("import", "show", second["id"])
    assert f"conflicts --import {second['id']}" in shown.err and "50" in shown.out
    assert farm.http("GET", "/api/v1/conflicts?import=99").status_code == 404
    assert farm.http("GET", f"/api/v1/conflicts?import={second['id']}&client=x").status_code == 400


def compared(farm, begun):
    """Waits for a command that waits until all is compared; makes the store do so at once."""
    def ended():
        farm.compact()
        return begun.poll() is not None

    eventually(ended, "everything is compared", within_s=120)
    out, err = begun.communicate()
    assert begun.returncode == OK, err
    return json.loads(out), err


def test_send_tells_what_was_new_repeated_and_in_conflict(farm):
    def sent(rows, *options):
        return compared(farm, farm.spawn("send", written(farm, rows), "--channel", CHANNEL, "--compare", "-o", "json", *options))

    first, _ = sent(ROWS, "--connections", "3")
    assert first["compared"] == {"new": 400, "repeated": 0, "conflicts": 0, "complete": True}
    again, talk = sent(changed())
    assert again["compared"] == {"new": 2, "repeated": 350, "conflicts": 50, "complete": True}
    assert "2 are new, 350 were there already, 50 were other than what stood there" in talk
    # Asked later, by what the messages are called.
    begin = again["messagesBegin"]
    of_run = farm.cli("compare", "--messages", begin, "-o", "ndjson").json()
    assert (of_run["repeated"], of_run["conflicts"], of_run["complete"]) == (350, 50, True)
    assert len(farm.conflicts("--messages", begin)) == 50
    assert farm.conflicts("--messages", first["messagesBegin"]) == []


def test_send_gives_no_number_that_it_does_not_know(farm):
    # One is refused: how many of the message's values were stored is not known to the sender.
    _, sent = farm.send(written(farm, [*ROWS[:3], f"R99999,{T0},1,1"]), "--batch", "1", code=PARTIAL)
    assert "new" not in sent["compared"]
    # Without the API there is the way to ask.
    strings = farm.channel()
    run = farm.cli("send", written(farm, ROWS[:3]), "--broker-url", strings.brokerUrl, "--client-id", strings.clientId,
                   "--username", strings.username, "--password", strings.password, "-o", "json")
    assert "compared" not in run.json() and f"backtide compare --messages {run.json()['messagesBegin']}" in run.err
