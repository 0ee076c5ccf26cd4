"""Policies in the console: made by a form, looked at before, and told for a point."""

import json

from browser import expect
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


def test_what_would_be_too_old_is_told_before_it_goes(farm, console, connect):
    assert connect().post(*(("R80711", T0 + n, {"P_avg": 1.0}) for n in range(10)))["code"] == 200
    farm.compact()
    console.open("/new-policy").fill("Name", "short").choose("Products", "wind-farm").page.keyboard.press("Escape")
    console.page.get_by_role("checkbox", name="Only for a time").check()
    console.fill("Days", "30").click("Preview")
    expect(console.page.get_by_test_id("preview")).to_contain_text("About 10 of 10 rows would go")
    console.inspect("policy-retention")
    assert len(farm.cells(devices=["R80711"], points=["P_avg"])) == 10, "a preview changes nothing"


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
    more = {"analysis": {"window": "1h", "none": []}, "empty": {}}
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
    console.fill("Days", "31000").fill("Factor 1", "0.01").click("Save").see("Saved.")
    [[file]] = sent
    assert {name: file[name] for name in more} == more
    assert file["storage"] == {"keepDays": 31000, "mode": "thinned"}
    assert file["processing"] == [{"points": ["P_avg"], "scale": {"factor": 0.01, "offset": 0}}, {"points": ["P_avg"], "smooth": {"over": "5m"}}]
