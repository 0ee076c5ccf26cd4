"""Quarantine, history and scripts in the console; and the whole job from nothing."""

import csv
import io
import json
import random
import re

from browser import PASSWORD, USER, expect
from mqtt import Client
from world import CHANNEL, CSV_COLUMNS, PRODUCT, SAMPLE, SEED, Strings, eventually

T0 = 1_388_534_400_000
MINUTE = 60_000
POINTS = 1_000_000


def test_quarantine_tells_causes_with_cures_and_lets_out(farm, console, connect):
    client = connect()
    for n in range(4):
        assert client.post(("R99999", T0 + n, {"P_avg": 1.0}))["code"] == 1257
    assert client.post(("R80711", T0, {"P_avg": "much"}))["code"] == 1204
    console.menu("Quarantine")
    cause = console.page.get_by_test_id("cause").filter(has_text="1257")
    expect(cause).to_contain_text("4 messages")
    expect(cause).to_contain_text("What to do:")
    console.inspect("quarantine")
    console.click("Sample", within=cause)
    drawer = console.dialog()
    expect(drawer).to_contain_text('"deviceKey": "R99999"')
    console.inspect("quarantine-entry")
    console.click("Run again as dry run")
    expect(console.page.get_by_test_id("dry-run")).to_contain_text("0 of 1 items would be stored")
    console.page.keyboard.press("Escape")
    farm.apply(f"kind: Device\nname: R99999\nproduct: {PRODUCT}\nkey: R99999\n")
    console.page.reload()
    expect(cause).to_contain_text("4 would be stored now")
    console.click("Dry run", within=cause)
    expect(cause).to_contain_text("4 stored, 0 partly, 0 refused again, 0 skipped, of 4")
    console.click("Re-drive", within=cause)
    expect(console.page.get_by_test_id("cause")).to_have_count(1)
    assert len(farm.cells(devices=["R99999"], points=["P_avg"])) == 4
    exported = [json.loads(line) for line in console.download("Export").splitlines()]
    assert [entry["code"] for entry in exported] == [1204]
    console.tab("Re-drives").see("done").inspect("quarantine-redrives")
    console.tab("Messages")
    console.page.get_by_role("checkbox").first.check()
    console.click("Discard")
    console.click("Discard", within=console.dialog())
    console.see("Nothing in quarantine fits.")
    assert not farm.quarantine()


def test_history_is_charted_read_as_a_table_and_followed_to_its_message(farm, console, connect):
    client = connect()
    values = [float(n % 7) for n in range(500)]
    for at in range(0, 500, 100):
        assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": values[n]}) for n in range(at, at + 100)))["code"] == 200
    client.post(("R80711", T0 + 3 * MINUTE, {"P_avg": 99.0}))
    farm.compact()
    console.menu("History").choose("Product", PRODUCT)
    console.fill("Devices", "R80711").page.keyboard.press("Enter")
    console.choose("Points", "P_avg")
    console.page.keyboard.press("Escape")
    chart = console.page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-drawn", "500")
    console.see("Conflicts (1)")
    expect(console.page.get_by_role("table", name="Series")).to_contain_text("99")
    console.inspect("history")
    box = chart.locator(".u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    console.page.mouse.move(box["x"] + box["width"] * 0.5, y)
    console.page.mouse.down()
    console.page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
    console.page.mouse.up()
    expect(console.page.get_by_role("button", name="All times")).to_be_visible()
    expect(chart).not_to_have_attribute("data-drawn", "500")
    chart.locator(".u-over").click()
    expect(console.page.get_by_test_id("lineage")).to_contain_text(CHANNEL)
    console.inspect("history-lineage")
    console.page.keyboard.press("Escape")
    console.click("All times").tab("Table")
    console.row("2014-01-01 00:03:00").get_by_role("button", name="99").click()
    lineage = console.page.get_by_test_id("lineage")
    expect(lineage).to_contain_text(CHANNEL)
    receipt = lineage.locator("dd").last.inner_text()
    assert farm.http("GET", f"/api/v1/receipts/{receipt}").json()["channel"] == CHANNEL
    console.page.keyboard.press("Escape")
    console.inspect("history-table")
    rows = list(csv.DictReader(io.StringIO(console.download("CSV").decode())))
    assert len(rows) == 500 and rows[3]["P_avg"] == "99.0"
    console.tab("Conflicts")
    expect(console.row("2014-01-01 00:03:00")).to_contain_text(re.compile(r"3\s*99"))
    console.inspect("history-conflicts")


def test_a_real_wind_farm_is_seen_with_what_was_overwritten(farm, console):
    farm.send(SAMPLE, *CSV_COLUMNS)
    farm.compact()
    console.open(f"/history?product={PRODUCT}&device=R80711,R80721&points=P_avg")
    chart = console.page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-drawn", re.compile(r"^[2-4]\d{3}$"))
    overwritten = [conflict for device in ("R80711", "R80721")
                   for conflict in farm.conflicts("--product", PRODUCT, "--device", device, "--points", "P_avg")]
    assert overwritten
    console.see(f"Conflicts ({len(overwritten)})")
    expect(console.page.get_by_role("table", name="Series")).to_contain_text("2,442")
    console.inspect("wind-farm")
    console.open(f"/devices/{PRODUCT}/R80711")
    expect(console.row("P_avg")).to_contain_text("no gaps longer than")
    console.inspect("wind-farm-device")


def test_history_is_rolled_up_in_windows_and_a_window_leads_to_its_raw_values(farm, console, connect):
    client = connect()
    assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": float(n)}) for n in range(180)))["code"] == 200
    console.open(f"/history?product={PRODUCT}&device=R80711&points=P_avg").choose("Windows of", "an hour")
    chart = console.page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-drawn", "3")
    console.choose("Functions", "max").page.keyboard.press("Escape")
    expect(chart).to_have_attribute("data-drawn", "6")
    assert "every=1h" in console.page.url and "fn=avg%2Cmax" in console.page.url
    console.inspect("history-windows")
    console.tab("Table")
    expect(console.row("2014-01-01 01:00:00")).to_contain_text(re.compile(r"89\.5\s*119"))
    rows = list(csv.DictReader(io.StringIO(console.download("CSV").decode())))
    assert [float(row["P_avg.max"]) for row in rows] == [59, 119, 179]
    console.tab("Chart").page.locator(".u-over").click()
    expect(chart).to_have_attribute("data-drawn", "60")


def test_the_gaps_that_the_gateway_counts_are_told_and_shown(farm, console, connect):
    """Two hours of minutes, a day of nothing, an hour of minutes without ten of them."""
    client = connect()
    times = [n for n in range(120)] + [24 * 60 + n for n in range(60) if not 20 <= n < 30]
    assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": float(n % 7)}) for n in times))["code"] == 200
    console.open(f"/history?product={PRODUCT}&device=R80711&points=P_avg")
    gaps = console.page.get_by_role("table", name="Series").get_by_role("button")
    expect(gaps).to_have_text("1 gap longer than 1h, the longest 22 h 1 min")
    console.choose("Gaps longer than", "10m")
    expect(gaps).to_have_text("2 gaps longer than 10m, the longest 22 h 1 min")
    assert "gap=10m" in console.page.url
    told = farm.http("GET", f"/api/v1/points/coverage?product={PRODUCT}&device=R80711&points=P_avg&gap=10m").json()["items"][0]
    assert told["gaps"] == 2
    console.inspect("history-gaps")
    console.open(f"/devices/{PRODUCT}/R80711").choose("Gaps longer than", "1d")
    expect(console.row("P_avg")).to_contain_text("no gaps longer than 1d")


def test_the_strip_of_the_whole_chooses_what_is_shown_by_keyboard_too(farm, console, connect):
    assert connect().post(*(("R80711", T0 + n * MINUTE, {"P_avg": float(n)}) for n in range(200)))["code"] == 200
    console.open(f"/history?product={PRODUCT}&device=R80711&points=P_avg")
    chart = console.page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-drawn", "200")
    handle = console.page.get_by_role("slider", name="Shown from")
    handle.focus()
    handle.press("ArrowRight")
    expect(chart).to_have_attribute("data-drawn", "199")
    expect(handle).to_have_attribute("aria-valuetext", re.compile("^2014-01-01 00:00:59"))
    assert "from=2014-01-01" in console.page.url
    console.inspect("history-range")
    handle.press("ArrowLeft")
    expect(chart).to_have_attribute("data-drawn", "200")
    assert "from=" not in console.page.url


def test_a_window_with_overwritten_values_is_marked_and_leads_to_them(farm, console, connect):
    client = connect()
    assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": float(n)}) for n in range(180)))["code"] == 200
    assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": 7.0}) for n in (61, 62)))["code"] == 200
    farm.compact()
    console.open(f"/history?product={PRODUCT}&device=R80711&points=P_avg&every=1h&view=table").see("Conflicts (2)")
    expect(console.row("2014-01-01 01:00:00")).to_contain_text("⚠ 2")
    expect(console.row("2014-01-01 00:00:00")).not_to_contain_text("⚠")
    console.inspect("history-windows-conflicts")
    console.row("2014-01-01 01:00:00").get_by_role("button").click()
    expect(console.page.get_by_role("table", name="Values").get_by_title("overwritten by a different value")).to_have_count(2)
    console.tab("Conflicts").page.get_by_role("table", name="Conflicts").get_by_role("link").first.click()
    console.heading("Storage")
    expect(console.page.get_by_test_id("receipt")).to_contain_text(CHANNEL)


def test_a_million_points_are_charted_and_no_peak_is_lost(farm, console, record_property, tmp_path):
    rng = random.Random(SEED)
    peak_at = rng.randrange(POINTS)
    file = tmp_path / "million.csv"
    with file.open("w") as out:
        out.write("device,time,P_avg\n")
        for n in range(POINTS):
            out.write(f"R80711,{T0 + n * 1000},{1e6 if n == peak_at else n % 997}\n")
    farm.send(file, "--device-column", "device", "--time-column", "time")
    farm.compact()
    path = f"/history?product={PRODUCT}&device=R80711&points=P_avg"
    console.open(path)
    chart = console.page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-drawn", re.compile(r"^[1-4]\d{3}$"), timeout=60_000)
    expect(console.page.get_by_role("table", name="Series")).to_contain_text("1000000")
    console.see("1,000,000 values read")
    times = console.page.evaluate("""async () => {
        const asked = performance.now();
        const answer = await fetch('/api/v1/points/extremes' + location.search);
        await answer.json();
        const answered = performance.now();
        // A sweep of the pointer over the chart: how long its frames take.
        const over = document.querySelector('.u-over').getBoundingClientRect();
        const frames = [];
        for (let x = 0; x < over.width; x += over.width / 60) {
            const begun = performance.now();
            document.querySelector('.u-over').dispatchEvent(new MouseEvent('mousemove', {clientX: over.x + x, clientY: over.y + 100, bubbles: true}));
            await new Promise(requestAnimationFrame);
            frames.push(performance.now() - begun);
        }
        frames.sort((a, b) => a - b);
        return {answer_ms: Math.round(answered - asked), frame_p95_ms: Math.round(frames[57])};
    }""")
    for name, value in times.items():
        record_property(f"million_points_{name}", value)
    print(times)


DECODER = """
function rawDataToJsonStr(bytes) {
  console.log('bytes: ' + bytes.length);
  return JSON.stringify({
    id: '1', version: '1.0', method: 'integration.measurepoint.post',
    params: [{ deviceKey: 'probe-1', time: 1700000000000, measurepoints: { temperature: (bytes[0] << 8 | bytes[1]) / 10 } }]
  });
}
"""
PROBES = """
kind: Model
name: probe
measurepoints: { temperature: { type: double, unit: "°C" } }
---
{ kind: Product, name: probes, key: PROBES1, model: probe, format: custom }
---
{ kind: Device, name: probe-1, product: probes, key: probe-1 }
---
{ kind: Channel, name: probes, product: probes }
"""


def test_a_script_is_written_tried_tested_published_compared_and_rolled_back(gateway, console_of):
    gateway.apply(PROBES)
    console = console_of(gateway).sign_in()
    console.menu("Scripts").click("New script").fill("Name", "frames").choose("Product", "probes").click("Make a draft").heading("frames")
    console.page.get_by_test_id("editor").wait_for()
    console.write("function rawDataToJsonStr(bytes) {\n  return oops(;\n}\n").click("Publish")
    expect(console.page.get_by_test_id("problem")).to_contain_text("line 2")
    console.write(DECODER).fill("Payload", "00 fa").click("Run")
    tested = console.page.get_by_test_id("tested")
    expect(tested).to_contain_text('"temperature": 25')
    expect(tested).to_contain_text("bytes: 2")
    expect(tested).to_contain_text("1 of 1 items would be stored")
    console.fill("Name of the sample", "25 degrees").click("Keep as sample").see("The sample is kept with the script.")
    console.inspect("script")
    console.click("Publish").see("version 1 runs")
    strings = gateway.channel("probes")
    client = Client(gateway.mqtt_address, strings).connect()
    client.publish("/sys/PROBES1/integration/model/up_raw", bytes([0, 250]))
    eventually(lambda: gateway.cells(devices=["probe-1"], points=["temperature"], product="probes") == {("probe-1", 1700000000000, "temperature"): 25},
               "decoded")
    client.close()
    console.tab("Golden tests").click("Add a test")
    console.fill("Name of test 1", "25 degrees").fill("Bytes of test 1, hex", "00fa").fill("Expects, JSON", '{"id": "2"}')
    console.inspect("script-golden")
    console.click("Run them").see("failed").click("Save draft").see("has a draft")
    console.tab("Editor").click("Publish")
    expect(console.page.get_by_test_id("problem")).to_contain_text("25 degrees")
    console.click("Drop draft")
    console.click("Drop draft", within=console.dialog())
    expect(console.page.get_by_text("has a draft")).to_have_count(0)
    expect(console.page.get_by_test_id("editor")).to_contain_text("/ 10")
    console.write(DECODER.replace("/ 10", "/ 100")).click("Publish").see("version 2 runs")
    console.tab("Versions")
    console.click("Compare with the one that runs")
    expect(console.page.get_by_test_id("differences")).to_contain_text("/ 100")
    console.inspect("script-versions")
    console.click("Run this version")
    console.click("Run this version", within=console.dialog())
    console.see("version 1 runs")


def test_samples_are_kept_by_the_gateway_for_everybody_and_become_golden_tests(gateway, console_of):
    gateway.apply(PROBES)
    console = console_of(gateway).sign_in()
    console.menu("Scripts").click("New script").fill("Name", "frames").choose("Product", "probes").click("Make a draft").heading("frames")
    console.page.get_by_test_id("editor").wait_for()
    console.write(DECODER).fill("Payload", "00 fa").fill("Name of the sample", "25 degrees").click("Keep as sample")
    console.see("The sample is kept with the script.").click("Save draft").see("The draft is saved.")
    gateway.restart()
    other = console_of(gateway).sign_in("wang", role="operator").open("/scripts/frames")
    other.page.get_by_label("Sample payloads").select_option(label="25 degrees · 2 B")
    expect(other.field("Payload")).to_have_value("00 fa")
    other.click("Run")
    expect(other.page.get_by_test_id("tested")).to_contain_text('"temperature": 25')
    other.click("Make it a golden test").see("It is a golden test of the draft.").tab("Golden tests")
    expect(other.field("Bytes of test 1, hex")).to_have_value("00fa")
    other.click("Run them").see("passed")
    other.page.get_by_label("Add a test of a sample").select_option("25 degrees")
    expect(other.field("Bytes of test 2, hex")).to_have_value("00fa")
    other.tab("Editor").page.get_by_label("Sample payloads").select_option(label="25 degrees · 2 B")
    other.click("Delete the sample 25 degrees")
    expect(other.page.get_by_label("Sample payloads")).to_have_count(0)
    deeds = gateway.http("GET", "/api/v1/access/audit?author=wang").json()["items"]
    assert any(deed["object"] == "frames/25 degrees" for deed in deeds), deeds
    reader = console_of(gateway).sign_in("li", role="viewer").open("/scripts/frames").see("Only an operator runs it.")
    assert not reader.trouble


def test_a_reply_is_encoded_by_a_test_run(gateway, console_of):
    gateway.apply(PROBES)
    console = console_of(gateway).sign_in()
    console.menu("Scripts").click("New script").fill("Name", "frames").choose("Product", "probes").click("Make a draft").heading("frames")
    console.page.get_by_test_id("editor").wait_for()
    console.write(DECODER + "function jsonStrToRawData(text) { return [JSON.parse(text).code === 200 ? 1 : 0]; }")
    console.page.get_by_role("radio", name="Encode a reply").check()
    console.click("Run")
    expect(console.page.get_by_label("Encoded, hex", exact=True)).to_have_text("01")


def test_a_message_that_was_not_decoded_is_the_sample_that_mends_the_script(gateway, console_of):
    gateway.apply(PROBES)
    console = console_of(gateway).sign_in()
    console.menu("Scripts").click("New script").fill("Name", "frames").choose("Product", "probes").click("Make a draft").heading("frames")
    console.page.get_by_test_id("editor").wait_for()
    console.write("function rawDataToJsonStr(bytes) { throw new Error('not yet'); }").click("Publish").see("version 1 runs")
    client = Client(gateway.mqtt_address, gateway.channel("probes")).connect()
    client.publish("/sys/PROBES1/integration/model/up_raw", bytes([0, 250]))
    eventually(lambda: gateway.quarantine("probes"), "refused")
    client.close()
    console.menu("Quarantine").link("Open the script").heading("Scripts").link("frames").heading("frames")
    sample = console.page.get_by_label("Messages in quarantine that were not decoded")
    sample.select_option(index=1)
    expect(console.field("Payload")).to_have_value("APo=")
    console.write(DECODER).click("Run")
    expect(console.page.get_by_test_id("tested")).to_contain_text('"temperature": 25')
    console.click("Publish").see("version 2 runs")
    console.see("1 message in quarantine would be stored now")


def test_from_nothing_to_a_finished_import_without_the_command_line(gateway, console_of):
    """Model, product, devices, channel; copied strings in a real client; watched, rejected, cured, re-driven, charted, exported."""
    console = console_of(gateway).open("/")
    console.fill("Admin token", gateway.token).fill("User name", USER).fill("New password", PASSWORD).click("Make the user and sign in")
    console.heading("Overview")
    console.menu("Models").link("New model").fill("Name", "meter").click("Add a point").fill("Identifier of row 1", "energy")
    console.fill("Unit of energy", "kWh").click("Save").heading("meter")
    console.menu("Products").click("New product").fill("Name", "meters").fill("Key", "METERS1").choose("Model", "meter").click("Make the product")
    expect(console.row("METERS1")).to_be_visible()
    console.menu("Devices").click("New device").fill("Name", "meter-1").fill("Key", "meter-1").choose("Product", "meters").click("Register the device")
    expect(console.page.get_by_test_id("row").filter(has_text="meter-1")).to_be_visible()
    console.menu("Message Integration").click("New message channel").fill("Channel name", "archive").choose("Target product", "meters")
    console.click("Make the channel").heading("archive").click("Show the connection strings")
    strings = Strings(brokerUrl=console.copy("Broker URL"), clientId=console.copy("Client ID"), username=console.copy("User name"),
                      password=console.copy("Password"), productKey=console.copy("Product key"), secret="")
    host, port = strings.brokerUrl.removeprefix("tcp://").rsplit(":", 1)
    client = Client((host, int(port)), strings).connect()
    topic = f"/sys/{strings.productKey}/integration/measurepoint/post"
    console.open("/channels/archive/log?live=1")
    history = [("meter-1", T0 + n * 900_000, {"energy": n * 1.5}) for n in range(96)]
    assert client.post(*history, topic=topic)["code"] == 200
    expect(console.row("96 items")).to_contain_text("200 stored")
    assert client.post(("meter-2", T0, {"energy": 7.0}), topic=topic)["code"] == 1257
    expect(console.row("1257").first).to_be_visible()
    client.close()
    console.menu("Quarantine")
    cause = console.page.get_by_test_id("cause")
    expect(cause).to_contain_text("meter-2")
    console.open("/devices?tab=unknown").click("Register", within=console.row("meter-2"))
    console.click("Re-drive")
    expect(console.page.get_by_test_id("redrive")).to_contain_text("1 stored")
    console.menu("Quarantine").see("Nothing is in quarantine.")
    console.menu("History").choose("Product", "meters")
    for device in ("meter-1", "meter-2"):
        console.fill("Devices", device).page.keyboard.press("Enter")
    console.choose("Points", "energy")
    console.page.keyboard.press("Escape")
    expect(console.page.get_by_test_id("chart")).to_have_attribute("data-drawn", "97")
    console.inspect("import-finished")
    rows = list(csv.DictReader(io.StringIO(console.download("CSV").decode())))
    assert len(rows) == 97
    assert {float(row["energy"]) for row in rows if row["deviceKey"] == "meter-1"} == {values["energy"] for _, _, values in history}
    assert [row["energy"] for row in rows if row["deviceKey"] == "meter-2"] == ["7.0"]
