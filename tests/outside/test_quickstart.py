"""The first ten minutes of a user: declare, look up the four strings, paste, publish, read back."""

import json

import pytest
import yaml

from world import (CHANNEL, FAILED, FARM, METHOD, OK, POINTS, PRODUCT_KEY, TOPIC, TURBINES, points_message)

T0 = 1_388_534_400_000  # 2014-01-01T00:00:00Z
OBJECTS = [("Model", "turbine"), ("Product", "wind-farm"), *[("Device", turbine) for turbine in TURBINES],
           ("Channel", CHANNEL)]


def test_serve_prints_one_line_of_addresses_and_ends_with_0_on_sigterm(gateway):
    assert gateway.mqtt_address[1] > 0
    assert gateway.addresses["http"].startswith("127.0.0.1:")
    gateway.terminate()


def test_the_first_start_writes_an_admin_token_that_only_its_owner_can_read(gateway):
    path = gateway.data_dir / "admin.token"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    gateway.restart()
    assert path.read_text() == before, "a restart keeps the token"


def test_the_command_line_finds_the_token_of_a_loopback_server_in_the_data_directory(gateway):
    (gateway.folder / "backtide-data").symlink_to(gateway.data_dir)
    environment = gateway.environment()
    del environment["BACKTIDE_TOKEN"]
    gateway.environment = lambda: environment
    assert gateway.cli("get", "model", "-o", "json").json() == []


def test_apply_creates_then_finds_everything_unchanged(gateway):
    assert gateway.apply_results(FARM) == dict.fromkeys(OBJECTS, "created")
    assert gateway.apply_results(FARM) == dict.fromkeys(OBJECTS, "unchanged")


def test_apply_says_what_changed_and_only_that(farm):
    text = FARM.read_text().replace("unit: kW", "unit: MW")
    assert farm.apply_results(text) == {**dict.fromkeys(OBJECTS, "unchanged"), ("Model", "turbine"): "changed"}
    assert farm.cli("get", "model", "turbine", "-o", "json").json()["measurepoints"]["P_avg"]["unit"] == "MW"


def test_a_dry_run_says_the_same_and_writes_nothing(gateway):
    assert gateway.apply_results(FARM, "--dry-run") == dict.fromkeys(OBJECTS, "created")
    assert gateway.cli("get", "model", "-o", "json").json() == []
    assert gateway.apply_results(FARM) == dict.fromkeys(OBJECTS, "created")


def test_apply_commits_all_documents_or_none(gateway):
    broken = FARM.read_text() + "---\nkind: Device\nname: stray\nproduct: no-such-product\nkey: stray\n"
    run = gateway.run("apply", "-f", "-", input=broken)
    assert run.code != OK and "stray" in run.err and "no-such-product" in run.err, run
    assert gateway.cli("get", "model", "-o", "json").json() == []


@pytest.mark.parametrize("wrong, named", [
    ("kind: Model\nname: m\nmeasurepoints: { p: { type: dubble } }\n", "dubble"),
    ("kind: Model\nname: m\nmeasurpoints: {}\n", "measurpoints"),
    ("kind: Modell\nname: m\n", "Modell"),
    ("kind: Model\nname: 'no spaces here'\n", "no spaces here"),
    ("kind: Model\n name: [unclosed\n", ""),
])
def test_apply_refuses_what_it_does_not_understand_and_names_it(gateway, wrong, named):
    run = gateway.run("apply", "-f", "-", input=wrong)
    assert run.code != OK and named in run.err, run


def test_apply_takes_json_and_standard_input(gateway):
    model = {"kind": "Model", "name": "meter", "measurepoints": {"flow": {"type": "double"}}}
    assert gateway.apply_results(json.dumps(model)) == {("Model", "meter"): "created"}


def test_get_gives_back_what_apply_takes(farm, gateways):
    objects = [farm.cli("get", kind.lower(), name, "-o", "json").json() for kind, name in OBJECTS]
    assert objects[0]["measurepoints"]["Ot_avg"]["unit"] == "°C"
    other = gateways(folder="other").start()
    assert other.apply_results(yaml.safe_dump_all(objects, allow_unicode=True)) == dict.fromkeys(OBJECTS, "created")


def test_get_never_shows_a_secret(farm):
    secret = farm.channel().secret
    assert secret not in farm.cli("get", "channel", CHANNEL, "-o", "json").out
    assert secret not in farm.cli("get", "product", "wind-farm", "-o", "json").out


def test_a_restart_keeps_objects_and_connection_strings(farm):
    before = farm.channel()
    farm.restart()
    assert farm.channel() == before
    assert farm.apply_results(FARM) == dict.fromkeys(OBJECTS, "unchanged")


def test_channel_show_gives_the_four_strings_and_what_an_sdk_needs(farm):
    strings = farm.channel()
    assert strings.brokerUrl == "tcp://%s:%d" % farm.mqtt_address
    assert strings.clientId.startswith(f"{PRODUCT_KEY}|securemode=4,signmethod=sha256,timestamp=")
    assert strings.username == f"%channel%&{PRODUCT_KEY}"
    assert strings.productKey == PRODUCT_KEY
    assert strings.secret and strings.password and strings.secret != strings.password
    shown = farm.cli("channel", "show", CHANNEL).out
    for value in (strings.brokerUrl, strings.clientId, strings.username, strings.password):
        assert value in shown, "the table for people shows the four strings too"


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
@pytest.mark.parametrize("slash", ["/", ""], ids=["slash", "no-slash"])
def test_a_pasted_client_publishes_and_gets_its_reply_on_the_same_spelling(farm, connect, v5, slash):
    topic = slash + TOPIC.removeprefix("/")
    reply = connect(v5=v5).ask(points_message([("R80711", T0, {"P_avg": 642.78003})], id="41"), topic)
    assert reply == {"id": "41", "code": 200, "data": {}} | ({"message": reply["message"]} if "message" in reply else {})
    assert farm.cells() == {("R80711", T0, "P_avg"): 642.78003}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_quality_of_service_is_stored_and_answered(farm, connect, qos):
    assert connect().post(("R80711", T0, {"P_avg": 1.5}), qos=qos)["code"] == 200
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5}


def test_a_query_prints_ndjson_csv_and_a_table(farm, connect):
    connect().post(("R80711", T0, {"P_avg": 642.78003, "Ws_avg": 7.119999900000001}),
                   ("R80711", T0 + 600_000, {"P_avg": -1.0}),
                   ("R80721", T0, {"Ws_avg": 0.1}))
    asked = dict(devices=["R80711", "R80721"], points=["P_avg", "Ws_avg"])
    assert farm.query(**asked).ndjson() == [
        {"deviceKey": "R80711", "time": T0, "P_avg": 642.78003, "Ws_avg": 7.119999900000001},
        {"deviceKey": "R80721", "time": T0, "Ws_avg": 0.1},
        {"deviceKey": "R80711", "time": T0 + 600_000, "P_avg": -1.0}]
    lines = farm.query(**asked, output="csv").out.splitlines()
    assert lines[0] == "deviceKey,time,P_avg,Ws_avg"
    assert lines[1] == "R80711,2014-01-01T00:00:00.000Z,642.78003,7.119999900000001"
    assert lines[2] == "R80721,2014-01-01T00:00:00.000Z,,0.1"
    assert [float(cell) if cell else None for cell in lines[3].split(",")[2:]] == [-1.0, None]
    table = farm.query(**asked, output="table").out
    assert "R80721" in table and "642.78003" in table and "P_avg" in table


def test_a_query_takes_from_and_leaves_to_in_iso_and_in_milliseconds(farm, connect):
    connect().post(*[("R80711", T0 + i, {"P_avg": float(i)}) for i in range(5)])
    assert [row["time"] - T0 for row in farm.query(start=str(T0 + 1), end=str(T0 + 3)).ndjson()] == [1, 2]
    asked = farm.query(start="2014-01-01T01:00:00.003+01:00", end="2014-01-01T00:00:00.004Z")
    assert [row["time"] - T0 for row in asked.ndjson()] == [3]


def test_a_query_needs_no_product_where_the_device_is_known_once(farm, connect):
    connect().post(("R80711", T0, {"P_avg": 1.25}))
    assert farm.query(devices=["R80711"], points=["P_avg"], product=None).ndjson() == [
        {"deviceKey": "R80711", "time": T0, "P_avg": 1.25}]


@pytest.mark.parametrize("asked, named", [(dict(devices=["nobody"]), "nobody"), (dict(points=["nothing"]), "nothing")])
def test_a_query_for_what_does_not_exist_fails_and_names_it(farm, asked, named):
    assert named in farm.query(**asked, code=FAILED).err


def test_doubles_come_back_as_the_same_double_in_the_shortest_text(farm, connect):
    values = [0.1, 7.119999900000001, 1e-300, 1.7976931348623157e308, 5e-324, -0.0, 123456789.125, 2.0**53, 1 / 3]
    connect().post(*[("R80711", T0 + i, {"P_avg": value}) for i, value in enumerate(values)])
    texts = [row["P_avg"] for row in farm.query(devices=["R80711"], points=["P_avg"], output="csv").csv()]
    assert [float(text).hex() for text in texts] == [value.hex() for value in values]
    for text, value in zip(texts, values):
        assert digits(text) <= digits(repr(value)), f"{text} is longer than {value!r}"


def digits(text):
    """How many significant digits a number is written with."""
    return len(text.lower().split("e")[0].lstrip("-").replace(".", "").strip("0"))


def test_what_was_answered_survives_a_restart_and_can_be_read_at_once(farm, connect):
    connect().post(("R80711", T0, {"P_avg": 3.5}))
    assert farm.cells() == {("R80711", T0, "P_avg"): 3.5}
    farm.restart()
    assert farm.cells() == {("R80711", T0, "P_avg"): 3.5}


def test_the_last_committed_value_wins_point_by_point_and_absent_overwrites_nothing(farm, connect):
    client = connect()
    client.post(("R80711", T0, {"P_avg": 1.0, "Ws_avg": 2.0}))
    client.post(("R80711", T0, {"P_avg": 3.0}))
    assert farm.cells() == {("R80711", T0, "P_avg"): 3.0, ("R80711", T0, "Ws_avg"): 2.0}


def test_every_client_may_use_its_own_envelope_version(farm, connect):
    client = connect()
    for version in ("1.0", "1.1"):
        body = json.dumps({"id": "1", "version": version, "method": METHOD, "params": [
            {"deviceKey": "R80711", "time": T0, "measurepoints": {point: 1.0 for point in POINTS}}]}).encode()
        assert client.ask(body)["code"] == 200
