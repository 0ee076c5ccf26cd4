"""The console's frame: signing in, the overview, live figures, languages, what it weighs and is made of."""

import re
import socket

import requests

from browser import PASSWORD, USER, expect
from world import CHANNEL, eventually

T0 = 1_388_534_400_000


def test_the_first_sign_in_takes_the_admin_token_and_makes_a_user(gateway, console_of):
    console = console_of(gateway).open("/devices")
    console.heading("Backtide").see("Nobody can sign in yet")
    console.inspect("sign-in")
    console.fill("Admin token", "wrong").fill("User name", USER).fill("New password", PASSWORD)
    console.click("Make the user and sign in").see("unauthorized")
    console.fill("Admin token", gateway.token).click("Make the user and sign in")
    console.heading("Devices"), "the page that was asked for"
    again = console_of(gateway).open("/")
    again.fill("User name", USER).fill("Password", "wrong wrong wrong").click("Sign in").see("wrong-credentials")
    again.fill("Password", PASSWORD).click("Sign in").heading("Overview")


def test_signing_out_ends_the_session(console):
    console.click("mei admin").page.get_by_role("menuitem", name="Sign out").click()
    console.heading("Backtide")
    assert console.context.request.get("/api/v1/access/me").status == 401


def test_one_changes_ones_own_password(console):
    console.click("mei admin").page.get_by_role("menuitem", name="Change password").click()
    console.fill("Password", "not mine at all").fill("New password", "another good one").click("Change password").see("wrong-credentials")
    console.fill("Password", PASSWORD).click("Change password").heading("Backtide")
    console.fill("User name", USER).fill("Password", "another good one").click("Sign in").heading("Overview")


def test_the_overview_tells_what_happens_and_each_number_leads_to_its_list(farm, console, connect):
    console.heading("Overview")
    client = connect()
    assert client.post(("R80711", T0, {"P_avg": 1.0}))["code"] == 200
    assert client.post(("NOBODY", T0, {"P_avg": 1.0}))["code"] == 1257
    expect(console.page.get_by_test_id("live")).to_have_text("live")
    quarantine = console.page.get_by_role("link", name=re.compile("^In quarantine"))
    expect(quarantine).to_contain_text("In quarantine1")
    console.see("device NOBODY")
    console.inspect("overview")
    quarantine.click()
    console.heading("Quarantine").page.go_back()
    console.page.get_by_role("link", name=re.compile("^Channels open")).click()
    console.heading("Message Integration").see(CHANNEL)
    assert console.page.url.endswith("/channels?state=open")


def test_how_long_the_disk_lasts_is_told_and_not_made_up(farm, console):
    console.heading("Overview").see("The disk lasts").see("not known yet").see("an hour says something")
    console.menu("Storage")
    expect(console.page.get_by_role("region", name="Disk")).to_contain_text("not known yet")

    # An hour does not pass in a test: the figures of one that has passed are put in its place.
    growth = {"state": "growing", "dataBytes": 5 << 30, "measuredSeconds": 7200, "neededSeconds": 3600, "bytesPerDay": 3.5 * (1 << 30), "daysLeft": 4.25}
    console.page.route("**/api/v1/stream", lambda route: route.abort())
    console.page.route("**/api/v1/overview", lambda route: route.fulfill(json={**route.fetch().json(), "growth": growth}))
    console.open("/").see("4.3 days").see("3.5 GiB a day more, as measured for 2 h")
    growth.update(state="steady", bytesPerDay=-1024.0)
    del growth["daysLeft"]
    console.open("/").see("for years").see("1 KiB a day less, as measured for 2 h")
    console.trouble.clear()


def test_rules_that_fail_are_on_the_overview_with_their_cause(farm, console, connect):
    farm.apply("kind: Rule\nname: nowhere\nto: { webhook: { url: 'http://127.0.0.1:9/in' } }\n")
    assert connect().post(("R80711", T0, {"P_avg": 1.0}))["code"] == 200
    troubled = console.page.get_by_role("table", name="Rules that lag or fail")
    expect(troubled).to_contain_text("delivery fails")
    expect(troubled).to_contain_text("127.0.0.1:9")
    console.inspect("overview-rules")
    console.page.get_by_role("link", name=re.compile("^Greatest lag of a rule")).click()
    console.heading("Rules")
    assert console.page.url.endswith("/rules?state=failing")
    expect(console.row("nowhere")).to_contain_text("delivery fails")


def test_live_figures_come_back_after_the_gateway_was_away(farm, console):
    live = console.page.get_by_test_id("live")
    expect(live).to_have_text("live")
    farm.terminate()
    expect(live).to_have_text("connecting…")
    farm.start()
    expect(live).to_have_text("live")
    console.trouble.clear()


def test_a_slow_browser_costs_nothing(farm):
    """Ten streams that nobody reads: the gateway answers others, and holds no more memory than before."""
    def resident_kb():
        status = open(f"/proc/{farm.process.pid}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    host, port = farm.addresses["http"].rsplit(":", 1)
    request = f"GET /api/v1/stream HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {farm.token}\r\n\r\n".encode()
    before = resident_kb()
    readers = [socket.create_connection((host, int(port))) for _ in range(10)]
    for reader in readers:
        reader.sendall(request)
    beats = lambda: farm.http("GET", "/api/v1/overview").json()["time"]
    begun = beats()
    eventually(lambda: beats() > begun + 3_000, "three beats passed", within_s=30)
    assert resident_kb() - before < 20_000
    for reader in readers:
        reader.close()


def test_streams_are_bounded(farm):
    answers = [requests.get(farm.url + "/api/v1/stream", headers={"Authorization": f"Bearer {farm.token}"}, stream=True, timeout=60)
               for _ in range(21)]
    assert [a.status_code for a in answers] == [200] * 20 + [503]
    assert answers[-1].json()["code"] == "busy"
    for answer in answers:
        answer.close()


def test_it_speaks_chinese_and_shows_times_in_a_zone(console):
    console.menu("Message Integration")
    console.choose("Language", "中文").heading("消息集成")
    console.inspect("channels-zh")
    console.page.get_by_role("navigation", name="菜单").get_by_role("link", name="隔离区").click()
    console.heading("隔离区")
    console.page.reload()
    console.heading("隔离区"), "the choice stays"


def test_the_keyboard_reaches_the_content_and_the_menu(console):
    page = console.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.get_by_role("link", name="Devices", exact=True).focus()
    page.keyboard.press("Enter")
    console.heading("Devices")


def test_typing_a_name_leads_anywhere(console):
    page = console.page
    page.keyboard.press("Control+k")
    found = page.get_by_role("region", name="Found")
    console.fill("Screen, name or receipt", "R807")
    expect(found.get_by_role("link")).to_have_count(4)
    console.inspect("find")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(found.get_by_role("link", name="R80721")).to_be_focused()
    page.keyboard.press("Enter")
    console.heading("R80721")
    console.click("Find…", exact=False).fill("Screen, name or receipt", "quaran").page.keyboard.press("Enter")
    console.heading("Quarantine")


def test_an_address_that_is_none_is_told_and_no_dead_end(console):
    console.open("/nothing/here").see("There is no such page.").page.get_by_role("main").get_by_role("link", name="Overview").click()
    console.heading("Overview")


def test_a_viewer_sees_no_button_that_would_be_refused(farm, console_of):
    console = console_of(farm).sign_in(name="vera", role="viewer")
    console.menu("Message Integration").link(CHANNEL).see("Only an admin can see them.")
    for name in ("Pause", "New message channel", "Delete"):
        expect(console.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    expect(console.page.get_by_role("link", name="Access", exact=True)).to_have_count(0)


def test_the_first_load_is_small_cached_and_from_nowhere_else(farm, console_of):
    console = console_of(farm)
    loaded = {}
    console.page.on("response", lambda answer: loaded.__setitem__(answer.url, answer))
    console.sign_in()
    console.heading("Overview")
    assets = [answer for url, answer in loaded.items() if "/assets/" in url]
    size = sum(int(answer.header_value("content-length")) for answer in assets)
    assert assets and size < 500_000, size
    assert all(answer.header_value("content-encoding") == "gzip" for answer in assets)
    assert all("immutable" in answer.header_value("cache-control") for answer in assets)
    page = requests.get(farm.url + "/", headers={"Accept": "text/html"}, timeout=60)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-cache" and page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://", page.text), "the page names nothing elsewhere"
    plain = requests.get(farm.url + "/", headers={"Accept": "text/html", "Accept-Encoding": "identity"}, timeout=60)
    assert plain.text == page.text


def test_access_is_managed_by_clicking(console):
    console.menu("Access").click("New user")
    console.fill("User name", "otto").fill("New password", "long enough indeed").click("Save", within=console.dialog())
    expect(console.row("otto")).to_contain_text("viewer")
    console.inspect("access-users")
    console.click("Delete", within=console.row("otto"))
    console.click("Delete", within=console.dialog())
    expect(console.row("otto")).to_have_count(0)
    console.tab("API tokens").click("New token").fill("Name", "ci").click("Make the token")
    assert console.value("Token").startswith("bt_")
    console.inspect("access-tokens")
    console.tab("Sessions").see("this one").inspect("access-sessions")
    console.tab("Audit trail")
    console.click("Show", within=console.row("user deleted"))
    console.see('"role": "viewer"').inspect("access-audit")
