"""The HTTP door: health, metrics, the API's manners, and a registry of 100 000 devices."""

import resource

import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from world import CHANNEL, FAILED, FARM, TURBINES, eventually

T0 = 1_388_534_400_000
PROBLEM = "application/problem+json"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/openapi.json"])
def test_health_metrics_and_the_api_description_need_no_token(gateway, path):
    assert gateway.http("GET", path, token=False).status_code == 200


@pytest.mark.parametrize("method, path", [("GET", "/api/v1/models"), ("GET", "/api/v1/devices"), ("GET", "/api/v1/channels"),
                                          ("DELETE", "/api/v1/products/wind-farm"), ("POST", "/api/v1/store/compact")])
@pytest.mark.parametrize("token", [False, "wrong"], ids=["none", "wrong"])
def test_the_api_wants_the_bearer_token(farm, method, path, token):
    answer = farm.http(method, path, token=token)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith(PROBLEM)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["status"] == 401 and answer.json()["title"]
    assert farm.http("GET", "/api/v1/products/wind-farm").status_code == 200, "nothing happened"


def test_the_command_line_says_that_its_token_is_wrong(farm):
    environment = {**farm.environment(), "BACKTIDE_TOKEN": "wrong"}
    farm.environment = lambda: environment
    assert "token" in farm.cli("get", "model", code=FAILED).err


def test_the_command_line_says_that_nobody_is_there(farm):
    farm.cli("get", "model")
    environment = {**farm.environment()}
    farm.environment = lambda: environment
    url = farm.url
    farm.terminate()
    assert url.removeprefix("http://") in farm.cli("get", "model", code=FAILED).err


def test_the_api_description_is_valid_openapi_and_names_the_resources(farm):
    description = farm.http("GET", "/api/openapi.json").json()
    validate(description)
    for path in ("models", "products", "devices", "channels"):
        assert f"/api/v1/{path}" in description["paths"]


@pytest.mark.parametrize("kind", ["Model", "Product", "Device", "Channel"])
def test_every_kind_has_a_schema_and_a_list(farm, kind):
    assert farm.http("GET", f"/api/v1/schemas/{kind}").status_code == 200
    items = farm.http("GET", f"/api/v1/{kind.lower()}s").json()["items"]
    assert len(items) == (4 if kind == "Device" else 1)
    assert all(item["kind"] == kind for item in items)


def test_an_unknown_object_and_an_unknown_path_are_404_problems(farm):
    for path in ("/api/v1/devices/nobody", "/api/v1/nothing"):
        answer = farm.http("GET", path)
        assert answer.status_code == 404 and answer.headers["content-type"].startswith(PROBLEM), path
    assert "nobody" in farm.http("GET", "/api/v1/devices/nobody").json()["detail"]


@pytest.mark.parametrize("path, user", [("models/turbine", ("Product", "wind-farm")),
                                        ("products/wind-farm", ("Channel", CHANNEL))])
def test_deleting_what_is_in_use_is_refused_with_what_uses_it(farm, path, user):
    answer = farm.http("DELETE", f"/api/v1/{path}")
    assert answer.status_code == 409 and answer.headers["content-type"].startswith(PROBLEM)
    assert user in [(u["kind"], u["name"]) for u in answer.json()["usedBy"]]
    run = farm.cli("delete", *path.replace("s/", " ", 1).split(), code=FAILED)
    assert user[1] in run.err
    assert farm.http("GET", f"/api/v1/{path}").status_code == 200


def test_what_is_not_in_use_can_be_deleted(farm):
    farm.cli("delete", "channel", CHANNEL)
    for turbine in TURBINES:
        farm.cli("delete", "device", turbine)
    farm.cli("delete", "product", "wind-farm")
    farm.cli("delete", "model", "turbine")
    assert farm.http("GET", "/api/v1/models").json()["items"] == []
    assert set(farm.apply_results(FARM).values()) == {"created"}, "and declared again"


def test_metrics_are_prometheus_text_with_channel_labels_and_no_device_labels(farm, connect):
    connect().post(("R80711", T0, {"P_avg": 1.5}))

    def families():
        return list(text_string_to_metric_families(farm.http("GET", "/metrics", token=False).text))
    samples = [sample for family in families() for sample in family.samples]
    assert any(sample.labels.get("channel") == CHANNEL and sample.value > 0 for sample in samples)
    for sample in samples:
        assert sample.name.startswith(("backtide_", "process_")), sample.name
        assert not {"device", "deviceKey", "device_key", "point"} & set(sample.labels), sample
        assert not set(TURBINES) & set(sample.labels.values()), sample


def test_readyz_is_ready_only_when_the_doors_are_open(farm):
    assert farm.http("GET", "/readyz", token=False).status_code == 200
    farm.terminate()
    with pytest.raises(Exception):
        farm.http("GET", "/readyz", token=False)


def many_devices(count):
    head = FARM.read_text().split("---\nkind: Device")[0]
    return head + "".join(f"---\nkind: Device\nname: d{i:06}\nproduct: wind-farm\nkey: d{i:06}\ntimezone: Europe/Paris\n"
                          for i in range(count))


def test_a_hundred_thousand_devices_are_applied_within_a_minute_of_cpu_and_paged_through(gateway):
    count = 100_000
    path = gateway.folder / "devices.yaml"
    path.write_text(many_devices(count))
    server_before, client_before = gateway.cpu_s(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    outcome = gateway.apply(path, "-o", "json", timeout_s=300).json()
    server, client = gateway.cpu_s() - server_before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - client_before
    assert (outcome["created"], outcome["changed"], outcome["unchanged"]) == (count + 2, 0, 0)
    assert server + client < 60, f"{server:.1f} CPU-seconds in the server, {client:.1f} in the command"

    names, cursor = [], None
    while True:
        page = gateway.http("GET", "/api/v1/devices", params={"limit": 1000, **({"cursor": cursor} if cursor else {})}).json()
        assert 0 < len(page["items"]) <= 1000
        names += [item["name"] for item in page["items"]]
        cursor = page.get("next")
        if not cursor:
            break
    assert sorted(names) == [f"d{i:06}" for i in range(count)], "each of them once"
    gateway.restart()
    assert gateway.http("GET", "/api/v1/devices/d099999").json()["timezone"] == "Europe/Paris"


def test_the_growth_of_the_data_is_measured_and_nothing_is_said_of_it_too_early(farm):
    growth = eventually(lambda: (told := farm.http("GET", "/api/v1/overview").json()["growth"]).get("dataBytes") and told, "measured")
    assert growth["state"] == "unknown" and growth["dataBytes"] > 0 and growth["neededSeconds"] == 3600
    assert "daysLeft" not in growth and "bytesPerDay" not in growth
    metrics = farm.http("GET", "/metrics").text
    assert f"backtide_data_bytes {growth['dataBytes']}" in metrics
    assert "backtide_disk_days_left NaN" in metrics
