"""Rules in the console: made and tried by a form, watched, replayed, dead letters mended."""

import json

import pytest

from browser import expect
from test_kafka_rules import configured
from test_rules import caught_up, hook, hooks, numbers, rule, send, status
from world import eventually

T0 = 1_388_534_400_000

__all__ = ["hook", "hooks"]


def test_a_rule_is_made_by_the_form_tried_on_stored_history_and_runs(farm, console, connect, hook):
    client = connect()
    send(client, 3)
    console.menu("Rules").link("New rule").heading("New rule")
    console.fill("Name", "megawatt").fill("URL", hook.url)
    console.click("Add a condition").fill("Value 1", "P_avg").fill("Than 1", "0").page.keyboard.press("Escape")
    console.click("+ set a value").fill("New value 1", "power_mw").fill("Expression 1", "P_avg / 1000")
    console.click("+ leave out all others")
    console.fill("Values that stay", "power_mw").page.keyboard.press("Enter")
    console.fill("Device of the test", "wind-farm/R80711").page.keyboard.press("Escape")
    console.click("Run the test")
    trial = console.page.get_by_test_id("trial")
    expect(trial).to_contain_text("3 rows tried, 2 taken · 2 records would go out · 0 dead letters")
    expect(trial).to_contain_text('"power_mw": 0.002')
    console.inspect("rule-editor")
    assert not hook.lines, "a test publishes nothing"
    console.click("Make the rule").heading("megawatt").see("running")
    send(client, 2, start=7)
    eventually(lambda: len(hook.lines) == 2, "delivered")
    assert [line["payload"][0]["measurepoints"] for line in hook.lines] == [{"power_mw": 0.007}, {"power_mw": 0.008}]
    declared = farm.cli("get", "rule", "megawatt", "-o", "json").json()
    assert declared["from"] == {"type": "points", "where": {"P_avg": {"above": 0.0}}}
    assert declared["make"] == [{"set": {"power_mw": "P_avg / 1000"}}, {"select": ["power_mw"]}]
    expect(console.page.get_by_text("2 published").first).to_be_visible()
    console.inspect("rule")


def test_a_wrong_rule_is_refused_with_place_and_fix_and_nothing_is_lost_between_form_and_text(farm, console, hook):
    console.open("/new-rule").fill("Name", "wrong").fill("URL", hook.url)
    console.click("+ set a value").fill("New value 1", "x").fill("Expression 1", "P_avg +").click("Make the rule")
    expect(console.page.get_by_test_id("problem")).to_contain_text("x")
    console.page.get_by_role("radio", name="Text").check()
    editor = console.page.get_by_test_id("editor")
    expect(editor).to_contain_text("P_avg +")
    console.inspect("rule-text")
    console.write(json.dumps({"kind": "Rule", "name": "right", "from": {"quality": {"max": 3}}, "to": {"webhook": {"url": hook.url}}}))
    console.page.get_by_role("radio", name="Form").check()
    expect(console.field("Name")).to_have_value("right")
    console.click("Make the rule").heading("right")
    assert farm.cli("get", "rule", "right", "-o", "json").json()["from"]["quality"]["max"] == 3


def test_the_list_shows_how_rules_stand_and_keeps_its_filters_in_the_address(farm, console, connect, hook):
    farm.apply(rule("all", hook))
    send(connect(), 4)
    caught_up(farm, "all")
    console.menu("Rules")
    expect(console.row("default-points")).to_contain_text("idle")
    expect(console.row("all")).to_contain_text("running")
    console.inspect("rules")
    console.choose("Sends to", "webhook")
    expect(console.row("default-points")).to_have_count(0)
    assert console.page.url.endswith("?to=webhook")
    console.menu("Overview")
    lag = console.page.get_by_role("link", name="Greatest lag of a rule")
    expect(console.page.get_by_text("1 of 5 rules run")).to_be_visible()
    lag.click()
    console.heading("Rules")


def test_a_rule_is_stopped_started_and_replayed_and_its_secret_shown_to_nobody(farm, console, connect, hook):
    farm.apply(f"kind: Rule\nname: all\nto: {{ webhook: {{ url: '{hook.url}', format: records, headers: {{ Authorization: 'Bearer ${{secret}}' }} }} }}\n")
    console.open("/rules/all").click("Secret…").fill("Secret", "s3same").click("Set the secret").see("It is shown to nobody.")
    client = connect()
    send(client, 3)
    caught_up(farm, "all")
    assert hook.headers[-1]["authorization"] == "Bearer s3same"
    console.click("Stop")
    console.click("Stop", within=console.dialog())
    console.see("It is stopped: start it to see how far it is.")
    send(client, 2, start=3)
    console.click("Start")
    caught_up(farm, "all")
    assert numbers(hook.lines) == [0.0, 1.0, 2.0, 3.0, 4.0]
    console.click("Replay…").click("from the first")
    console.inspect("rule-replay")
    console.click("Replay", within=console.dialog())
    console.see("are published again.")
    eventually(lambda: len(hook.lines) == 10, "published again")
    assert "s3same" not in console.page.content()


def test_dead_letters_are_read_driven_again_and_discarded(farm, console, connect, hook):
    hook.refuse = lambda body: 422 if '"P_avg":1.0' in body or '"P_avg":3.0' in body else None
    farm.apply(rule("picky", hook))
    send(connect(), 5)
    eventually(lambda: status(farm, "picky").get("deadLetters") == 2, "two dead letters")
    console.menu("Rules")
    console.row("picky").get_by_role("link", name="2", exact=True).click()
    expect(console.row("the destination refused it")).to_have_count(2)
    console.inspect("rule-dead-letters")
    console.click("Show", within=console.row("the destination refused it").first)
    expect(console.dialog()).to_contain_text('"P_avg": 1')
    console.inspect("rule-dead-letter")
    console.page.keyboard.press("Escape")
    hook.refuse = lambda body: 422 if '"P_avg":3.0' in body else None
    console.click("Re-drive all")
    expect(console.row("the destination refused it")).to_have_count(1)
    assert sorted(numbers(hook.lines)) == [0.0, 1.0, 2.0, 4.0]
    console.page.get_by_role("checkbox").first.check()
    console.click("Discard 1 chosen")
    console.click("Discard 1 chosen", within=console.dialog())
    console.see("Everything that the rule took could be made and delivered.")
    assert status(farm, "picky")["deadLetters"] == 0


def test_a_destination_that_is_away_is_told_until_it_is_back(farm, console, connect, hooks):
    hook = hooks()
    farm.apply(rule("far", hook))
    hook.close()
    send(connect(), 1)
    console.open("/rules/far").see("Delivery fails, and is tried again")
    console.inspect("rule-trouble")
    hooks(hook.port)
    expect(console.page.get_by_text("Delivery fails, and is tried again")).to_have_count(0, timeout=60_000)


def test_a_viewer_of_rules_tries_and_changes_nothing(farm, console_of, hook):
    farm.apply(rule("all", hook))
    console = console_of(farm).sign_in(name="vera", role="viewer")
    console.open("/rules/all")
    expect(console.page.get_by_role("tab", name="How it stands")).to_be_visible()
    for name in ("Stop", "Delete", "Replay…", "Secret…"):
        expect(console.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    console.tab("Edit and test")
    expect(console.page.get_by_role("button", name="Save", exact=True)).to_have_count(0)


@pytest.mark.xdist_group("kafka")
def test_kafka_is_checked_in_plain_words(gateways, console_of, kafka_node):
    absent = console_of(gateways(folder="absent").start()).sign_in()
    absent.menu("Kafka").see("No Kafka is configured").inspect("kafka-absent")
    gateway = configured(gateways, kafka_node.address)
    console = console_of(gateway).sign_in()
    console.menu("Kafka")
    expect(console.page.get_by_test_id("kafka")).to_contain_text("Nothing is wrong.", timeout=60_000)
    expect(console.row(f"address {kafka_node.address}")).to_contain_text("in order")
    console.inspect("kafka")
    wrong = console_of(configured(gateways, "127.0.0.1:1", folder="wrong")).sign_in()
    wrong.open("/kafka")
    expect(wrong.page.get_by_test_id("kafka")).to_contain_text("Something is wrong.", timeout=60_000)
    expect(wrong.row("address 127.0.0.1:1")).to_contain_text("wrong")
    wrong.inspect("kafka-wrong")
