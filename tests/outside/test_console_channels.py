"""Message Integration in the console: list, create, details, log, message inspector."""

import json
import shlex
import subprocess

from browser import expect
from certs import Certs
from mqtt import Client
from world import CHANNEL, FARM, Strings, eventually

T0 = 1_388_534_400_000


def strings_on(console):
    """The four strings as a person copies them."""
    console.click("Show the connection strings")
    return Strings(brokerUrl=console.copy("Broker URL"), clientId=console.copy("Client ID"), username=console.copy("User name"),
                   password=console.copy("Password"), productKey=console.copy("Product key"), secret=console.copy("Product secret"))


def test_the_list_shows_each_channel_and_keeps_its_filters_in_the_address(farm, console, connect):
    farm.apply("kind: Channel\nname: spare-2\nproduct: wind-farm\nmode: lenient\n")
    farm.cli("channel", "pause", "spare-2")
    connect().post(("R80711", T0, {"P_avg": 1.0}))
    console.menu("Message Integration")
    expect(console.row(CHANNEL)).to_contain_text("open")
    expect(console.row(CHANNEL)).to_contain_text("strict")
    expect(console.row("spare-2")).to_contain_text("paused")
    expect(console.row(CHANNEL).get_by_role("img", name="1 message, 0 refused")).to_be_visible()
    console.inspect("channels")
    console.choose("State", "paused")
    expect(console.row(CHANNEL)).to_have_count(0)
    assert "state=paused" in console.page.url
    console.page.reload()
    expect(console.row("spare-2")).to_be_visible()
    expect(console.row(CHANNEL)).to_have_count(0)


def test_a_channel_is_made_and_its_copied_strings_log_a_client_in(farm, console):
    console.menu("Message Integration").click("New message channel")
    dialog = console.dialog()
    expect(dialog).to_be_visible()
    console.fill("Channel name", "历史-1").fill("Description", "from the plant").inspect("channel-new")
    console.click("Make the channel").heading("历史-1").see("Waiting for your first message…")
    expect(console.page.get_by_label("Password", exact=True)).to_have_count(0)
    strings = strings_on(console)
    console.inspect("channel-details")
    assert strings == farm.channel("历史-1")
    client = Client(farm.mqtt_address, strings).connect()
    console.see("A client is connected")
    assert client.post(("R80711", T0, {"P_avg": 1.0}))["code"] == 200
    client.close()
    expect(console.page.get_by_test_id("first-message")).to_contain_text("The last message came")
    deeds = farm.http("GET", "/api/v1/access/audit?author=mei").json()["items"]
    assert [deed["action"] for deed in deeds if deed["object"] == "历史-1"][:1] == ["channel secret shown"]


def test_a_name_that_is_taken_is_refused_with_cause_and_fix(console):
    console.menu("Message Integration").click("New message channel").fill("Channel name", CHANNEL).click("Make the channel")
    alert = console.page.get_by_test_id("problem")
    expect(alert).to_contain_text("conflict")
    expect(alert).to_contain_text("is there already")
    expect(alert).to_contain_text("What to do: choose another name")


def test_the_command_for_mosquitto_pub_works_as_pasted(farm, console, connect):
    console.open(f"/channels/{CHANNEL}").click("Show the connection strings")
    command = console.copy("mosquitto_pub").replace("DEVICE", "R80711").replace("POINT", "P_avg")
    done = subprocess.run(shlex.split(command.replace("\\\n", " ")), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    eventually(lambda: farm.cells(devices=["R80711"], points=["P_avg"]), "stored")


def test_pausing_disconnects_and_rotating_keeps_the_old_password_for_a_while(farm, console, connect):
    client = connect()
    console.open(f"/channels/{CHANNEL}")
    console.click("Pause")
    console.click("Pause", within=console.dialog())
    eventually(lambda: client.disconnects, "disconnected")
    console.click("Open again")
    expect(console.page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    before = strings_on(console)
    console.click("New password…")
    console.click("Make a new password", within=console.dialog())
    console.see("is valid until")
    assert console.copy("Password") != before.password
    Client(farm.mqtt_address, before).connect().close()


def test_the_log_shows_its_three_kinds_filters_and_follows_live(farm, console, connect):
    client = connect()
    client.post(("R80711", T0, {"P_avg": 1.0}))
    client.post(("R80711", T0, {"P_avg": "much"}))
    console.open(f"/channels/{CHANNEL}/log")
    for kind in ("connect", "transmission", "error"):
        expect(console.row(kind).first).to_be_visible()
    console.inspect("channel-log")
    console.choose("Kind", "errors")
    expect(console.row("transmission")).to_have_count(0)
    expect(console.row("1204")).to_have_count(1)
    assert "kind=error" in console.page.url
    console.click("Show", within=console.row("1204"))
    console.see("See what was refused for this").inspect("channel-log-entry")
    console.page.keyboard.press("Escape")
    console.page.get_by_role("switch", name="Live").click()
    expect(console.row("1204")).to_have_count(1)
    client.post(("NOBODY", T0, {"P_avg": 1.0}))
    expect(console.row("1257")).to_be_visible()
    exported = json.loads(console.download("Export"))
    assert {entry["code"] for entry in exported["items"]} == {1204, 1257}


def test_the_log_goes_on_after_a_restart(farm, console, connect):
    console.open(f"/channels/{CHANNEL}/log?live=1")
    client = connect()
    expect(console.row("connect").first).to_be_visible()
    client.close()
    farm.restart()
    connect().post(("NOBODY", T0, {"P_avg": 1.0}))
    expect(console.row("1257").first).to_be_visible()
    console.trouble.clear()


def test_a_message_is_recorded_inspected_and_run_again_dry(farm, console, connect):
    console.open(f"/channels/{CHANNEL}/messages").click("Record")
    expect(console.page.get_by_role("status").filter(has_text="recording").first).to_have_text("recording")
    connect().post(("R80711", T0, {"P_avg": "much"}))
    console.click("Show", within=console.row("1204"))
    drawer = console.dialog()
    expect(drawer.get_by_role("table", name="Steps")).to_be_visible()
    expect(drawer).to_contain_text('"P_avg": "much"')
    drawer.get_by_role("tab", name="Hex").click()
    expect(drawer.get_by_role("region", name="Hex")).to_contain_text("7b 22")
    expect(drawer.get_by_label("Reply", exact=True)).to_contain_text('"code":1204')
    console.inspect("message-inspector")
    farm.apply(FARM.read_text().replace("P_avg: { type: double, unit: kW, signal: AI }", "P_avg: { type: string }"))
    console.click("Run again as dry run")
    expect(console.page.get_by_test_id("dry-run")).to_contain_text("1 of 1 items would be stored")
    assert "message=" in console.page.url


def settings(console):
    return console.open(f"/channels/{CHANNEL}/settings").see("How much it may bring in a second")


def declared(farm):
    return farm.cli("get", "channel", CHANNEL, "-o", "json").json()


def switch(console, name):
    console.page.get_by_role("switch", name=name).click()


def test_every_bound_of_a_channel_has_a_field_and_what_is_set_is_told_in_words(farm, console):
    settings(console).inspect("channel-settings")
    console.page.get_by_role("radio", name="is refused by itself (lenient)").check()
    console.fill("Connections at one time (clients)", "12")
    console.page.get_by_role("checkbox", name="MD5").check()
    console.fill("Messages (a second)", "100").fill("Payload (bytes a second)", "1000000")
    switch(console, "A share of its own for recent data")
    console.fill("Values are recent for (seconds)", "3600").fill("Values of recent data (a second)", "5000")
    switch(console, "Watch how much is refused")
    console.fill("May be refused (% of messages)", "7.5").fill("At least (messages)", "50")
    switch(console, "Hold the channel when it is overspent")
    console.inspect("channel-quotas").click("Save").see("Saved.")
    file = declared(farm)
    assert file["mode"] == "lenient" and file["connectionsMax"] == 12 and file["refuse"] == ["md5"]
    assert file["quotas"] == {"messagesPerSecond": 100, "bytesPerSecond": 1_000_000, "recent": {"withinSeconds": 3600, "pointsPerSecond": 5000}}
    assert file["errorBudget"] == {"refused": 0.075, "windowSeconds": 300, "messagesMin": 50, "hold": True}
    console.tab("Connection details")
    bounds = console.page.get_by_role("region", name="Certificates and quotas")
    expect(bounds).to_contain_text("100 messages a second · 976.6 KiB a second")
    expect(bounds).to_contain_text("values of the last 1 h: 5,000 values a second")
    expect(bounds).to_contain_text("7.5 % of messages may be refused within 5 min, of 50 or more · beyond, the channel is held")
    console.link("Change in the settings")
    # What is emptied is declared no more.
    console.fill("Connections at one time (clients)", "").fill("Messages (a second)", "").fill("Payload (bytes a second)", "")
    switch(console, "A share of its own for recent data")
    switch(console, "Watch how much is refused")
    console.click("Save").see("Saved.")
    expect(console.page.get_by_text("Saved.").first).to_be_visible()
    eventually(lambda: "quotas" not in declared(farm), "saved")
    assert not {"quotas", "errorBudget", "connectionsMax"} & set(declared(farm))


def test_what_the_gateway_refuses_is_told_at_the_field(farm, console):
    settings(console)
    switch(console, "Watch how much is refused")
    console.fill("May be refused (% of messages)", "100").click("Save")
    field = console.field("May be refused (% of messages)")
    expect(field).to_have_attribute("aria-invalid", "true")
    console.see("give 0 up to less than 1").inspect("channel-settings-refused")
    console.fill("May be refused (% of messages)", "5").fill("Counted over the last (seconds)", "90000").click("Save")
    expect(field).not_to_have_attribute("aria-invalid", "true")
    expect(console.field("Counted over the last (seconds)")).to_have_attribute("aria-invalid", "true")
    console.fill("Counted over the last (seconds)", "600")
    switch(console, "Look at client certificates")
    console.fill("Fingerprints (SHA-256)", "abcd").page.keyboard.press("Enter")
    console.click("Save")
    expect(console.field("Fingerprints (SHA-256)")).to_have_attribute("aria-invalid", "true")
    assert "errorBudget" not in declared(farm), "nothing of what was refused is kept"


def test_a_certificate_is_bound_by_its_fingerprint_and_subject(farm, console, tmp_path):
    certs = Certs(tmp_path / "certs")
    certs.cli("client", "plant-7", "--organization", "Acme")
    settings(console)
    switch(console, "Look at client certificates")
    console.fill("Fingerprints (SHA-256)", certs.fingerprint("plant-7")).page.keyboard.press("Enter")
    console.click("Add a part of the subject").fill("Value 1", "plant-7").click("Add a part of the subject").fill("Value 2", "Acme")
    console.inspect("channel-certificate").click("Save").see("Saved.")
    assert declared(farm)["clientCertificate"] == {
        "required": True, "sha256": [certs.fingerprint("plant-7")], "subject": {"CN": "plant-7", "O": "Acme"}}
    console.tab("Connection details").see("Without a client certificate nobody logs in").see("CN=plant-7, O=Acme")


def test_settings_are_changed_as_text_too_and_wrong_ones_refused_by_name(farm, console):
    settings(console).page.get_by_role("radio", name="Text").check()
    expect(console.page.get_by_test_id("editor")).to_contain_text("strict")
    console.write(json.dumps({"kind": "Channel", "name": CHANNEL, "product": "wind-farm", "quota": 1})).click("Save")
    expect(console.page.get_by_test_id("problem")).to_contain_text("quota")
    console.write(json.dumps({"kind": "Channel", "name": CHANNEL, "product": "wind-farm", "mode": "lenient"})).click("Save").see("Saved.")
    assert declared(farm)["mode"] == "lenient"
    console.page.get_by_role("radio", name="Form").check()
    expect(console.page.get_by_role("radio", name="is refused by itself (lenient)")).to_be_checked()


def test_a_viewer_reads_the_settings_in_chinese_and_changes_nothing(farm, console_of):
    console = console_of(farm).sign_in("reader", role="viewer")
    settings(console).choose("Language", "中文")
    console.see("每秒可带来多少数据").inspect("channel-settings-zh")
    expect(console.page.get_by_role("button", name="保存")).to_have_count(0)
    expect(console.page.get_by_label("消息 (每秒)")).to_be_disabled()
