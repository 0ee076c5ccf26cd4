"""SQL through PostgreSQL's JDBC driver, as DBeaver connects: what it knows of the database, parameters, portals, errors; and
what DBeaver itself asks of the catalogue, in its order."""

import pytest

from jdbc import Jdbc, Refused
from test_sql import HEAVY, SOME_DAYS, history, place, queries  # noqa: F401
from world import POINTS, TURBINES, eventually

DEVICE = "R80711"
COLUMNS = ["time", "device", "sequence"]


@pytest.fixture(scope="module")
def driver(history):  # noqa: F811
    gateway, _ = history
    with Jdbc(place(gateway), gateway.token) as driver:
        yield driver


@pytest.fixture
def jdbc(driver):
    return driver.connect()


def refused(jdbc, sql, *parameters, **more):
    with pytest.raises(Refused) as told:
        jdbc.rows(sql, *parameters, **more)
    return told.value


# --- what the driver knows ---

def test_the_driver_describes_the_database(jdbc):
    about = jdbc.ask("get")
    assert about["valid"] and about["autoCommit"] and about["major"] == 16
    assert (about["catalog"], about["schema"]) == ("backtide", "public")
    assert about["version"].startswith("16.6")
    assert "public" in [schema["TABLE_SCHEM"] for schema in jdbc.meta("getSchemas")]
    assert "backtide" in [catalog["TABLE_CAT"] for catalog in jdbc.meta("getCatalogs")]
    assert {"TABLE", "VIEW"} <= {kind["TABLE_TYPE"] for kind in jdbc.meta("getTableTypes")}
    tables = jdbc.meta("getTables", None, "public", "%", None)
    assert {"points", "wind-farm", "wind-farm_hourly", "channel_log"} <= {table["TABLE_NAME"] for table in tables}
    assert {table["TABLE_SCHEM"] for table in tables} == {"public"}
    columns = jdbc.meta("getColumns", None, "public", "wind-farm", "%")
    named = {column["COLUMN_NAME"]: column for column in columns}
    assert [column["COLUMN_NAME"] for column in columns][:3] == COLUMNS and set(POINTS) <= set(named)
    assert (named["time"]["TYPE_NAME"], named["device"]["TYPE_NAME"], named["P_avg"]["TYPE_NAME"]) == ("timestamptz", "text", "float8")
    assert [column["ORDINAL_POSITION"] for column in columns] == list(range(1, len(columns) + 1))
    assert {"int8", "text", "timestamptz", "float8", "bool"} <= {known["TYPE_NAME"] for known in jdbc.meta("getTypeInfo")}


NOTHING = [
    ("getPrimaryKeys", None, "public", "wind-farm"),
    ("getIndexInfo", None, "public", "wind-farm", False, False),
    ("getImportedKeys", None, "public", "wind-farm"),
    ("getExportedKeys", None, "public", "wind-farm"),
    ("getCrossReference", None, "public", "wind-farm", None, "public", "devices"),
    ("getBestRowIdentifier", None, "public", "wind-farm", 0, True),
    ("getVersionColumns", None, "public", "wind-farm"),
    ("getProcedures", None, "public", "%"),
    ("getFunctions", None, "public", "%"),
    ("getUDTs", None, "public", "%", None),
]


@pytest.mark.parametrize("asked", NOTHING, ids=[asked[0] for asked in NOTHING])
def test_what_there_never_is_is_answered_with_nothing(jdbc, asked):
    rows = jdbc.meta(*asked)
    # Every table has columns that stand for a row's version in PostgreSQL.
    assert rows == [] or asked[0] == "getVersionColumns", rows


def test_the_driver_asks_about_limits_and_rights(jdbc):
    assert jdbc.meta("getMaxColumnNameLength") == 63
    assert jdbc.meta("getMaxIndexLength") == 0 and jdbc.meta("getMaxColumnsInIndex") == 32
    assert "xmlparse" in jdbc.meta("getSQLKeywords").split(",")
    assert jdbc.meta("getURL").startswith("jdbc:postgresql:")
    for method, *arguments in [("getTablePrivileges", None, "public", "wind-farm"),
                               ("getColumnPrivileges", None, "public", "wind-farm", "%"),
                               ("getFunctionColumns", None, "public", "%", "%"),
                               ("getProcedureColumns", None, "public", "%", "%"),
                               ("getClientInfoProperties",)]:
        assert isinstance(jdbc.meta(method, *arguments), list)


# --- parameters ---

VALUES = [
    ({"text": "a'b \\ ü"}, "text", "a'b \\ ü"),
    ({"int": -7}, "int", -7),
    ({"long": 9007199254740993}, "bigint", 9007199254740993),
    ({"double": 0.1}, "double precision", 0.1),
    ({"float": 1.5}, "real", 1.5),
    ({"boolean": True}, "boolean", True),
    ({"time": "2014-03-24T01:00:00+01:00"}, "timestamptz", "2014-03-24T00:00Z"),
    ({"null": "text"}, "text", None),
]


@pytest.mark.parametrize("times", [1, 7], ids=["text", "binary"])
@pytest.mark.parametrize("value,kind,back", VALUES, ids=[kind for _, kind, _ in VALUES])
def test_a_parameter_comes_back_as_it_went(jdbc, value, kind, back, times):
    assert jdbc.rows(f"SELECT CAST(? AS {kind}) AS a", value, times=times) == [[back]]


@pytest.mark.parametrize("times", [1, 7], ids=["text", "binary"])
def test_parameters_bound_what_is_read(jdbc, history, times):  # noqa: F811
    _, engine = history
    begin, end = ({"time": day} for day in SOME_DAYS)
    sql = 'SELECT time, device, "P_avg", sequence FROM "wind-farm" WHERE device = ? AND time >= ? AND time < ? AND "P_avg" > ? ORDER BY time'
    rows = jdbc.rows(sql, {"text": DEVICE}, begin, end, {"double": 100.5}, times=times)
    wanted = engine.sql(f"SELECT P_avg FROM history WHERE deviceKey = '{DEVICE}' AND time >= epoch_ms('{SOME_DAYS[0]}'::timestamptz) "
                        f"AND time < epoch_ms('{SOME_DAYS[1]}'::timestamptz) AND P_avg > 100.5 ORDER BY time").fetchall()
    assert [row[2] for row in rows] == [row[0] for row in wanted] and len(rows) > 10
    assert {row[1] for row in rows} == {DEVICE} and all(row[0].endswith("Z") for row in rows)
    # The driver sends a java.sql.Timestamp without a type, as text in the zone of the client.
    stamps = [{"timestamp": day} for day in SOME_DAYS]
    assert jdbc.rows(sql, {"text": DEVICE}, *stamps, {"double": 100.5}, times=times) == rows
    few = jdbc.rows("SELECT device FROM devices WHERE device = ANY(?) ORDER BY 1", {"texts": sorted(TURBINES)[:2]}, times=times)
    assert [row[0] for row in few] == sorted(TURBINES)[:2]


# --- portals ---

def test_rows_come_by_the_fetch_size_inside_a_transaction(jdbc, history):  # noqa: F811
    _, engine = history
    total = engine.sql("SELECT count(*) FROM history WHERE P_avg IS NOT NULL").fetchall()[0][0]
    sql = 'SELECT device, time, "P_avg" FROM "wind-farm" WHERE "P_avg" IS NOT NULL ORDER BY device, time'
    at_once = jdbc.rows(sql)
    jdbc.ask("set", autoCommit=False)
    for fetch in (1000, 7, 1000):
        wanted = sql if fetch != 7 else sql + " LIMIT 100"
        rows = jdbc.rows(wanted, fetch=fetch)
        assert rows == (at_once if fetch != 7 else at_once[:100])
        jdbc.ask("commit")
    assert len(at_once) == total
    jdbc.ask("set", autoCommit=True)


# --- leaving, limits, errors ---

def test_a_query_ends_by_its_timeout_and_when_it_is_cancelled(jdbc, history):  # noqa: F811
    gateway, _ = history
    assert refused(jdbc, HEAVY, timeout=1).state == "57014"
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)
    jdbc.ask("begin query", sql=HEAVY)
    eventually(lambda: queries(gateway) == 1, lambda: "the query does not run", 20)
    with pytest.raises(Refused) as told:
        jdbc.ask("cancel")
    assert told.value.state == "57014"
    assert jdbc.rows("SELECT 1") == [[1]]


@pytest.mark.parametrize("sql,state", [
    ("SELECT * FROM nothing", "42P01"), ('SELECT p_avg FROM "wind-farm"', "42703"), ("SELEC 1", "42601"),
    ("SELECT nofunction(1)", "42883"),
    ("INSERT INTO points (device) VALUES ('x')", "25006"), ("UPDATE devices SET device = 'x'", "25006"),
    ("DELETE FROM devices", "25006"), ("CREATE TABLE x (a int)", "25006"), ("DROP TABLE points", "25006"),
    ("TRUNCATE points", "25006"),
])
def test_a_refusal_has_its_state_and_the_connection_goes_on(jdbc, sql, state):
    told = refused(jdbc, sql)
    assert told.state == state and told.hint, (told.state, told.message, told.hint)
    assert jdbc.rows("SELECT 1") == [[1]]


def test_a_failed_transaction_is_gone_back_from(jdbc):
    jdbc.ask("set", autoCommit=False)
    assert jdbc.rows("SELECT 1") == [[1]]
    assert refused(jdbc, "SELECT * FROM nothing").state == "42P01"
    assert refused(jdbc, "SELECT 1").state == "25P02"
    jdbc.ask("rollback")
    assert jdbc.rows("SELECT 1") == [[1]]
    jdbc.ask("savepoint")
    assert refused(jdbc, "SELECT * FROM nothing").state == "42P01"
    jdbc.ask("rollback to savepoint")
    assert jdbc.rows("SELECT 2") == [[2]]
    jdbc.ask("commit")
    jdbc.ask("set", autoCommit=True)


def test_the_driver_saves_and_goes_back_by_itself(driver):
    jdbc = driver.connect(autosave="always")
    jdbc.ask("set", autoCommit=False)
    assert jdbc.rows("SELECT 1") == [[1]]
    assert refused(jdbc, "SELECT * FROM nothing").state == "42P01"
    assert jdbc.rows("SELECT 2") == [[2]]
    jdbc.ask("commit")


def test_a_read_only_connection_reads(jdbc):
    for is_read_only in (True, False):
        jdbc.ask("set", readOnly=is_read_only)
        assert jdbc.ask("get")["readOnly"] == is_read_only
        assert jdbc.rows("SELECT count(*) FROM devices") == [[len(TURBINES)]]
        jdbc.ask("set", autoCommit=False)
        assert jdbc.rows("SELECT 1") == [[1]]
        jdbc.ask("commit")
        jdbc.ask("set", autoCommit=True)
    assert jdbc.ask("get")["isolation"] == 2  # TRANSACTION_READ_COMMITTED


def test_a_connection_takes_settings_with_it(driver):
    jdbc = driver.connect(ApplicationName="reports", options="-c statement_timeout=500 -c search_path=public", preferQueryMode="simple")
    assert jdbc.rows("SHOW application_name") == [["reports"]]
    assert refused(jdbc, HEAVY).state == "57014"
    assert jdbc.rows("SHOW statement_timeout") == [["500"]]


# --- DBeaver ---

# What DBeaver's PostgreSQL part asks, in its order: said here in our words, with the same tables, columns and joins. A name in
# braces is taken from what was answered before.
CONNECTS = [
    "SELECT current_database()",
    "SELECT version()",
    "SELECT * FROM pg_catalog.pg_enum WHERE 1<>1 LIMIT 1",
    "SELECT reltype FROM pg_catalog.pg_class WHERE 1<>1 LIMIT 1",
    "SET application_name = 'DBeaver 24.2.3 - Main'",
    "SELECT current_schema(), session_user",
    "SHOW search_path",
    "SET search_path = public",
    "SELECT oid, datname FROM pg_catalog.pg_database WHERE datname = '{database}'",
    "SELECT b.oid, b.* FROM pg_catalog.pg_database b WHERE datname = '{database}'",
    "SELECT datname FROM pg_catalog.pg_database WHERE datistemplate",
    "SELECT b.oid, b.* FROM pg_catalog.pg_database b WHERE datallowconn AND NOT datistemplate ORDER BY b.datname",
    "SELECT typcategory FROM pg_catalog.pg_type WHERE 1<>1 LIMIT 1",
    "SELECT s.oid, s.*, about.description FROM pg_catalog.pg_namespace s LEFT OUTER JOIN pg_catalog.pg_description about "
    "ON about.objoid = s.oid AND about.objsubid = 0 AND about.classoid = 'pg_namespace'::regclass ORDER BY nspname",
    "SELECT s.oid, s.* FROM pg_catalog.pg_namespace s ORDER BY nspname",
    "SELECT description FROM pg_shdescription JOIN pg_database ON objoid = pg_database.oid WHERE datname = '{database}'",
    # Types, with the type that a domain or an array is made of.
    "SELECT k.oid, k.*, r.relkind, format_type(nullif(k.typbasetype, 0), k.typtypmod) AS base_type_name, about.description "
    "FROM pg_catalog.pg_type k LEFT OUTER JOIN pg_catalog.pg_type element ON element.oid = k.typelem "
    "LEFT OUTER JOIN pg_catalog.pg_class r ON r.oid = k.typrelid LEFT OUTER JOIN pg_catalog.pg_description about ON k.oid = about.objoid "
    "WHERE k.typname IS NOT NULL AND (r.relkind IS NULL OR r.relkind = 'c') AND (element.typcategory IS NULL OR element.typcategory <> 'C')",
    "SELECT * FROM pg_catalog.pg_enum",
    "SELECT m.oid, m.* FROM pg_catalog.pg_am m ORDER BY m.oid",
    "SELECT v.contoencoding AS encid, pg_catalog.pg_encoding_to_char(v.contoencoding) AS encname FROM pg_catalog.pg_conversion v "
    "GROUP BY v.contoencoding ORDER BY 2",
    "SELECT o.oid, o.* FROM pg_catalog.pg_collation o ORDER BY o.oid",
    "SELECT g.oid, g.* FROM pg_catalog.pg_language g ORDER BY g.oid",
    "SELECT w.oid, w.*, f.pronamespace AS handler_schema_id FROM pg_catalog.pg_foreign_data_wrapper w "
    "LEFT OUTER JOIN pg_catalog.pg_proc f ON f.oid = w.fdwhandler ORDER BY w.fdwname",
    "SELECT w.oid, w.* FROM pg_catalog.pg_foreign_server w ORDER BY w.srvname",
    "SELECT s.oid, s.*, pg_tablespace_location(s.oid) loc FROM pg_catalog.pg_tablespace s ORDER BY s.oid",
    "SELECT name, default_version, installed_version, comment FROM pg_catalog.pg_available_extensions ORDER BY name",
    "SELECT x.oid, n.nspname AS schema_name, x.* FROM pg_catalog.pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace ORDER BY x.oid",
    "SELECT a.oid, a.*, pg_catalog.shobj_description(a.oid, 'pg_authid') AS descr FROM pg_catalog.pg_roles a ORDER BY a.rolname",
    "SELECT * FROM pg_catalog.pg_auth_members WHERE member = 10",
    "SELECT et.oid, et.*, f.pronamespace FROM pg_catalog.pg_event_trigger et LEFT JOIN pg_catalog.pg_proc f ON f.oid = et.evtfoid",
    "SELECT b.datname, pg_database_size(b.oid) FROM pg_catalog.pg_database b",
]
OPENS_A_SCHEMA = [
    # Tables, views, sequences.
    "SELECT r.oid, r.*, about.description, pg_catalog.pg_get_expr(r.relpartbound, r.oid) AS partition_expr, "
    "pg_catalog.pg_get_partkeydef(r.oid) AS partition_key FROM pg_catalog.pg_class r "
    "LEFT OUTER JOIN pg_catalog.pg_description about ON about.objoid = r.oid AND about.objsubid = 0 AND about.classoid = 'pg_class'::regclass "
    "WHERE r.relnamespace = {schema} AND r.relkind NOT IN ('i','I','c')",
    "SELECT h.inhrelid relid, parent.relnamespace parent_ns, parent.oid parent_oid, h.inhseqno FROM pg_catalog.pg_inherits h, pg_class child, "
    "pg_class parent WHERE child.oid = h.inhrelid AND child.relnamespace = {schema} AND parent.oid = h.inhparent",
    "SELECT r.oid, pg_catalog.pg_total_relation_size(r.oid) AS total_rel_size, pg_catalog.pg_relation_size(r.oid) AS rel_size "
    "FROM pg_class r WHERE r.relnamespace = {schema}",
    "SELECT k.oid, k.*, part.relname AS tabrelname, other.relnamespace AS refnamespace, about.description FROM pg_catalog.pg_constraint k "
    "INNER JOIN pg_catalog.pg_class part ON part.oid = k.conrelid LEFT OUTER JOIN pg_catalog.pg_class other ON other.oid = k.confrelid "
    "LEFT OUTER JOIN pg_catalog.pg_description about ON about.objoid = k.oid AND about.objsubid = 0 AND about.classoid = 'pg_constraint'::regclass "
    "WHERE part.relnamespace = {schema} ORDER BY k.oid",
    "SELECT x.*, x.indkey AS keys, r.relname, r.relnamespace, r.relam, r.reltablespace, of.relname AS tabrelname, about.description, "
    "pg_catalog.pg_get_expr(x.indpred, x.indrelid) AS pred_expr, pg_catalog.pg_get_expr(x.indexprs, x.indrelid, true) AS expr, "
    "pg_catalog.pg_relation_size(x.indexrelid) AS index_rel_size, pg_catalog.pg_stat_get_numscans(x.indexrelid) AS index_num_scans "
    "FROM pg_catalog.pg_index x INNER JOIN pg_catalog.pg_class r ON r.oid = x.indexrelid INNER JOIN pg_catalog.pg_class of ON of.oid = x.indrelid "
    "LEFT OUTER JOIN pg_catalog.pg_description about ON x.indexrelid = about.objoid WHERE r.relnamespace = {schema} ORDER BY r.relname",
    "SELECT f.oid AS poid, f.*, pg_catalog.pg_get_expr(f.proargdefaults, 0) AS arg_defaults, about.description FROM pg_catalog.pg_proc f "
    "LEFT OUTER JOIN pg_catalog.pg_description about ON about.objoid = f.oid AND about.classoid = 'pg_proc'::regclass AND about.objsubid = 0 "
    "WHERE f.pronamespace = {schema} ORDER BY f.proname",
    "SELECT f.oid AS proc_oid, f.proname AS proc_name, g.* FROM pg_catalog.pg_aggregate g, pg_catalog.pg_proc f WHERE f.oid = g.aggfnoid "
    "AND f.pronamespace = {schema} ORDER BY f.proname",
    "SELECT * FROM pg_default_acl WHERE defaclnamespace = {schema}",
]
OPENS_A_TABLE = [
    # Columns.
    "SELECT r.relname, c.*, pg_catalog.pg_get_expr(fallback.adbin, fallback.adrelid, true) AS def_value, about.description, needs.objid "
    "FROM pg_catalog.pg_attribute c INNER JOIN pg_catalog.pg_class r ON (c.attrelid = r.oid) "
    "LEFT OUTER JOIN pg_catalog.pg_attrdef fallback ON (c.attrelid = fallback.adrelid AND c.attnum = fallback.adnum) "
    "LEFT OUTER JOIN pg_catalog.pg_description about ON (r.oid = about.objoid AND c.attnum = about.objsubid) "
    "LEFT OUTER JOIN pg_depend needs ON needs.refobjid = c.attrelid AND needs.deptype = 'i' AND needs.refobjsubid = c.attnum "
    "AND needs.classid = needs.refclassid "
    "WHERE NOT c.attisdropped AND r.relkind NOT IN ('i','I','c') AND r.oid = {table} ORDER BY c.attnum",
    "SELECT t.oid, t.*, f.pronamespace AS func_schema_id, about.description FROM pg_catalog.pg_trigger t "
    "LEFT OUTER JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid LEFT OUTER JOIN pg_catalog.pg_description about ON about.objoid = t.oid "
    "AND about.objsubid = 0 WHERE t.tgrelid = {table} AND NOT t.tgisinternal",
    "SELECT w.oid, w.*, pg_get_ruledef(w.oid) AS definition FROM pg_rewrite w WHERE w.ev_class = {table} AND w.rulename <> '_RETURN'::name",
    "SELECT DISTINCT connamespace FROM pg_catalog.pg_constraint WHERE confrelid = {table}",
    "SELECT h.*, r.relnamespace FROM pg_catalog.pg_inherits h, pg_catalog.pg_class r WHERE h.inhrelid = {table} AND r.oid = h.inhparent ORDER BY h.inhseqno",
    "SELECT h.*, r.relnamespace FROM pg_catalog.pg_inherits h, pg_catalog.pg_class r WHERE h.inhparent = {table} AND r.oid = h.inhrelid",
    "SELECT * FROM pg_catalog.pg_policies WHERE schemaname = 'public' AND tablename = 'wind-farm'",
    "SELECT * FROM pg_catalog.pg_sequences WHERE schemaname = 'public' AND sequencename = 'wind-farm'",
    "SELECT pg_catalog.pg_total_relation_size({table}) AS total_rel_size, pg_catalog.pg_relation_size({table}) AS rel_size",
    "SELECT * FROM pg_catalog.pg_foreign_table WHERE ftrelid = {table}",
    "SELECT pg_get_viewdef({table}, true)",
    "SELECT description FROM pg_catalog.pg_description JOIN pg_catalog.pg_class ON pg_description.objoid = pg_class.oid "
    "JOIN pg_catalog.pg_namespace ON pg_class.relnamespace = pg_namespace.oid WHERE pg_class.relname = 'wind-farm' AND pg_namespace.nspname = 'public'",
    "SELECT * FROM information_schema.table_privileges WHERE table_catalog = '{database}' AND grantee = 'me'",
    "SELECT * FROM information_schema.routine_privileges WHERE specific_catalog = '{database}' AND grantee = 'me'",
]
MANAGES = [
    "SELECT a.* FROM pg_catalog.pg_stat_activity a",
    "SELECT l.*, b.datname FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_database b ON b.oid = l.database WHERE l.pid = 1",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT * FROM pg_catalog.pg_settings WHERE name = 'server_version'",
    "SHOW ALL",
    # Searching by a part of a name.
    "SELECT DISTINCT r.oid, r.relname, r.relnamespace, r.relkind, obj_description(r.oid, 'pg_class') FROM pg_catalog.pg_class r "
    "WHERE r.relkind IN ('r','v','m','f','p') AND r.relname ILIKE 'wind%' AND r.relnamespace IN ({schema}) ORDER BY r.relname LIMIT 100",
    "SELECT DISTINCT c.attname, c.attrelid, c.attnum, r.relnamespace FROM pg_catalog.pg_attribute c, pg_catalog.pg_class r "
    "WHERE r.oid = c.attrelid AND c.attname ILIKE 'p_a%' AND r.relnamespace IN ({schema}) ORDER BY c.attname LIMIT 100",
]


def asked(jdbc, sql, found):
    for name, value in found.items():
        sql = sql.replace("{" + name + "}", str(value))
    try:
        answer = jdbc.ask("query", sql=sql, parameters=[])
    except Refused as error:
        raise AssertionError(f"{error}\n{sql}") from error
    return [dict(zip(answer["columns"], row)) for row in answer.get("rows", [])]


def test_what_dbeaver_asks_is_answered(jdbc):
    found = {"database": "backtide"}
    for sql in CONNECTS:
        asked(jdbc, sql, found)
    schemas = {schema["nspname"]: schema for schema in asked(jdbc, "SELECT s.oid, s.* FROM pg_catalog.pg_namespace s ORDER BY nspname", found)}
    found["schema"] = schemas["public"]["oid"]
    answers = [asked(jdbc, sql, found) for sql in OPENS_A_SCHEMA]
    tables = {table["relname"]: table for table in answers[0]}
    assert {"wind-farm", "points", "devices"} <= set(tables)
    assert not any(answers[1:2] + answers[3:]), "nothing but tables"
    found["table"] = tables["wind-farm"]["oid"]
    answers = [asked(jdbc, sql, found) for sql in OPENS_A_TABLE]
    assert [column["attname"] for column in answers[0]][:3] == COLUMNS
    # Each column's type is one of those that were read when it connected.
    known = {kind["oid"] for kind in asked(jdbc, "SELECT oid FROM pg_catalog.pg_type", found)}
    assert {int(column["atttypid"]) for column in answers[0]} <= known
    answers = [asked(jdbc, sql, found) for sql in MANAGES]
    assert "16.6" in [row["setting"] for row in answers[3]]
    assert any(row["relname"] == "wind-farm" for row in answers[5])
    # A page of rows as its grid asks for them: in a transaction, by the fetch size, so many and no more.
    jdbc.ask("set", autoCommit=False)
    rows = jdbc.rows('SELECT r.* FROM public."wind-farm" r ORDER BY r.time DESC', fetch=200, most=200)
    assert len(rows) == 200 and rows[0][0] >= rows[-1][0]
    jdbc.ask("commit")


@pytest.mark.parametrize("settings", [{"preferQueryMode": "simple"}, {"prepareThreshold": "-1"}], ids=["simple", "binary"])
def test_what_dbeaver_asks_is_answered_in_every_mode(driver, settings):
    jdbc = driver.connect(**settings)
    found = {"database": "backtide"}
    found["schema"] = asked(jdbc, "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public'", found)[0]["oid"]
    for sql in CONNECTS + OPENS_A_SCHEMA + MANAGES:
        asked(jdbc, sql, found)
