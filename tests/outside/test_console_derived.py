"""Rollups, reductions and the change feed in the console: declared by forms, seen as they stand, read as history."""

import csv
import io
import re

from browser import expect
from world import PRODUCT, eventually

T0 = 1_388_534_400_000
MINUTE = 60_000
QUICK = "quiet: 200ms, within: 2s"
DERIVED = f"""
kind: Policy
name: windows
products: [{PRODUCT}]
analysis: [{{ rollup: power-1h, points: [P_avg], interval: 1h, functions: [min, max, avg], {QUICK} }}]
afterCommit: [{{ reduction: slim, points: [P_avg], swingingDoor: {{ deviation: 5 }}, {QUICK} }}]
"""


def settled(gateway):
    """Every rollup has all that was answered."""
    def current():
        items = gateway.http("GET", "/api/v1/rollups").json()["items"]
        return items and all(item["state"] == "current" and item["lagCommits"] == 0 for item in items)
    eventually(current, "the rollups are current")


def test_rollups_and_reductions_are_declared_by_forms(farm, console, connect):
    console.menu("Rollups").see("No policy has a rollup or a reduction.").link("New policy").heading("New policy")
    console.fill("Name", "windows").choose("Products", PRODUCT).page.keyboard.press("Escape")
    console.click("+ rollup").fill("Name of rollup 1", "power-1d").fill("Points of rollup 1", "P_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.fill("Windows of rollup 1", "1d").page.keyboard.press("Escape")
    console.choose("Functions of rollup 1", "twa").page.keyboard.press("Escape")
    console.choose_by_typing("Zone of rollup 1", "Europe/Paris").fill("A value holds 1", "30m")
    reductions = console.page.get_by_role("region", name="Reductions")
    console.click("+ reduction").fill("Name of reduction 1", "slim").fill("Points of reduction 1", "P_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.fill("Deviation 1", "5").fill("Begins anew every 1", "6h").page.keyboard.press("Escape")
    reductions.get_by_role("switch").check()
    console.fill("At most 1", "600").fill("In 1", "10m")
    reductions.scroll_into_view_if_needed()
    console.inspect("policy-derived")
    console.click("Make the policy").heading("windows")
    made = farm.http("GET", "/api/v1/policies/windows").json()
    assert made["analysis"] == [{"rollup": "power-1d", "points": ["P_avg"], "interval": "1d", "timeZone": "Europe/Paris",
                                 "functions": ["min", "max", "avg", "twa"], "hold": "30m"}]
    assert made["afterCommit"] == [{"reduction": "slim", "points": ["P_avg"], "rateOfChange": {"most": 600, "per": "10m"},
                                    "swingingDoor": {"deviation": 5}, "restart": "6h"}]
    standing = console.page.get_by_role("region", name="How its rollups stand")
    expect(standing.get_by_role("row").filter(has_text="power-1d")).to_contain_text("Europe/Paris")
    console.menu("Policies").row("windows").get_by_role("link", name="2", exact=True).click()
    console.heading("Rollups")
    assert console.page.url.endswith("/rollups?policy=windows")


def test_a_rollup_is_seen_as_it_stands_read_as_history_and_its_changes_are_followed(farm, console, connect):
    farm.apply(DERIVED)
    client = connect()
    # A straight line with one bend: the door keeps its ends and the bend.
    values = [float(n if n < 90 else 180 - n) for n in range(181)]
    assert client.post(*(("R80711", T0 + n * MINUTE, {"P_avg": value}) for n, value in enumerate(values)))["code"] == 200
    settled(farm)
    console.menu("Rollups")
    expect(console.row("power-1h")).to_contain_text("current")
    expect(console.row("slim")).to_contain_text("reduction")
    console.inspect("rollups")
    console.choose("Kind", "reduction")
    expect(console.row("power-1h")).to_have_count(0)
    assert "kind=reduction" in console.page.url
    console.open("/rollups").link("power-1h").heading("History")
    chart = console.page.get_by_test_id("chart")
    expect(console.page.get_by_test_id("derived")).to_contain_text("Windows of 1h, kept computed")
    # Four windows of three functions.
    expect(chart).to_have_attribute("data-drawn", "12")
    console.inspect("history-rollup").tab("Table")
    windows = console.page.get_by_role("table", name="Windows")
    expect(windows.get_by_role("row").nth(1)).to_contain_text("2014-01-01 00:00:00")
    expect(windows.get_by_role("row").nth(1)).to_contain_text("29.5")
    rows = list(csv.DictReader(io.StringIO(console.download("CSV").decode())))
    assert [float(row["P_avg.avg"]) for row in rows if row["deviceKey"] == "R80711"][0] == 29.5
    console.tab("Chart").choose("Rollup or reduction", "slim (1d)")
    expect(chart).to_have_attribute("data-drawn", "3")
    console.see("3 rows that the reduction keeps.").inspect("history-reduction")

    console.open("/rollups?tab=changes&rollup=power-1h")
    changes = console.page.get_by_role("table", name="Changes")
    expect(changes.get_by_role("row").nth(1)).to_contain_text("R80711")
    console.inspect("rollup-changes")
    console.page.get_by_role("switch", name="As it happens").click()
    assert client.post(("R80721", T0, {"P_avg": 7.0}))["code"] == 200
    expect(changes.get_by_role("row").nth(1)).to_contain_text("R80721")
    console.fill("To", "2014-01-01T01:00Z").fill("Device", "R80721")
    expect(changes.get_by_role("row")).to_have_count(2)
    assert "live=1" in console.page.url and "device=R80721" in console.page.url
    changes.get_by_role("link", name="Show").click()
    console.heading("History")
    expect(console.page.get_by_test_id("derived")).to_be_visible()
    console.open("/rollups?tab=changes&device=none").see("No change fits the filters.")
    console.menu("Overview")
    console.page.get_by_role("link", name=re.compile("^Rollups current")).click()
    console.heading("Rollups")
