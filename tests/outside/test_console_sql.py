"""SQL in the console: written, run, cancelled, saved; what is wrong is told where it is."""

import io
import re

import pyarrow.ipc
import pyarrow.parquet

from browser import expect
from world import PRODUCT

T0 = 1_388_534_400_000


def test_a_statement_is_run_and_its_rows_are_seen_and_saved(farm, console, connect):
    assert connect().post(*(("R80711", T0 + n, {"P_avg": float(n)}) for n in range(3000)))["code"] == 200
    console.menu("SQL")
    tables = console.page.get_by_role("region", name="Tables")
    expect(tables).to_contain_text(PRODUCT)
    expect(tables).to_contain_text("P_avg")
    statement = f'SELECT time, device, "P_avg" FROM "{PRODUCT}" ORDER BY time'
    console.write(statement).page.keyboard.press("Control+Enter")
    answered = console.page.get_by_test_id("answered")
    expect(answered).to_contain_text(re.compile(r"^1,000 rows in \d+\.\d{3} s"))
    expect(answered).to_contain_text("there are more than 1,000")
    expect(console.page.get_by_test_id("row").first).to_contain_text("2014-01-01 00:00:00")
    assert console.page.get_by_test_id("row").count() < 100, "only what is seen is drawn"
    console.inspect("sql")
    console.choose("Rows at most", "10,000 rows at most").click("Run")
    expect(answered).to_contain_text("3,000 rows in")
    assert "limit=10000" in console.page.url and "sql=SELECT" in console.page.url
    assert len(console.download("CSV").splitlines()) == 3001
    assert pyarrow.parquet.read_table(io.BytesIO(console.download("Parquet"))).num_rows == 3000
    assert pyarrow.ipc.open_stream(console.download("Arrow")).read_all().num_rows == 3000
    console.tab("Recent statements").see(statement)
    console.page.reload()
    expect(console.page.locator(".cm-content")).to_contain_text("ORDER BY time")
    console.tab("Recent statements").click("Take it").tab("Connect").see("psql").inspect("sql-connect")


def test_names_complete_and_are_put_in_by_a_press(farm, console):
    console.menu("SQL")
    console.write("").page.locator("summary", has_text="devices").click()
    console.click("SELECT * FROM devices")
    expect(console.page.locator(".cm-content")).to_contain_text("FROM devices")
    console.click("Run")
    expect(console.page.get_by_test_id("answered")).to_contain_text("4 rows in")
    console.write("SELECT ").click("Insert P_avg")
    expect(console.page.locator(".cm-content")).to_contain_text('SELECT "P_avg"')
    console.page.keyboard.type(" FROM chan")
    console.page.get_by_role("option", name="channels").first.click()
    expect(console.page.locator(".cm-content")).to_contain_text("FROM channels")


def test_what_is_wrong_is_told_with_its_place_and_a_fix(farm, console):
    console.menu("SQL").write("SELECT 1\nFROM points WHERE WHERE 2").click("Run")
    problem = console.page.get_by_test_id("problem")
    expect(problem).to_contain_text("Line: 2")
    expect(problem).to_contain_text("What to do:")
    expect(console.page.locator(".cm-lintRange-error")).to_have_text("2")
    console.inspect("sql-refused")
    console.write("SELECT nothing_like_it FROM points").click("Run")
    expect(problem).to_contain_text("nothing_like_it")
    expect(console.page.locator(".cm-lintRange-error")).to_contain_text("nothing_like_it")
    console.write("DELETE FROM points").click("Run")
    expect(problem).to_contain_text("read-only")


def test_a_statement_is_cancelled(farm, console, connect):
    assert connect().post(*(("R80711", T0 + n, {"P_avg": float(n)}) for n in range(5000)))["code"] == 200
    console.menu("SQL").write("SELECT count(*) FROM points a, points b, points c WHERE a.value + b.value + c.value > 5").click("Run")
    console.see("Running for").click("Cancel")
    expect(console.page.get_by_role("button", name="Run", exact=True)).to_be_visible()
    expect(console.page.get_by_test_id("problem")).to_have_count(0)
    console.write("SELECT 1").click("Run")
    expect(console.page.get_by_test_id("answered")).to_contain_text("1 row in")


def test_a_gateway_without_sql_says_so(farm, console):
    """The answer is that of a binary that was built without: this one has it."""
    told = {"type": "urn:backtide:problem:no-sql", "title": "no sql", "status": 501, "code": "no-sql", "detail": "this backtide is built without SQL",
            "fix": "take a released binary, or build one with `cargo build --release --features sql`"}
    console.page.route("**/api/v1/sql", lambda route: route.fulfill(status=501, json=told))
    console.menu("SQL").see("This gateway is built without SQL").see("take a released binary", exact=False).inspect("sql-absent")


def test_what_history_shows_leads_to_its_statement(farm, console, connect):
    assert connect().post(("R80711", T0, {"P_avg": 1.0}), ("R80721", T0, {"P_avg": 2.0}))["code"] == 200
    console.open(f"/history?product={PRODUCT}&device=R80711&points=P_avg&from=2014-01-01T00:00Z").page.get_by_role("main").get_by_role("link", name="SQL").click()
    expect(console.page.locator(".cm-content")).to_contain_text("WHERE device IN ('R80711') AND time >= '2014-01-01T00:00:00.000Z'")
    console.click("Run")
    expect(console.page.get_by_test_id("answered")).to_contain_text("1 row in")
