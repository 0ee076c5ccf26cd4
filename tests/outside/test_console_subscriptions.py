"""Subscriptions, access keys and storage in the console."""

import subprocess

from browser import expect
from subscription_wire import Session
from test_subscribe import address, key_of
from world import TOOLS, eventually

T0 = 1_388_534_400_000
OBJECTS = "{kind: AccessKey, name: analytics}\n---\n{kind: Subscription, name: history, accessKey: analytics}\n"


def post(client, count, first=0):
    for n in range(first, first + count):
        assert client.post(("R80711", T0 + n * 1000, {"P_avg": float(n)}))["code"] == 200


def test_a_key_and_a_subscription_are_made_and_the_pasted_program_reads(farm, console, connect, tmp_path):
    console.menu("Access keys").click("New access key").fill("Name", "reports").click("Make the access key")
    console.click("Show key and secret")
    secret = console.copy("Access secret")
    console.inspect("access-key")
    console.page.keyboard.press("Escape")
    console.menu("Subscriptions").click("New subscription").fill("Subscription id", "power").choose("Access key", "reports")
    console.fill("Points", "P_avg").page.keyboard.press("Enter")
    console.inspect("subscription-new")
    console.click("Make the subscription").heading("power").click("Show key and secret")
    program = tmp_path / "reader.py"
    program.write_text(console.copy("Python, enos-subscribe"))
    assert secret in program.read_text()
    console.inspect("subscription-connect")
    complaints = tmp_path / "stderr"
    with complaints.open("w") as stderr:
        reader = subprocess.Popen([TOOLS / "enos-subscribe/bin/python", "-u", program], stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        connect().post(("R80711", T0, {"P_avg": 1.5, "Ws_avg": 7.0}))
        line = reader.stdout.readline()
        assert "1.5" in line and "Ws_avg" not in line, complaints.read_text()
        console.tab("Groups and offsets")
        group = console.page.get_by_role("region", name="Group reports")
        expect(group).to_contain_text("1 member")
    finally:
        reader.kill()
        reader.wait()
    audit = [deed["action"] for deed in farm.http("GET", "/api/v1/access/audit?author=mei").json()["items"]]
    assert audit.count("access key secret shown") == 2, audit


def test_groups_are_shown_with_their_lag_and_replayed_from_a_time(farm, console, connect):
    farm.apply(OBJECTS)
    client = connect()
    post(client, 5)
    session = Session(address(farm)).subscribe(key_of(farm), "history", "reports")
    read = []
    eventually(lambda: read.extend(session.pull()) or len(read) == 5, "five messages were read")
    partition, offset, _ = read[-1]
    session.commit("history", partition, offset + 1)
    console.menu("Subscriptions")
    row = console.row("history")
    expect(row).to_contain_text("running")
    console.inspect("subscriptions")
    console.link("history").heading("history")
    group = console.page.get_by_role("region", name="Group reports")
    expect(group).to_contain_text("lag 0")
    post(client, 2, first=5)
    expect(group).to_contain_text("lag 2")
    console.inspect("subscription")
    console.click("Replay reports…").click("all that is kept")
    console.click("Replay", within=console.dialog())
    expect(console.page.get_by_test_id("replayed")).to_contain_text("offset 0")
    console.inspect("subscription-replay")
    console.click("Close", within=console.dialog())
    expect(group).to_contain_text("lag 7")
    session.close()


def test_a_subscription_is_stopped_started_changed_and_deleted(farm, console):
    farm.apply(OBJECTS)
    console.open("/subscriptions/history")
    console.click("Stop")
    console.click("Stop", within=console.dialog())
    console.see("It does not run: start it to see its groups.").menu("Subscriptions")
    console.choose("State", "running").see("No subscription fits the filters.")
    console.choose("State", "stopped")
    assert console.page.url.endswith("?state=stopped")
    console.link("history").click("Start").see("No application has read it yet.")
    console.tab("Settings").fill("Kept for hours", "24").click("Save")
    eventually(lambda: farm.cli("get", "subscription", "history", "-o", "json").json()["retentionHours"] == 24, "changed")
    console.open("/subscriptions/history/settings").inspect("subscription-settings")
    console.click("Delete")
    console.click("Delete", within=console.dialog())
    console.heading("Subscriptions").see("There is no subscription yet.")


def test_a_secret_is_rotated_with_an_overlap_and_revoked(farm, console):
    farm.apply(OBJECTS)
    console.menu("Access keys")
    expect(console.row("analytics").get_by_role("link", name="1", exact=True)).to_be_visible()
    console.inspect("access-keys")
    console.click("Secret of analytics").click("Show key and secret")
    before = console.copy("Access secret")
    console.click("New secret…")
    modal = console.page.get_by_role("dialog", name="A new secret for analytics")
    console.click("New secret…", within=modal)
    console.see("The secret before this one is valid until")
    assert console.copy("Access secret") != before
    console.click("Revoke")
    console.click("Revoke", within=console.page.get_by_role("dialog", name="Revoke analytics?"))
    console.see("Nobody logs in with this key until it has a new secret.")
    assert farm.http("GET", "/api/v1/access-keys/analytics/credential").json()["revoked"]
    console.click("Delete")
    console.click("Delete", within=console.page.get_by_role("dialog", name="Delete analytics?"))
    expect(console.page.get_by_test_id("problem")).to_contain_text("in-use")


def test_a_viewer_of_subscriptions_sees_no_secret_and_changes_nothing(farm, console_of):
    farm.apply(OBJECTS)
    console = console_of(farm).sign_in(name="vera", role="viewer")
    console.open("/subscriptions/history/connect").see("Only an admin can see them.")
    for name in ("Stop", "Delete", "Show key and secret"):
        expect(console.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    console.tab("Settings")
    expect(console.page.get_by_role("button", name="Save", exact=True)).to_have_count(0)


def test_storage_tells_what_is_held_compacts_and_finds_a_receipt(farm, console, connect):
    client = connect()
    post(client, 3)
    console.menu("Storage").click("Compact now")
    console.click("Compact now", within=console.dialog())
    stored = console.page.get_by_role("region", name="What is stored")
    expect(stored).to_contain_text("Values3")
    receipt = next(entry["receipt"] for entry in farm.channel_log() if entry["kind"] == "transmission")
    console.fill("Receipt of a reply", receipt)
    expect(console.page.get_by_test_id("receipt")).to_contain_text("scada-history")
    console.inspect("storage")
    console.link("scada-history").heading("scada-history")
    console.page.go_back()
    console.fill("Receipt of a reply", "nonsense").see("not-found")


def test_a_gap_is_counted_and_shown_where_it_is(farm, console, connect):
    client = connect()
    minutes = [*range(60), *range(600, 660)]
    client.post(*(("R80711", T0 + n * 60_000, {"P_avg": 1.0}) for n in minutes))
    console.open("/devices/wind-farm/R80711")
    expect(console.row("P_avg").get_by_role("link", name="1 gap longer than 30m, the longest 9 h 1 min")).to_be_visible()
    console.inspect("device-coverage")
    console.open("/history?product=wind-farm&device=R80711&points=P_avg").click("1 gap longer than 30m, the longest 9 h 1 min")
    expect(console.page.get_by_role("button", name="All times")).to_be_visible()
    assert "from=2013-12-31" in console.page.url or "from=2014-01-01" in console.page.url
