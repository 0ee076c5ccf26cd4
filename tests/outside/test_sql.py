"""SQL: over HTTP, on the command line, and with PostgreSQL's own clients, beside DuckDB over the same real data."""

import io
import json
import os
import re
import subprocess
import threading

import duckdb
import pandas
import psycopg
import pyarrow
import pyarrow.parquet
import pytest
import requests
import sqlalchemy

import truth
from certs import Certs
from world import CSV_COLUMNS, FAILED, FARM, POINTS, ROOT, SAMPLE, TURBINES, Gateway, eventually

DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
SOME_DAYS = ("2014-03-24T00:00:00Z", "2014-03-31T00:00:00Z")
HEAVY = "SELECT count(*) FROM generate_series(1, 9000000000) a"


ANALYSIS = """
kind: Policy
name: windows
products: [wind-farm]
analysis:
  - rollup: hourly
    points: [P_avg, Ws_avg]
    interval: 1h
    functions: [min, max, avg]
    quiet: 100ms
    within: 2s
afterCommit:
  - reduction: slim
    points: [P_avg]
    deadBand: { deviation: 25 }
    restart: 6h
    quiet: 100ms
    within: 2s
"""


# --- asking ---

def asked(gateway, sql, form="json", **more):
    return gateway.http("POST", "/api/v1/sql", json={"sql": sql, "format": form, **more})


def items(gateway, sql):
    answer = asked(gateway, sql)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def refused(gateway, sql):
    answer = asked(gateway, sql)
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def place(gateway):
    host, port = gateway.addresses["postgres"].rsplit(":", 1)
    return host, int(port)


def connected(gateway, user="backtide", password=None, **more):
    host, port = place(gateway)
    return psycopg.connect(host=host, port=port, user=user, password=password or gateway.token, dbname="backtide",
                           autocommit=True, connect_timeout=20, **more)


def psql(gateway, *commands, user="backtide", password=None, **environment):
    host, port = place(gateway)
    options = [option for command in commands for option in ("-c", command)]
    return subprocess.run(["psql", "-X", "-h", host, "-p", str(port), "-U", user, "-d", "backtide", "-v", "ON_ERROR_STOP=1",
                           "--csv", *options], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, "PGPASSWORD": password or gateway.token, "PGCONNECT_TIMEOUT": "20", **environment})


@pytest.fixture(scope="module")
def history(request, tmp_path_factory):
    """A running gateway with the sample of real history, and the same rows for DuckDB."""
    gateway = Gateway(tmp_path_factory.mktemp("sql"), "--postgres", "127.0.0.1:0").start()
    request.addfinalizer(gateway.close)
    gateway.apply(FARM)
    gateway.send(SAMPLE, *CSV_COLUMNS)
    gateway.compact()
    gateway.apply(ANALYSIS)
    rows = truth.winners(truth.read_history(SAMPLE.read_text()))
    engine = duckdb.connect()
    request.addfinalizer(engine.close)
    engine.register("history", rows)
    return gateway, engine


# --- the same as DuckDB ---

GROUPED = [
    ("by device",
     'SELECT device, count(*) AS rows, count("P_avg") AS n, avg("P_avg") AS mean, max("Ws_avg") AS peak '
     'FROM "wind-farm" GROUP BY device ORDER BY device',
     "SELECT deviceKey, count(*), count(P_avg), avg(P_avg), max(Ws_avg) FROM history GROUP BY 1 ORDER BY 1"),
    ("hourly in a range",
     "SELECT date_bin(interval '1 hour', time) AS hour, device, avg(\"P_avg\") AS mean FROM \"wind-farm\" "
     f"WHERE time >= '{SOME_DAYS[0]}' AND time < '{SOME_DAYS[1]}' GROUP BY 1, 2 ORDER BY 1, 2",
     "SELECT epoch_ms(time // 3600000 * 3600000)::timestamptz AT TIME ZONE 'UTC', deviceKey, avg(P_avg) FROM history "
     f"WHERE time >= epoch_ms('{SOME_DAYS[0]}'::timestamptz) AND time < epoch_ms('{SOME_DAYS[1]}'::timestamptz) "
     "GROUP BY 1, 2 ORDER BY 1, 2"),
    ("over a condition on values",
     'SELECT device, count(*) AS windy FROM "wind-farm" WHERE "Ws_avg" > 12 AND "P_avg" IS NOT NULL GROUP BY 1 ORDER BY 1',
     "SELECT deviceKey, count(*) FROM history WHERE Ws_avg > 12 AND P_avg IS NOT NULL GROUP BY 1 ORDER BY 1"),
    ("a window",
     'SELECT device, max(step) AS step FROM (SELECT device, "P_avg" - lag("P_avg") OVER (PARTITION BY device ORDER BY time) '
     'AS step FROM "wind-farm") GROUP BY 1 ORDER BY 1',
     "SELECT deviceKey, max(step) FROM (SELECT deviceKey, P_avg - lag(P_avg) OVER (PARTITION BY deviceKey ORDER BY time) "
     "AS step FROM history) GROUP BY 1 ORDER BY 1"),
]


@pytest.mark.parametrize("ours,theirs", [case[1:] for case in GROUPED], ids=[case[0] for case in GROUPED])
def test_an_answer_equals_that_of_duckdb_over_the_same_rows(history, ours, theirs):
    gateway, engine = history
    with connected(gateway) as connection:
        got = pandas.DataFrame(connection.execute(ours).fetchall())
    wanted = engine.sql(theirs).df()
    assert len(got) == len(wanted) > 1
    for at, name in enumerate(wanted.columns):
        mine, other = got.iloc[:, at], wanted[name]
        if pandas.api.types.is_numeric_dtype(other):
            pandas.testing.assert_series_equal(mine.astype("float64"), other.astype("float64"), check_names=False, rtol=1e-12)
        elif pandas.api.types.is_datetime64_any_dtype(other):
            assert list(pandas.to_datetime(mine, utc=True)) == list(pandas.to_datetime(other, utc=True))
        else:
            assert list(mine) == list(other)


def test_points_in_long_form_are_the_same_values(history):
    gateway, engine = history
    got = items(gateway, "SELECT device, point, count(*) AS n, sum(value) AS total FROM points GROUP BY 1, 2 ORDER BY 1, 2")
    long = " UNION ALL ".join(f"SELECT deviceKey, '{point}' AS point, {point} AS v FROM history" for point in POINTS)
    wanted = engine.sql(f"SELECT deviceKey, point, count(v), sum(v) FROM ({long}) GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
    assert [(row["device"], row["point"], row["n"]) for row in got] == [row[:3] for row in wanted]
    assert [row["total"] for row in got] == pytest.approx([row[3] for row in wanted], rel=1e-9)


# --- every form ---

def test_the_forms_of_an_answer_hold_the_same_rows(history):
    gateway, _ = history
    sql = f"SELECT time, device, \"P_avg\" FROM \"wind-farm\" WHERE time < '2014-03-22T06:00:00Z' ORDER BY device, time"
    answer = asked(gateway, sql).json()
    assert answer["columns"] == [{"name": "time", "type": "timestamptz"}, {"name": "device", "type": "text"},
                                 {"name": "P_avg", "type": "float8"}]
    rows = answer["items"]
    assert len(rows) > 100
    assert [json.loads(line) for line in asked(gateway, sql, "ndjson").text.splitlines()] == rows
    read = pandas.read_csv(io.StringIO(asked(gateway, sql, "csv").text))
    parquet = pyarrow.parquet.read_table(pyarrow.BufferReader(asked(gateway, sql, "parquet").content)).to_pandas()
    arrow = pyarrow.ipc.open_stream(asked(gateway, sql, "arrow").content).read_all().to_pandas()
    for table in (read, parquet, arrow):
        assert list(table["device"]) == [row["device"] for row in rows]
        assert list(pandas.to_datetime(table["time"], utc=True)) == list(pandas.to_datetime([r["time"] for r in rows], utc=True))
        assert [None if pandas.isna(v) else v for v in table["P_avg"]] == [row["P_avg"] for row in rows]
    assert len(asked(gateway, sql, "csv", limit=7).text.splitlines()) == 8


def test_the_command_line_prints_rows_and_says_what_is_wrong(history):
    gateway, _ = history
    table = gateway.cli("sql", 'SELECT device, count(*) AS rows FROM "wind-farm" GROUP BY 1 ORDER BY 1').out
    assert table.split()[:2] == ["device", "rows"] and all(turbine in table for turbine in TURBINES)
    assert gateway.cli("sql", "-o", "csv", "-", input="SELECT 1 AS one").out == "one\n1\n"
    wrong = gateway.cli("sql", "DROP TABLE points", code=FAILED).err
    assert "only reads" in wrong and "DROP TABLE" in wrong


def test_what_happened_is_there_as_tables(history):
    gateway, _ = history
    log = items(gateway, "SELECT kind, count(*) AS n FROM channel_log WHERE channel = 'scada-history' GROUP BY 1")
    assert {"connect", "transmission"} <= {row["kind"] for row in log}
    assert [row["product"] for row in items(gateway, "SELECT product FROM products")] == ["wind-farm"]
    devices = items(gateway, "SELECT device, timezone FROM devices ORDER BY 1")
    assert [row["device"] for row in devices] == sorted(TURBINES)
    assert items(gateway, "SELECT count(*) AS n FROM quarantine") == [{"n": 0}]


# --- only reading, only for who may ---

def test_a_change_is_refused_at_every_door(history):
    gateway, _ = history
    for sql in ["INSERT INTO \"wind-farm\" (device) VALUES ('x')", "CREATE TABLE x AS SELECT 1", "DROP TABLE points",
                "COPY (SELECT 1) TO '/tmp/backtide-sql-test.csv'"]:
        problem = refused(gateway, sql)
        assert (problem["status"], problem["code"]) == (400, "read-only"), problem
        assert problem["fix"]
        with connected(gateway) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as error:
            connection.execute(sql)
        assert error.value.diag.message_hint
    assert not os.path.exists("/tmp/backtide-sql-test.csv")


def test_an_error_has_a_code_what_happened_and_a_hint(history):
    gateway, _ = history
    problem = refused(gateway, "SELECT * FROM nothing")
    assert problem["code"] == "sql" and "nothing" in problem["detail"] and problem["fix"]
    with connected(gateway) as connection:
        for sql, error in [("SELECT * FROM nothing", psycopg.errors.UndefinedTable),
                           ('SELECT p_avg FROM "wind-farm"', psycopg.errors.UndefinedColumn),
                           ("SELEC 1", psycopg.errors.SyntaxError)]:
            with pytest.raises(error) as told:
                connection.execute(sql)
            assert told.value.diag.message_hint
        # The connection goes on.
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_token_or_a_user_is_let_in_and_nobody_else(gateways):
    gateway = gateways("--postgres", "127.0.0.1:0").start()
    token = gateway.http("POST", "/api/v1/access/tokens", json={"name": "grafana", "role": "viewer"}).json()["token"]
    user = gateway.http("PUT", "/api/v1/access/users/eve", json={"role": "viewer", "password": "correct horse"})
    assert user.status_code < 300, user.text
    assert connected(gateway, password=token).execute("SELECT 1").fetchone() == (1,)
    held = connected(gateway, user="eve", password="correct horse")
    assert held.execute("SELECT 1").fetchone() == (1,)
    for user, password in [("eve", "wrong horse"), ("backtide", "nonsense"), ("eve", "")]:
        with pytest.raises(psycopg.OperationalError) as error:
            connected(gateway, user=user, password=password or "-")
        assert "wrong" in str(error.value) or "attempts" in str(error.value)
    # A login that no longer holds ends what is open.
    assert gateway.http("DELETE", "/api/v1/access/users/eve").status_code < 300
    with pytest.raises(psycopg.Error):
        held.execute("SELECT 1")
    assert gateway.http("POST", "/api/v1/sql", token=token, json={"sql": "SELECT 1 AS a"}).status_code == 200
    assert gateway.http("POST", "/api/v1/sql", token=False, json={"sql": "SELECT 1"}).status_code == 401


# --- limits, and leaving ---

def queries(gateway):
    """Queries under way, as the metrics tell."""
    found = re.search(r"^backtide_sql_queries (\d+)", requests.get(gateway.url + "/metrics", timeout=20).text, re.M)
    return int(found.group(1)) if found else 0


def test_a_client_that_leaves_ends_its_query(history):
    gateway, _ = history
    # Over HTTP.
    with pytest.raises(requests.exceptions.Timeout):
        requests.post(gateway.url + "/api/v1/sql", json={"sql": HEAVY}, timeout=1,
                      headers={"Authorization": f"Bearer {gateway.token}"})
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)
    # Over the wire: the process is killed, its socket closes.
    host, port = place(gateway)
    client = subprocess.Popen(["psql", "-X", "-h", host, "-p", str(port), "-U", "x", "-d", "backtide", "-c", HEAVY],
                              env={**os.environ, "PGPASSWORD": gateway.token}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: queries(gateway) == 1, lambda: "the query does not run", 20)
    client.kill()
    client.wait()
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)


def test_a_query_is_cancelled_on_request_and_by_its_timeout(history):
    gateway, _ = history
    with connected(gateway) as connection:
        connection.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(HEAVY).fetchone()
        connection.execute("SET statement_timeout = 0")
        running = threading.Thread(target=lambda: eventually(
            lambda: queries(gateway) == 1 and (connection.cancel_safe() or True), lambda: "the query does not run", 20))
        running.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(HEAVY).fetchone()
        running.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_binary_with_sql_has_bounds_on_memory_and_callers(gateways):
    gateway = gateways("--postgres", "127.0.0.1:0")
    config = gateway.folder / "backtide.toml"
    config.write_text("[sql]\nmemory_bytes_max = 16777216\nspill_bytes_max = 1048576\nqueries_per_caller_max = 1\nquery_s = 20\n")
    gateway.options += ["--config", str(config)]
    gateway.start()
    large = "SELECT max(n) FROM (SELECT count(*) AS n FROM generate_series(1, 5000000) t(value) GROUP BY value * 7919 % 4999999) x"
    assert refused(gateway, large)["code"] == "sql-memory"
    long = {"sql": "SELECT * FROM generate_series(1, 20000000) t(value)", "format": "ndjson"}
    with gateway.http("POST", "/api/v1/sql", json=long, stream=True) as streaming:
        lines = streaming.iter_lines()
        assert next(lines) == b'{"value":1}'
        answer = asked(gateway, "SELECT 1")
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0, answer.text


# --- PostgreSQL's clients ---

def test_psql_connects_lists_and_describes(history):
    gateway, _ = history
    listed = psql(gateway, r"\dt", r'\d "wind-farm"', "SELECT count(*) FROM points")
    assert listed.returncode == 0, listed.stderr
    assert "wind-farm" in listed.stdout and "channel_log" in listed.stdout
    assert "P_avg" in listed.stdout and "double precision" in listed.stdout, listed.stdout
    failed = psql(gateway, "SELECT 1/", "SELECT 2")
    assert failed.returncode != 0 and "HINT" in failed.stderr


def test_pandas_reads_through_sqlalchemy(history):
    gateway, engine = history
    host, port = place(gateway)
    source = sqlalchemy.create_engine(sqlalchemy.URL.create("postgresql+psycopg", "backtide", gateway.token, host, port, "backtide"))
    with source.connect() as connection:
        frame = pandas.read_sql(sqlalchemy.text('SELECT time, device, "P_avg" FROM "wind-farm" WHERE device = :device '
                                                "AND time < :until ORDER BY time"),
                                connection, params={"device": "R80711", "until": pandas.Timestamp(SOME_DAYS[0])})
        wanted = engine.sql(f"SELECT P_avg FROM history WHERE deviceKey = 'R80711' AND time < epoch_ms('{SOME_DAYS[0]}'::timestamptz) "
                            "ORDER BY time").df()["P_avg"]
        pandas.testing.assert_series_equal(frame["P_avg"].astype("float64"), wanted, check_names=False)
        assert str(frame["time"].dt.tz) in ("UTC", "datetime.timezone.utc", "Etc/UTC")
        assert {"points", "wind-farm"} <= set(sqlalchemy.inspect(connection).get_table_names())
    source.dispose()


def test_sqlalchemy_reflects_tables_as_they_are(history):
    gateway, engine = history
    host, port = place(gateway)
    source = sqlalchemy.create_engine(sqlalchemy.URL.create("postgresql+psycopg", "backtide", gateway.token, host, port, "backtide"))
    inspector = sqlalchemy.inspect(source)
    assert "public" in inspector.get_schema_names()
    assert {"points", "wind-farm", "rollups"} <= set(inspector.get_table_names()) and not inspector.get_view_names()
    assert inspector.has_table("wind-farm") and not inspector.has_table("nothing")
    columns = {column["name"]: column for column in inspector.get_columns("wind-farm")}
    assert list(columns)[:2] == ["time", "device"] and set(POINTS) <= set(columns)
    assert isinstance(columns["time"]["type"], sqlalchemy.DateTime) and columns["time"]["type"].timezone
    assert isinstance(columns["P_avg"]["type"], sqlalchemy.Double) and isinstance(columns["device"]["type"], sqlalchemy.String)
    assert columns["P_avg"]["nullable"] and not columns["time"]["nullable"] and columns["time"]["default"] is None
    assert inspector.get_pk_constraint("wind-farm")["constrained_columns"] == []
    for nothing in (inspector.get_foreign_keys, inspector.get_indexes, inspector.get_unique_constraints, inspector.get_check_constraints):
        assert nothing("wind-farm") == []
    assert inspector.get_enums() == [] and inspector.get_table_comment("wind-farm")["text"] is None
    metadata = sqlalchemy.MetaData()
    metadata.reflect(source)
    assert {"wind-farm", "points", "channel_log"} <= set(metadata.tables)
    farm = metadata.tables["wind-farm"]
    asked = sqlalchemy.select(farm.c.device, sqlalchemy.func.count().label("rows")).group_by(farm.c.device).order_by(farm.c.device)
    with source.connect() as connection:
        counted = connection.execute(asked).all()
    assert counted == engine.sql("SELECT deviceKey, count(*) FROM history GROUP BY 1 ORDER BY 1").fetchall()
    frame = pandas.read_sql_table("devices", source)
    assert sorted(frame["device"]) == sorted(TURBINES)
    source.dispose()


def test_pandas_reads_in_chunks_through_a_cursor(history):
    gateway, engine = history
    host, port = place(gateway)
    source = sqlalchemy.create_engine(sqlalchemy.URL.create("postgresql+psycopg", "backtide", gateway.token, host, port, "backtide"))
    asked = 'SELECT time, device, "P_avg" FROM "wind-farm" ORDER BY device, time'
    with source.connect().execution_options(stream_results=True) as connection:
        chunks = list(pandas.read_sql(sqlalchemy.text(asked), connection, chunksize=500))
    source.dispose()
    assert len(chunks) > 2 and all(len(chunk) == 500 for chunk in chunks[:-1])
    frame = pandas.concat(chunks, ignore_index=True)
    wanted = engine.sql("SELECT deviceKey, P_avg FROM history ORDER BY deviceKey, time").df()
    assert list(frame["device"]) == list(wanted["deviceKey"])
    pandas.testing.assert_series_equal(frame["P_avg"].astype("float64"), wanted["P_avg"], check_names=False)


def test_a_cursor_gives_its_rows_some_at_a_time_until_its_transaction_ends(history):
    gateway, engine = history
    total = engine.sql("SELECT count(*) FROM history WHERE deviceKey = 'R80711'").fetchall()[0][0]
    asked = 'SELECT time, "P_avg" FROM "wind-farm" WHERE device = %s ORDER BY time'
    with connected(gateway) as connection:
        with connection.transaction(), connection.cursor("rows") as cursor:
            cursor.execute(asked, ("R80711",))
            assert [column.name for column in cursor.description] == ["time", "P_avg"]
            first = cursor.fetchmany(3)
            rest = cursor.fetchall()
            assert len(first) == 3 and len(first) + len(rest) == total and not cursor.fetchmany(1)
            assert [row[0] for row in first + rest] == sorted(row[0] for row in first + rest)
        with connection.transaction(), connection.cursor("binary") as cursor:
            cursor.execute(asked, ("R80711",), binary=True)
            assert cursor.fetchmany(3) == first
        # Two at once, closed one by one, by text.
        connection.execute("BEGIN")
        connection.execute("DECLARE a CURSOR FOR SELECT device FROM devices ORDER BY 1")
        connection.execute("DECLARE b NO SCROLL CURSOR FOR SELECT 1 AS one")
        assert connection.execute("FETCH NEXT FROM a").fetchall() == [(min(TURBINES),)]
        assert connection.execute("FETCH ALL FROM b").fetchall() == [(1,)]
        connection.execute("CLOSE b")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute("FETCH 1 FROM b")
        connection.execute("ROLLBACK")
        # It ends with its transaction, goes forward only, and reads only.
        connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute("FETCH 1 FROM a")
        connection.execute("ROLLBACK")
        for sql, error in [("DECLARE c CURSOR FOR SELECT 1", psycopg.errors.NoActiveSqlTransaction),
                           ("DECLARE c CURSOR WITH HOLD FOR INSERT INTO points VALUES (1)", psycopg.Error)]:
            with pytest.raises(error):
                connection.execute(sql)
        connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT device FROM devices ORDER BY 1")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as told:
            connection.execute("FETCH BACKWARD 1 FROM held")
        assert told.value.diag.message_hint
        assert len(connection.execute("FETCH FORWARD 100 FROM held").fetchall()) == len(TURBINES)
        connection.execute("CLOSE ALL")
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)


def until_current(gateway):
    def states():
        return [row["state"] for row in items(gateway, "SELECT state FROM rollups")]

    eventually(lambda: states() == ["current", "current"], lambda: f"current: {states()}", 120)


def test_a_rollup_is_a_table_like_any_other(history):
    gateway, engine = history
    until_current(gateway)
    # The same as the API of rollups says, and as DuckDB makes of the rows.
    by_api = [json.loads(line) for line in gateway.http("GET", "/api/v1/rollups/hourly/rows", params={"format": "ndjson"}).text.splitlines()]
    by_sql = items(gateway, 'SELECT extract(epoch from time) * 1000 AS ms, * FROM "wind-farm_hourly" ORDER BY device, time')
    assert len(by_sql) == len(by_api) > 100
    for mine, told in zip(by_sql, by_api):
        assert (mine["device"], mine["ms"]) == (told["deviceKey"], told["time"])
        for name in (f"{point}.{function}" for point in ("P_avg", "Ws_avg") for function in ("count", "min", "max", "avg")):
            assert mine[name] == told.get(name), (name, mine, told)
    begin, end = SOME_DAYS
    wanted = engine.sql("SELECT deviceKey, time // 3600000 * 3600000, count(P_avg), max(P_avg), avg(P_avg) FROM history "
                        f"WHERE time >= epoch_ms('{begin}'::timestamptz) AND time < epoch_ms('{end}'::timestamptz) "
                        "GROUP BY 1, 2 HAVING count(P_avg) + count(Ws_avg) > 0 ORDER BY 1, 2").fetchall()
    got = items(gateway, 'SELECT device, extract(epoch from time) * 1000 AS ms, "P_avg.count" AS n, "P_avg.max" AS peak, "P_avg.avg" AS mean '
                         f"FROM \"wind-farm_hourly\" WHERE time >= '{begin}' AND time < '{end}' ORDER BY device, time")
    assert [(row["device"], row["ms"], row["n"] or 0) for row in got] == [row[:3] for row in wanted]
    assert [row["peak"] for row in got] == [row[3] for row in wanted]
    assert [row["mean"] for row in got] == [pytest.approx(row[4], rel=1e-12) if row[4] is not None else None for row in wanted]
    # What a reduction keeps.
    kept = [json.loads(line) for line in gateway.http("GET", "/api/v1/points/reduced", params={"reduction": "slim", "format": "ndjson"}).text.splitlines()]
    rows = items(gateway, 'SELECT device, extract(epoch from time) * 1000 AS ms, "P_avg" FROM "wind-farm_slim" ORDER BY device, time')
    assert [(row["device"], row["ms"], row["P_avg"]) for row in rows] == [(row["deviceKey"], row["time"], row["P_avg"]) for row in kept]
    assert 0 < len(rows) < items(gateway, 'SELECT count("P_avg") AS n FROM "wind-farm"')[0]["n"]
    # A client of PostgreSQL joins it with the rest.
    with connected(gateway) as connection:
        joined = connection.execute('SELECT d.timezone, max(r."P_avg.max") FROM "wind-farm_hourly" r JOIN devices d ON d.device = r.device '
                                    "WHERE r.device = %s GROUP BY 1", ("R80711",)).fetchall()
        assert len(joined) == 1 and joined[0][1] > 0
        listed = connection.execute("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'wind-farm_hourly'").fetchall()
        assert [name for name, _ in listed][:3] == ["time", "device", "P_avg.count"]


def test_parameters_and_binary_answers(history):
    gateway, _ = history
    with connected(gateway) as connection, connection.cursor(binary=True) as cursor:
        row = cursor.execute('SELECT time, device, "P_avg", sequence, 1::int, true FROM "wind-farm" '
                             "WHERE device = %s AND time >= %s ORDER BY time LIMIT 1", ("R80711", SOME_DAYS[0])).fetchone()
        assert row[0].isoformat().startswith("2014-03-24T00:00:00") and row[1] == "R80711" and isinstance(row[2], float)
        assert row[4:] == (1, True)


# What Grafana's data source sends to fill its menus and to check the connection.
GRAFANA = [
    "SELECT 1",
    "SELECT quote_ident(table_name) FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN "
    "('information_schema', 'pg_catalog') ORDER BY 1",
    """SELECT CASE WHEN quote_ident(table_schema) IN (
            SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
            FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
                array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
                string_to_array(current_setting('search_path'),',') s)
        THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache',
            '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information',
            'timescaledb_experimental')
        ORDER BY 1""",
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'wind-farm'",
    "SHOW server_version",
    "SELECT current_setting('server_version_num')::int/100 as version",
]
# DBeaver and JDBC, as they connect and open the tree.
JDBC = [
    "SET extra_float_digits = 3",
    "SET application_name = 'DBeaver'",
    "SELECT current_schema(), session_user",
    "SELECT version()",
    "SELECT n.oid, n.* FROM pg_catalog.pg_namespace n ORDER BY nspname",
    "SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datname = 'backtide'",
    "SELECT c.oid, c.relname, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'public' AND c.relkind IN ('r','v')",
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c "
    "ON c.oid = a.attrelid WHERE c.relname = 'wind-farm' AND a.attnum > 0 ORDER BY a.attnum",
    "SHOW search_path",
    "BEGIN", "SELECT 1", "COMMIT",
]


@pytest.mark.parametrize("statements", [GRAFANA, JDBC], ids=["grafana", "jdbc"])
def test_what_tools_ask_of_the_catalogue_is_answered(history, statements):
    gateway, _ = history
    with connected(gateway) as connection:
        for sql in statements:
            cursor = connection.execute(sql)
            if cursor.description:
                rows = cursor.fetchall()
                assert rows or "pg_catalog" not in sql, sql


def test_tls_is_served_with_the_gateways_certificate(gateways, tmp_path):
    certs = Certs(tmp_path / "certs")
    certs.cli("server")
    gateway = gateways("--mqtts", "127.0.0.1:0", "--postgres", "127.0.0.1:0")
    config = gateway.folder / "backtide.toml"
    config.write_text(f"[mqtts]\ncertificate = {json.dumps(certs['server.pem'])}\nkey = {json.dumps(certs['server.key'])}\n")
    gateway.options += ["--config", str(config)]
    gateway.start()
    with connected(gateway, sslmode="require") as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT 1").fetchone() == (1,)


# --- Grafana's dashboards ---

def panels(dashboard):
    for panel in dashboard["panels"]:
        yield from panels(panel) if panel.get("panels") else [panel]


def expanded(sql, begin, end, variables):
    """What Grafana makes of its macros before it sends a query."""
    sql = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN '{begin}' AND '{end}'", sql)
    sql = re.sub(r"\$__timeGroupAlias\(([^,]*),\s*\$__interval\)", r'floor(extract(epoch from \1)/3600)*3600 AS "time"', sql)
    sql = re.sub(r"\$__timeGroup\(([^,]*),\s*\$__interval\)", r"floor(extract(epoch from \1)/3600)*3600", sql)
    sql = sql.replace("$__timeFrom()", f"'{begin}'").replace("$__timeTo()", f"'{end}'")
    for name, value in variables.items():
        sql = sql.replace(f"${{{name}:sqlstring}}", value).replace(f"${{{name}:raw}}", value.strip("'"))
    assert "$" not in sql, sql
    return sql


def test_every_query_of_the_dashboards_is_answered(history):
    gateway, _ = history
    until_current(gateway)
    variables = {"product": "'wind-farm'", "rollup": "'wind-farm_hourly'", "column": "P_avg.avg", "device": ", ".join(f"'{turbine}'" for turbine in TURBINES), "point": "'P_avg','Ws_avg'"}
    files = sorted(DASHBOARDS.glob("*.json"))
    assert files
    counts = {}
    with connected(gateway) as connection:
        for file in files:
            dashboard = json.loads(file.read_text())
            wanted = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
            wanted += [target["rawSql"] for panel in panels(dashboard) for target in panel["targets"]]
            for sql in wanted:
                # The log is of today, the history of 2014.
                begin, end = SOME_DAYS if "channel_log" not in sql and "quarantine" not in sql else ("2020-01-01", "2100-01-01")
                counts[sql] = len(connection.execute(expanded(sql, begin, end, variables)).fetchall())
    empty = [sql for sql, count in counts.items() if not count and "quarantine" not in sql and "'error'" not in sql]
    assert not empty, empty
    assert len(counts) >= 8
