"""Policies in the console: made by a form, looked at before, and told for a point."""

import json

from browser import eventually, expect
from world import CHANNEL

T0 = 1_388_534_400_000


def test_a_policy_is_made_by_the_form_previewed_and_told_for_a_point(farm, console, connect):
    console.menu("Policies").see("There is no policy").link("New policy").heading("New policy")
    console.fill("Name", "units").click("+ scale")
    console.fill("1. scale", "P_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.fill("Factor 1", "0.001").click("Preview")
    preview = console.page.get_by_test_id("preview")
    expect(preview).to_contain_text("Preview: nothing has changed")
    expect(preview.get_by_role("row").filter(has_text="P_avg")).to_contain_text("0.001")
    console.inspect("policy-new")
    console.click("Make the policy").heading("units")
    assert connect().post(("R80711", T0, {"P_avg": 1500.0}))["code"] == 200
    assert farm.cells(devices=["R80711"], points=["P_avg"]) == {("R80711", T0, "P_avg"): 1.5}
    console.menu("Policies").choose("Product", "wind-farm").fill("Device", "R80711").page.keyboard.press("Escape")
    console.choose("Point", "P_avg")
    effective = console.page.get_by_test_id("effective")
    expect(effective).to_contain_text(f"By channel {CHANNEL}")
    expect(effective).to_contain_text("0.001")
    expect(effective).to_contain_text("kept for ever")
    assert "point=P_avg" in console.page.url
    console.inspect("policies")


def test_a_script_over_the_points_of_a_row_is_written_in_the_form(farm, console, connect):
    console.open("/new-policy").fill("Name", "gusts").choose("Products", "wind-farm").page.keyboard.press("Escape")
    console.click("+ run a script").fill("1. run a script", "P_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.fill("Reads 1", "Ws_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.write("function transform(row) {\n  return { P_avg: row.Ws_avg ** 3 };\n}")
    console.click("Preview")
    expect(console.page.get_by_test_id("preview").get_by_role("row").filter(has_text="P_avg")).to_contain_text("script")
    console.inspect("policy-script")
    console.click("Make the policy").heading("gusts")
    assert connect().post(("R80711", T0, {"P_avg": 1.0, "Ws_avg": 2.0}))["code"] == 200
    assert farm.cells(devices=["R80711"], points=["P_avg"]) == {("R80711", T0, "P_avg"): 8.0}


def test_what_would_be_too_old_is_told_before_it_goes(farm, console, connect):
    assert connect().post(*(("R80711", T0 + n, {"P_avg": 1.0}) for n in range(10)))["code"] == 200
    farm.compact()
    console.open("/new-policy").fill("Name", "short").choose("Products", "wind-farm").page.keyboard.press("Escape")
    console.click("+ storage rule").fill("Kept for days 1", "30").click("Preview")
    preview = console.page.get_by_test_id("preview")
    expect(preview).to_contain_text("10 values, 0 events and 0 attribute values would go")
    expect(preview).to_contain_text("Device R80711 would lose 10 P_avg")
    console.inspect("policy-retention")
    assert len(farm.cells(devices=["R80711"], points=["P_avg"])) == 10, "a preview changes nothing"


def test_storage_rules_are_a_list_of_forms_with_every_member(farm, console):
    console.open("/new-policy").fill("Name", "farm-storage").choose("Models", "turbine").page.keyboard.press("Escape")
    console.click("+ storage rule").fill("Kept for days 1", "3650")
    console.click("+ storage rule").fill("Points 2", "P_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.field_of("Which values 2").select_option("both")
    console.fill("Every one for days 2", "90").fill("Kept for days 2", "1825")
    console.click("+ storage rule").fill("Points 3", "Ws_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.page.get_by_role("checkbox", name="Only where it changes 3").check()
    console.fill("Kept for days 3", "")
    console.click("+ storage rule")
    console.field_of("Is about 4").select_option("events")
    console.field_of("Counted from 4").select_option("import")
    console.click("+ storage rule").click("Remove Storage rule 5").inspect("policy-storage")
    console.click("Make the policy").heading("farm-storage")
    assert farm.http("GET", "/api/v1/policies/farm-storage").json()["storage"] == [
        {"keepDays": 3650}, {"points": ["P_avg"], "keep": "both", "rawDays": 90, "keepDays": 1825},
        {"points": ["Ws_avg"], "changeOnly": True}, {"of": "events", "keepDays": 365, "by": "import"}]
    console.menu("Policies")
    expect(console.row("farm-storage")).to_contain_text("P_avg: by the minute, 1825 days from their time")
    console.link("farm-storage").heading("farm-storage").fill("Kept for days 1", "3000").click("Save")
    eventually(lambda: farm.http("GET", "/api/v1/policies/farm-storage").json()["storage"][0] == {"keepDays": 3000}, "it is saved")


def test_a_wrong_policy_is_refused_and_one_is_deleted(farm, console):
    farm.apply("kind: Policy\nname: units\nprocessing: [{ points: [P_avg], scale: { factor: 0.001 } }]\n")
    console.open("/policies/units").click("+ convert")
    console.fill("2. convert", "Ot_avg").page.keyboard.press("Enter")
    console.page.keyboard.press("Escape")
    console.fill("From unit 2", "bananas").fill("To unit 2", "Cel").click("Save")
    expect(console.page.get_by_test_id("problem")).to_contain_text("bananas")
    console.click("Delete")
    console.click("Delete", within=console.dialog())
    console.heading("Policies").see("There is no policy")


def test_parts_of_a_policy_that_the_form_does_not_know_are_shown_and_saved_as_they_are(farm, console):
    """A later gateway says more: its answer is made out of this one's, and what the form sends back is looked at."""
    farm.apply("kind: Policy\nname: units\nprocessing: [{ points: [P_avg], scale: { factor: 0.001 } }]\nstorage: { keepDays: 30000 }\n")
    more = {"forecast": {"window": "1h", "none": []}, "empty": {}}
    sent = []

    def told(route):
        file = route.fetch().json()
        file["storage"]["mode"] = "thinned"
        file["processing"].append({"points": ["P_avg"], "smooth": {"over": "5m"}})
        route.fulfill(json={**file, **more})

    def taken(route):
        sent.append(json.loads(route.request.post_data))
        route.fulfill(json={"dryRun": False, "created": 0, "changed": 1, "unchanged": 0, "objects": []})

    console.page.route("**/api/v1/policies/units", told)
    console.page.route("**/api/v1/apply", taken)
    console.open("/policies/units")
    expect(console.page.get_by_test_id("kept")).to_have_count(3)
    console.see('"over": "5m"').see('"window": "1h"').inspect("policy-kept")
    console.fill("Kept for days 1", "31000").fill("Factor 1", "0.01").click("Save").see("Saved.")
    [[file]] = sent
    assert {name: file[name] for name in more} == more
    assert file["storage"] == {"keepDays": 31000, "mode": "thinned"}
    assert file["processing"] == [{"points": ["P_avg"], "scale": {"factor": 0.01, "offset": 0}}, {"points": ["P_avg"], "smooth": {"over": "5m"}}]
