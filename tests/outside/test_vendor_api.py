"""The vendor-compatible API: the vendor's SDKs, unmodified, and the calls of its public samples, made again with requests."""

import hashlib
import json
import random
import subprocess
import time
from dataclasses import dataclass

import pandas
import pytest
import requests
from openapi_spec_validator import validate

from test_clients import HERE, T0, run_client
from world import CHANNEL, CSV_COLUMNS, POINTS, PRODUCT_KEY, SAMPLE, SEED, TOOLS, TURBINES, eventually

RIGHTS = "kind: AccessKey\nname: analytics\nrights: [query, manage, integrate]\n"
ORG = "o1"


@dataclass(frozen=True)
class Key:
    accessKey: str
    accessSecret: str


class Application:
    """An application that signs as the vendor's documentation says (generation B)."""

    def __init__(self, gateway, objects=RIGHTS):
        gateway.apply(objects)
        self.gateway = gateway
        shown = gateway.cli("access-key", "show", "analytics", "-o", "json").json()
        self.key = Key(shown["accessKey"], shown["accessSecret"])
        self.last = 0
        self.token = self.token_call("get")["data"]["accessToken"]

    def now(self):
        """A moment that was not used before: what changes something is taken once."""
        self.last = max(self.last + 1, round(time.time() * 1000))
        return str(self.last)

    def token_call(self, verb, **more):
        now = self.now()
        text = self.key.accessKey + now + self.key.accessSecret
        body = {"appKey": self.key.accessKey, "encryption": hashlib.sha256(text.encode()).hexdigest(), "timestamp": now}
        answer = requests.post(f"{self.gateway.url}/apim-token-service/v2.0/token/{verb}", json={**body, **more}, timeout=60)
        return answer.json()

    def call(self, path, body=None, method="POST", stream=False, **query):
        query = {"orgId": ORG, **query}
        text = "" if body is None else json.dumps(body)
        now = self.now()
        said = "".join(name + str(query[name]) for name in sorted(query))
        sign = hashlib.sha256((self.token + said + text + now + self.key.accessSecret).encode()).hexdigest()
        headers = {"apim-accesstoken": self.token, "apim-signature": sign, "apim-timestamp": now}
        if body is not None:
            headers["Content-Type"] = "application/json;charset=UTF-8"
        return requests.request(method, self.gateway.url + path, params=query, data=text, headers=headers, timeout=60, stream=stream)

    def post(self, path, body=None, **query):
        answer = self.call(path, body, **query).json()
        assert answer["code"] == 0, answer
        return answer

    def items(self, what, **body):
        return self.post(f"/tsdb-service/v2.1/{what}", body)["data"]["items"]

    def integrate(self, action, message):
        """As the vendor's sample does it: the token alone, and pseudo-JSON in a part."""
        return requests.post(f"{self.gateway.url}/connect-service/v2.1/integration", timeout=60,
                             params={"action": action, "orgId": ORG}, headers={"apim-accesstoken": self.token},
                             files={"Content-Disposition": (None, "form-data"), "enos-message": (None, message)}).json()


def asset(gateway, device):
    return next(d["assetId"] for d in gateway.cli("get", "device", "-o", "json").json() if d["name"] == device)


@pytest.fixture
def application(farm):
    return Application(farm)


@pytest.fixture
def history_there(application):
    """The farm with the sample in it, and who asks for it."""
    application.gateway.send(SAMPLE, *CSV_COLUMNS)
    return application


def poseidon(gateway, key, *calls):
    orders = {"publicKey": gateway.cli("access-key", "public-key").out.strip(), **vars(key),
              "calls": [[gateway.url + path, body] for path, body in calls]}
    return run_client([TOOLS / "enos-poseidon/bin/python", f"{HERE}/clients/enos_poseidon.py"], orders)


# --- the vendor's SDKs ---


def test_poseidon_reads_history_latest_values_devices_and_models(history_there):
    gateway, key = history_there.gateway, history_there.key
    a = asset(gateway, "R80711")
    day = {"startTime": "2014-03-22 00:00:00", "endTime": "2014-03-23 00:00:00", "assetIds": a}
    raw, ai, normalized, latest, devices, device, model, current = poseidon(
        gateway, key,
        (f"/tsdb-service/v2.1/raw?orgId={ORG}", {**day, "pointIds": "P_avg,Ws_avg", "modelId": "turbine"}),
        (f"/tsdb-service/v2.0/ai?orgId={ORG}&assetIds={a}&measurepoints=P_avg"
         "&startTime=2014-03-22T00:00:00%2B01:00&endTime=2014-03-23T00:00:00%2B01:00", None),
        (f"/tsdb-service/v2.1/ai-normalized?orgId={ORG}", {**day, "pointIdsWithLogic": "avg(P_avg)", "interval": 60,
                                                          "localTimeAccuracy": False, "localTimeFormat": 0, "itemFormat": 0}),
        (f"/tsdb-service/v2.1/latest?orgId={ORG}", {"assetIds": a, "pointIds": "P_avg"}),
        (f"/connect-service/v2.1/devices?action=search&orgId={ORG}", {"expression": f"productKey = '{PRODUCT_KEY}'"}),
        (f"/connect-service/v2.1/devices?action=get&orgId={ORG}&assetId={a}", None),
        (f"/model-service/v2.1/thing-models?action=get&orgId={ORG}&modelId=turbine&scope=1", None),
        (f"/connect-service/v2.1/measurepoints?action=queryLatest&orgId={ORG}&assetId={a}", {"measurepointIds": ["P_avg"]}))
    expected = gateway.cells(devices=["R80711"], points=["P_avg", "Ws_avg"], start="2014-03-21T23:00:00Z", end="2014-03-22T23:00:00Z")
    found = {("R80711", item["timestamp"], point): item[point]
             for item in raw["data"]["items"] for point in ("P_avg", "Ws_avg") if point in item}
    assert found == expected and len(found) > 200
    assert {item["timestamp"]: float(item["P_avg"]) for item in ai["data"]["items"]} == \
        {moment: value for (_, moment, point), value in expected.items() if point == "P_avg"}
    assert ai["status"] == 0 and all(isinstance(item["P_avg"], str) for item in ai["data"]["items"])
    assert len(normalized["data"]["items"]) == 24 and normalized["data"]["items"][0]["localtime"] == "2014-03-22 00:00:00"
    newest = max(gateway.cells(devices=["R80711"], points=["P_avg"]).items())
    assert latest["data"]["items"][0]["timestamp"] == newest[0][1]
    assert current["data"] == [{"id": "P_avg", "time": newest[0][1], "value": newest[1]}]
    assert sorted(d["deviceKey"] for d in devices["data"]) == TURBINES
    assert device["data"]["timezone"] == "Europe/Paris"
    assert set(model["data"]["measurepoints"]) == set(POINTS)


def test_the_api_sdk_of_2018_lists_products_and_posts_points(application):
    gateway = application.gateway
    data = [{"assetId": asset(gateway, "R80711"), "time": T0, "measurepoints": {"P_avg": 1.25}}]
    listed, posted = run_client([TOOLS / "enos-api/bin/python", f"{HERE}/clients/enos_api.py"],
                                {"url": gateway.url, **vars(application.key), "productKey": PRODUCT_KEY, "data": data})
    assert [p["productKey"] for p in listed["data"]["products"]] == [PRODUCT_KEY]
    assert posted["status"] == 0
    assert gateway.cells() == {("R80711", T0, "P_avg"): 1.25}


def test_the_gateways_rsa_key_is_its_own_and_outlives_a_restart(application):
    gateway = application.gateway
    show = ("access-key", "public-key")
    before = gateway.cli(*show).out
    assert (gateway.data_dir / "application-rsa.key").stat().st_mode & 0o777 == 0o600
    gateway.restart()
    assert gateway.cli(*show).out == before
    [answer] = poseidon(gateway, application.key, (f"/connect-service/v2.1/products?action=get&orgId={ORG}&productKey={PRODUCT_KEY}", None))
    assert answer["data"]["modelId"] == "turbine"


# --- values, against pandas ---


def folded(rows, zone, minutes):
    """Minute values of (time, value), folded from local midnight on: {time: (count, sum, min, max, first, last)}."""
    frame = pandas.DataFrame(rows, columns=["time", "value"])
    frame["minute"] = frame["time"] // 60_000 * 60_000
    frame = frame.groupby("minute", sort=True)["value"].last().reset_index()
    local = pandas.to_datetime(frame["minute"], unit="ms", utc=True).dt.tz_convert(zone)
    midnight = local.dt.normalize().dt.tz_convert("UTC").dt.as_unit("ms").astype("int64")
    step = minutes * 60_000
    frame["begin"] = midnight + (frame["minute"] - midnight) // step * step
    groups = frame.groupby("begin")["value"].agg(["count", "sum", "min", "max", "first", "last"])
    return {begin: tuple(row) for begin, row in zip(groups.index, groups.itertuples(index=False))}


@pytest.mark.parametrize("minutes", [10, 60, 1440])
def test_functions_over_real_history_are_those_of_pandas_on_the_night_of_the_clock_change_too(history_there, minutes):
    gateway = history_there.gateway
    cells = gateway.cells(devices=["R80736"], points=["P_avg"], start="2014-03-28T23:00:00Z", end="2014-04-01T22:00:00Z")
    expected = folded(sorted((moment, value) for (_, moment, _), value in cells.items()), "Europe/Paris", minutes)
    logic = ["count(P_avg)", "sum(P_avg)", "min(P_avg)", "max(P_avg)", "first(P_avg)", "last(P_avg)"]
    items = history_there.items("ai-normalized", assetIds=asset(gateway, "R80736"), pointIdsWithLogic=",".join(logic),
                                interval=minutes, startTime="2014-03-29 00:00:00", endTime="2014-04-02 00:00:00")
    found = {}
    for item in items:
        for at, key in enumerate(logic):
            if key in item:
                found.setdefault(item["timestamp"], [None] * 6)[at] = item[key]
    assert sorted(found) == sorted(expected)
    for begin, values in found.items():
        assert values == pytest.approx(expected[begin], rel=1e-12)


def test_three_zones_gaps_and_duplicates_fold_as_pandas_folds_them(application, connect):
    gateway, seeded = application.gateway, random.Random(SEED)
    zones = {"Z1": "Asia/Kolkata", "Z2": "America/St_Johns", "Z3": "Pacific/Auckland"}
    gateway.apply("---\n".join(f"kind: Device\nname: {name}\nproduct: wind-farm\ntimezone: {zone}\n" for name, zone in zones.items()))
    begin = 1_396_000_000_000  # 2014-03-28: clocks change in St John's before it and in Auckland behind it
    rows = {name: [(begin + seeded.randrange(14 * 86_400_000), round(seeded.uniform(-5, 5), 3)) for _ in range(400)] for name in zones}
    client = connect()
    for name, values in rows.items():
        values += seeded.sample(values, 20)
        seeded.shuffle(values)
        assert client.post(*[(name, moment, {"P_avg": value}) for moment, value in values])["code"] == 200
    for name, zone in zones.items():
        # The last value of a minute is that of the latest time, and of one time that of the last commit.
        last = dict(rows[name])
        expected = folded(sorted(last.items()), zone, 420)
        items = application.items("ai-normalized", assetIds=asset(gateway, name), pointIdsWithLogic="avg(P_avg)", interval=420,
                                  startTime="2014-03-20T00:00:00Z", endTime="2014-04-20T00:00:00Z")
        assert {i["timestamp"]: i["avg(P_avg)"] for i in items} == pytest.approx(
            {begin: values[1] / values[0] for begin, values in expected.items()}, abs=1e-9), zone


# --- the samples' calls, signed ---


def test_a_call_is_let_in_by_its_signature_alone_and_a_change_is_taken_once(application):
    gateway = application.gateway
    query = {"action": "get", "productKey": PRODUCT_KEY}
    assert application.call("/connect-service/v2.1/products", method="GET", **query).status_code == 200
    signed = application.call("/connect-service/v2.1/products", {"modelId": "turbine", "productName": {"defaultValue": "new"}},
                              action="create").request
    again = requests.Session().send(signed)
    assert again.status_code == 401 and again.json()["code"] == 400
    for tampered in (signed.url.replace("orgId=o1", "orgId=o2"), signed.url + "&x=y"):
        request = requests.Request("POST", tampered, data=signed.body, headers=dict(signed.headers)).prepare()
        assert requests.Session().send(request).status_code == 401
    gateway.cli("access-key", "revoke", "analytics")
    assert application.call("/connect-service/v2.1/products", method="GET", **query).status_code == 401
    secret, log = application.key.accessSecret, gateway.log()
    assert secret not in log and application.token not in log and "an application is not admitted" in log


def test_a_key_without_rights_may_do_nothing_here(farm):
    application = Application(farm, "kind: AccessKey\nname: analytics\n")
    answer = application.call("/tsdb-service/v2.1/raw", {"assetIds": "a", "pointIds": "P_avg"})
    assert (answer.status_code, answer.json()["code"]) == (403, 400)
    assert "rights" in answer.json()["msg"]


def test_a_token_is_refreshed_before_it_ends(application):
    first = application.token
    assert application.token_call("get")["data"]["accessToken"] == first
    renewed = application.token_call("refresh", accessToken=first)
    assert renewed["status"] == 0 and renewed["data"]["expire"] > 7_190


# --- models, products and devices, then their data ---


def test_a_model_comes_along_from_the_console_and_its_devices_report_over_http(application):
    gateway = application.gateway
    point = "com.example.tsl.measurepoint.TSL{}Measurepoint"
    exported = {"thingModelId": "SmartBattery", "thingModelName": {"defaultValue": "Battery"}, "thingAttributeMap": {},
                "thingMeasurepointMap": {"temp": {"$class": point.format("Double"), "signalType": "AI"},
                                         "cycles": {"$class": point.format("Int"), "signalType": "PI"}}}
    file = gateway.folder / "model_SmartBattery.json"
    file.write_text(json.dumps(exported), encoding="utf-8-sig")
    assert "Model SmartBattery created" in gateway.apply(file).out
    assert "Model SmartBattery unchanged" in gateway.apply(file).out

    key = application.post("/connect-service/v2.1/products", {
        "productDesc": "", "biDirectionalAuth": False, "modelId": "SmartBattery", "dataFormat": "Json",
        "productName": {"defaultValue": "Batteries"}, "productType": "Device"}, action="create")["data"]
    gateway.apply("kind: Channel\nname: batteries\nproduct: Batteries\n")
    made = application.post("/connect-service/v2.1/devices", action="batchCreate", body={"deviceList": [
        {"productKey": key, "timezone": "+08:00", "deviceName": {"defaultValue": f"Pack {n}"}} for n in range(3)]})["data"]
    first, second = made[0]["data"], made[1]["data"]

    # Word for word as the sample writes it: single quotes, ids without any.
    now = "1646000000000"
    points = ("{'method': 'integration.measurepoint.post', 'version': '1.1', 'params': [{'assetId':" + first["assetId"] + ", "
              "'time':" + now + ", 'measurepoints': {'temp':21.5}}, {'productKey':" + key + ", 'deviceKey':" + second["deviceKey"] +
              ", 'time':" + now + ", 'measurepoints': {'temp':22.5}}], 'isRealtimeIntegration': false}")
    assert application.integrate("postMeasurepoint", points)["code"] == 0
    items = application.items("raw", assetIds=f"{first['assetId']},{second['assetId']}", pointIds="temp",
                              startTime="2022-02-28 06:13:20", endTime="2022-02-28 06:13:21")
    assert [(i["assetId"], i["temp"], i["localtime"]) for i in items] == [
        (first["assetId"], 21.5, "2022-02-28 06:13:20"), (second["assetId"], 22.5, "2022-02-28 06:13:20")]
    log = eventually(lambda: gateway.channel_log("batteries"), "a line in the channel's log")
    assert [(e.kind, e.client_id, e.code) for e in log] == [("transmission", "http:analytics", 200)]
    assert application.call("/connect-service/v2.1/products", method="GET", action="delete", productKey=key).json()["code"] == 409


def test_what_is_refused_over_http_is_in_quarantine_and_can_be_driven_again(application):
    gateway = application.gateway
    message = ("{'method':'integration.measurepoint.post','version':'1.1','params':["
               f"{{'productKey':{PRODUCT_KEY},'deviceKey':R99999,'time':{T0},'measurepoints':{{'P_avg':1}}}}]}}")
    answer = application.integrate("postMeasurepoint", message)
    assert answer["code"] == 1257 and answer["data"]["rejected"][0]["deviceKey"] == "R99999", answer
    [entry] = eventually(gateway.quarantine, "the refusal in quarantine")
    assert entry.code == 1257
    gateway.apply("kind: Device\nname: R99999\nproduct: wind-farm\n")
    gateway.cli("quarantine", "redrive", "--cause", "1")
    assert gateway.cells(devices=["R99999"], points=["P_avg"]) == {("R99999", T0, "P_avg"): 1.0}


def test_events_and_attributes_are_posted_and_what_is_not_kept_is_said(farm):
    farm.apply("kind: Model\nname: turbine\nmeasurepoints:\n" + "".join(f"  {p}: {{type: double, signal: AI}}\n" for p in POINTS) +
               "events: {alarm: {output: {code: {type: int}}}}\nattributes: {serial: {type: string}}\n")
    application = Application(farm)
    a = asset(farm, "R80711")
    event = "{'method':'integration.event.post','version':'1.1','params':[{'assetId':" + a + f",'time':{T0}," \
            "'events':{'alarm':{'code':7}}}]}"
    assert application.integrate("postEvent", event)["code"] == 0
    attribute = "{'method':'integration.attribute.post','version':'1.1','id':123,'params':[{'assetId':'" + a + \
                "','attributes':{'serial':'S-1'}}]}"
    assert application.integrate("postAttribute", attribute)["code"] == 0
    events = farm.cli("query", "--events", "--device", "R80711", "-o", "ndjson").ndjson()
    assert [(e["event"], e["output"]) for e in events] == [("alarm", {"code": 7})]
    attributes = farm.cli("query", "--attributes", "--device", "R80711", "-o", "ndjson").ndjson()
    assert [(e["attribute"], e["value"]) for e in attributes] == [("serial", "S-1")]
    live = attribute.replace("'id':123", "'isRealtimeIntegration':true")
    refused = application.integrate("postAttribute", live)
    assert refused["code"] == 400 and "isRealtimeIntegration" in refused["msg"]


def test_what_is_answered_over_http_survives_a_kill(application):
    gateway = application.gateway
    a = asset(gateway, "R80711")
    for n in range(20):
        message = f"{{'version':'1.1','params':[{{'assetId':{a},'time':{T0 + n},'measurepoints':{{'P_avg':{n}}}}}]}}"
        assert application.integrate("postMeasurepoint", message)["code"] == 0
    gateway.kill()
    gateway.start()
    assert gateway.cells() == {("R80711", T0 + n, "P_avg"): float(n) for n in range(20)}
    # The token outlives it too.
    assert application.call("/connect-service/v2.1/products", method="GET", action="get", productKey=PRODUCT_KEY).json()["code"] == 0


def test_the_description_of_the_vendor_api_is_valid_openapi(gateway):
    description = gateway.http("GET", "/api/vendor-openapi.json", token=False).json()
    validate(description)
    for path in ("/tsdb-service/v2.1/raw", "/connect-service/v2.1/devices", "/model-service/v2.1/thing-models"):
        assert path in description["paths"]


def test_no_request_that_the_description_allows_is_answered_otherwise_than_it_says(application):
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    done = subprocess.run([TOOLS / "schemathesis/bin/schemathesis", "run", application.gateway.url + "/api/vendor-openapi.json",
                           "-H", f"apim-accesstoken: {application.token}", "--checks", checks, "--phases", "fuzzing",
                           "--max-examples", "5", "--seed", str(SEED)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "74 passed" in done.stdout, done.stdout[-4000:]


def test_storage_policies_are_read_and_saved(farm):
    application = Application(farm)
    farm.apply("kind: Policy\nname: minutes\nmodels: [turbine]\nstorage: { points: [P_avg], keep: minute, keepDays: 1825 }\n")
    asked = {"modelIds": "turbine", "measurepoints": "P_avg,Ws_avg,nosuch"}
    answer = application.call("/tsdb-policy/v2.0/policies", method="GET", **asked).json()
    assert (answer["status"], answer["data"]) == \
        (0, [{"modelId": "turbine", "tsdb_metadata": {"P_avg": ["AI_NORMALIZED"], "Ws_avg": ["AI_RAW"]}}])
    path = "/tsdb-policy/v2.1/policies/minutes"
    shown = application.call(path, method="GET").json()["data"]
    assert (shown["policyType"], shown["retention"]) == ("NORMALIZED", "5y")
    assert shown["models"] == [{"modelId": "turbine", "points": [{"pointId": "P_avg"}]}]

    sdt = {"compdev": 0.5, "compmax": 600, "compmin": 1}
    points = [{"pointId": "Ws_avg", "sdt": sdt}, {"pointId": "P_avg"}]
    saved = application.post(path, {"retention": "3M", "models": [{"modelId": "turbine", "points": points}]})
    assert saved["data"] is None
    shown = application.call(path, method="GET").json()["data"]
    by_name = sorted(points, key=lambda point: point["pointId"])
    assert (shown["retention"], shown["models"]) == ("3M", [{"modelId": "turbine", "points": by_name}])
    [rule] = [farm.cli("get", "policy", "minutes", "-o", "json").json()["storage"]]
    assert (rule["keep"], rule["keepDays"], rule["points"]) == ("minute", 90, ["Ws_avg", "P_avg"])
    # v2.0 saves plain identifiers.
    body = {"models": [{"modelId": "turbine", "points": ["P_avg"]}]}
    assert application.call("/tsdb-policy/v2.0/policies/minutes", body).json()["status"] == 0
    assert application.call(path, method="GET").json()["data"]["models"] == [{"modelId": "turbine", "points": [{"pointId": "P_avg"}]}]
    for wrong, code in [({"models": []}, 702), ({"retention": "3 weeks", "models": body["models"]}, 702),
                        ({"models": [{"modelId": "turbine", "points": ["nosuch"]}]}, 80500)]:
        assert application.call(path, wrong).json()["code"] == code, wrong
    assert application.call("/tsdb-policy/v2.1/policies/nosuch", method="GET").json()["code"] == 80500
    unsigned = requests.get(farm.url + path, timeout=60)
    assert unsigned.status_code == 401
