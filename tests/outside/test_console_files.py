"""Files in the console: history that comes in as one, and archives that it leaves to."""

import gzip
import re

import pytest

from browser import expect
from s3 import KEY, SECRET, S3
from world import CHANNEL, PRODUCT, SAMPLE, eventually

T0 = 1_388_534_400_000


@pytest.fixture
def s3(tmp_path):
    server = S3(tmp_path / "s3").start()
    yield server
    server.stop()


def choose(console, *files):
    """Puts a file into the field that the button opens."""
    console.page.locator("input[type=file]").set_input_files(*files)
    return console


def given(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_file_is_imported_with_what_its_columns_are_and_every_count_leads_to_its_rows(farm, console):
    console.menu("Imports").see("No file was imported yet").link("Import a file").heading("Import a file")
    choose(console, SAMPLE)
    columns = console.page.get_by_role("region", name="What the columns are")
    expect(console.page.get_by_role("combobox", name="Wind_turbine_name becomes")).to_have_value("device key")
    expect(console.page.get_by_role("combobox", name="Date_time becomes")).to_have_value("time")
    expect(console.page.get_by_role("combobox", name="P_avg becomes")).to_have_value("P_avg")
    expect(columns.get_by_role("row").filter(has_text="Date_time")).to_contain_text("2014-")
    console.inspect("import-file")
    console.click("Import").heading("Imports")
    row = console.row(SAMPLE.name)
    expect(row).to_contain_text("complete")
    done = farm.http("GET", "/api/v1/imports/1").json()
    assert done["rows"]["rejected"] == 0 and done["rows"]["stored"] > 1000
    expect(row).to_contain_text(f"{done['rows']['stored']:,}")
    expect(console.page.get_by_test_id("upload")).to_contain_text("complete")
    console.inspect("imports")
    row.get_by_role("link", name=f"{done['rows']['stored']:,}").click()
    console.heading(CHANNEL)
    expect(console.page.get_by_role("table", name="Log")).to_contain_text("import:1")


def test_an_import_tells_what_was_there_already(farm, console):
    for _ in range(2):
        farm.cli("import", "upload", SAMPLE, "--channel", CHANNEL, "--device-column", "Wind_turbine_name", "--time-column", "Date_time")
    farm.compact()
    again = farm.http("GET", "/api/v1/imports/2").json()
    assert again["repeated"]["complete"] and again["repeated"]["values"] > 1000
    console.open("/imports/2").see("Values that were there already").see(f"{again['repeated']['values']:,}")


def test_the_conflicts_of_an_import_lead_to_a_list_of_just_those(farm, console, tmp_path):
    def upload(name, value, rows, first=0):
        lines = "".join(f"R80711,{T0 + n * 60_000},{value + n}\n" for n in range(first, first + rows))
        farm.cli("import", "upload", given(tmp_path, name, "deviceKey,time,P_avg\n" + lines), "--channel", CHANNEL)

    upload("first.csv", 100, rows=5)
    upload("second.csv", 200, rows=3)
    upload("third.csv", 300, rows=2, first=3)
    farm.compact()
    console.open("/imports/1").heading("first.csv").see("Values other than what stood there")
    of_rows = console.page.get_by_role("region", name="What became of its rows")
    expect(of_rows.get_by_role("link", name="0", exact=True)).to_have_count(0)
    console.open("/imports/2").heading("second.csv")
    of_rows.locator("a[href*=conflicts]").and_(of_rows.get_by_role("link", name="3", exact=True)).click()
    console.heading("History").see("Only what this import brought")
    expect(console.page.get_by_role("tab", name="Conflicts")).to_contain_text("(3)")
    listed = console.page.get_by_role("table", name="Conflicts")
    expect(listed.get_by_role("row")).to_have_count(1 + 3)
    expect(listed.get_by_role("row").nth(1)).to_contain_text("200")
    console.inspect("import-conflicts")
    # A link shows the same list; it leads back, and to all there are.
    console.page.reload()
    expect(listed.get_by_role("row")).to_have_count(1 + 3)
    expect(console.page.get_by_role("link", name="import 2")).to_have_attribute("href", "/imports/2")
    console.click("All conflicts")
    expect(listed.get_by_role("row")).to_have_count(1 + 5)
    expect(console.page.get_by_text("Only what this import brought")).to_have_count(0)


def test_an_archive_of_events_is_declared_in_the_form(farm, console):
    console.open("/new-archive").fill("Name", "alarms").fill("Folder", "alarms")
    console.page.get_by_role("radio", name="events").check()
    expect(console.page.get_by_role("radio", name="wide: a column for each point")).to_have_count(0)
    console.inspect("archive-events").click("Make the archive").heading("alarms")
    assert farm.http("GET", "/api/v1/archives/alarms").json()["of"] == "events"


def test_bad_rows_are_counted_told_and_led_to(farm, console, tmp_path):
    path = given(tmp_path, "bad.csv", f"turbine;at;power\nR80711;{T0};1\nstranger;{T0};2\nR80711;noon;3\n")
    console.open(f"/new-import?channel={CHANNEL}")
    choose(console, path)
    # What no point takes is left out until somebody says what it is.
    expect(console.page.get_by_role("combobox", name="power becomes")).to_have_value("left out")
    console.choose("at becomes", "time").choose("power becomes", "P_avg").click("Import").heading("Imports")
    row = console.row("bad.csv")
    expect(row).to_contain_text("complete")
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.0}
    row.get_by_role("link", name="bad.csv").click()
    console.heading("bad.csv").see("2 rows are in quarantine").inspect("import-rejected")
    console.link("Show them").heading("Quarantine")
    entries = console.page.get_by_role("table", name="Refused messages")
    expect(entries).to_contain_text("row 2")
    expect(entries).to_contain_text("row 3")
    assert console.page.url.endswith("client=import%3A1")
    console.open("/imports?state=rejected")
    expect(console.row("bad.csv")).to_be_visible()
    console.open("/imports?state=failed").see("No import fits the filters.")


def test_a_long_packed_file_of_one_device_is_imported(farm, console, tmp_path):
    text = f"name,when,what\npower,2014-01-01T01:00:00,1.5\nwind,2014-01-01T01:00:00,2.5\n"
    path = given(tmp_path, "one.csv.gz", gzip.compress(text.encode()))
    console.open(f"/new-import?channel={CHANNEL}")
    choose(console, path).page.get_by_role("radio", name="long: a row for each point").check()
    console.page.get_by_role("radio", name="all rows are of one device").check()
    console.fill("Device key", "R80711").fill("Point column", "name").fill("Time column", "when").fill("Value column", "what")
    console.page.keyboard.press("Escape")
    console.choose_by_typing("Zone of times without an offset", "Europe/Paris")
    console.click("Add: Points of other names").fill("In the file 1", "power").fill("Point 1", "P_avg")
    console.click("Add: Points of other names").fill("In the file 2", "wind").fill("Point 2", "Ws_avg")
    console.click("Import").heading("Imports")
    expect(console.row("one.csv.gz")).to_contain_text("complete")
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5, ("R80711", T0, "Ws_avg"): 2.5}


def test_a_file_that_makes_no_sense_is_refused_with_what_to_do(farm, console, tmp_path):
    console.open(f"/new-import?channel={CHANNEL}")
    choose(console, given(tmp_path, "a.docx", "x")).see("The ending does not say what the file is")
    expect(console.page.get_by_role("button", name="Import", exact=True)).to_be_disabled()
    choose(console, given(tmp_path, "a.csv", f"deviceKey,time,P_avg\nR80711,then,1\nR80711,then,2\n"))
    console.click("Import").heading("Imports")
    refused = console.page.get_by_test_id("upload").get_by_test_id("problem")
    expect(refused).to_contain_text("import")
    expect(refused).to_contain_text("What to do:")
    console.inspect("import-refused")
    console.row("a.csv").get_by_role("link", name="a.csv").first.click()
    console.heading("a.csv").see("It did not come to its end").link("Go on with the file").heading("Import a file")
    assert "skipRows=" in console.page.url


def test_an_import_goes_on_elsewhere_and_is_cancelled(farm, console, tmp_path):
    farm.apply(f"kind: Channel\nname: {CHANNEL}\nproduct: {PRODUCT}\nmode: strict\nquotas: {{ pointsPerSecond: 2000 }}\n")
    rows = "".join(f"R80711,{T0 + n * 1000},{n}\n" for n in range(400_000))
    console.open(f"/new-import?channel={CHANNEL}")
    choose(console, given(tmp_path, "long.csv", "deviceKey,time,P_avg\n" + rows)).click("Import").heading("Imports")
    sending = console.page.get_by_test_id("upload")
    expect(sending).to_contain_text(re.compile("[1-9][0-9,]* rows stored"))
    console.menu("Overview").see("Files that come in").menu("Imports")
    expect(sending).to_contain_text("running")
    console.inspect("import-running")
    console.click("Cancel", within=sending)
    expect(sending).to_contain_text("It was ended here.")
    expect(console.row("long.csv")).to_contain_text("interrupted")
    cut = farm.http("GET", "/api/v1/imports/1").json()
    assert cut["error"] == "it was cancelled"
    assert 0 < cut["rows"]["stored"] < 400_000 and len(farm.cells()) == cut["rows"]["stored"]


def test_an_archive_is_made_run_and_its_files_are_listed(farm, console):
    farm.send(SAMPLE, "--device-column", "Wind_turbine_name", "--time-column", "Date_time")
    console.menu("Archives").see("There is no archive yet").link("New archive").heading("New archive")
    console.fill("Name", "lake").fill("Folder", "lake").choose("Products", PRODUCT).page.keyboard.press("Escape")
    console.fill("Time of day", "03:15").choose_by_typing("Zone of that time", "Europe/Paris")
    console.page.get_by_text("Monday", exact=True).click()
    console.inspect("archive-new")
    console.click("Make the archive").heading("lake")
    made = farm.http("GET", "/api/v1/archives/lake").json()
    assert made["schedule"] == {"at": "03:15", "timezone": "Europe/Paris", "days": ["mon"]} and made["to"] == {"folder": "lake"}
    console.see("next run").tab("Days due")
    due = console.page.get_by_role("table", name="Days due")
    expect(due.get_by_role("row").nth(1)).to_contain_text("it was never written")
    console.inspect("archive-due").click("Run now")
    eventually(lambda: farm.http("GET", "/api/v1/archives/lake/status").json().get("lastRun", {}).get("state") == "complete", "it ran")
    console.tab("How it stands")
    last = console.page.get_by_role("region", name="Last run")
    expect(last).to_contain_text("complete")
    console.inspect("archive").tab("Files")
    stands = farm.http("GET", "/api/v1/archives/lake/status").json()
    console.see(f"{stands['files']} rows")
    expect(console.page.get_by_test_id("row").first).to_contain_text("product=LHBfarm1/date=2014-")
    console.inspect("archive-files")
    day = farm.http("GET", "/api/v1/archives/lake/files?limit=1").json()["items"][0]["date"]
    console.fill("Day (UTC)", day).see("1 row")
    console.click("Stop")
    console.click("Stop", within=console.dialog())
    console.see("stopped").click("Start").see("idle")
    console.menu("Archives").row("lake").get_by_role("link", name=f"{stands['files']}", exact=True).click()
    console.heading("lake").menu("Archives").inspect("archives")
    console.link("lake").click("Delete")
    console.click("Delete", within=console.dialog())
    console.heading("Archives").see("There is no archive yet")


def test_an_archive_that_cannot_write_says_why_and_a_bucket_takes_its_secret(farm, console, s3):
    farm.send(SAMPLE, "--device-column", "Wind_turbine_name", "--time-column", "Date_time")
    console.open("/new-archive").fill("Name", "cloud").page.get_by_role("radio", name="a bucket of S3").check()
    console.fill("Bucket", s3.bucket("history")).fill("Prefix", "farm").fill("Endpoint", s3.url).fill("Access key id", KEY)
    console.page.get_by_role("radio", name="when it is told to").check()
    console.click("Make the archive").heading("cloud").see("The secret of its access key is not set")
    console.click("Run now").see("The last run failed")
    expect(console.page.get_by_role("alert").filter(has_text="The last run failed")).to_contain_text("What to do:")
    console.inspect("archive-failed")
    console.click("Secret…").fill("Secret", SECRET).click("Set the secret").see("The secret is set. It is shown to nobody.")
    expect(console.dialog()).to_have_count(0)
    console.click("Run now")
    eventually(lambda: farm.http("GET", "/api/v1/archives/cloud/status").json()["lastRun"]["state"] == "complete", "it ran", within_s=60)
    expect(console.page.get_by_role("region", name="Last run")).to_contain_text("complete")
    console.tab("Edit").see("What its files are and where they go cannot change")
    expect(console.field("Bucket")).to_have_value("history")


def test_a_viewer_sees_imports_and_archives_and_no_button_that_would_be_refused(farm, console_of):
    farm.apply("kind: Archive\nname: lake\nto: { folder: lake }\n")
    console = console_of(farm).sign_in(name="vera", role="viewer")
    console.menu("Imports").see("No file was imported yet")
    expect(console.page.get_by_role("link", name="Import a file")).to_have_count(0)
    console.menu("Archives").link("lake").heading("lake").see("It has not run yet")
    for name in ("Run now", "Stop", "Delete"):
        expect(console.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    console.tab("Days due").see("A run would write")
