"""SQL through the drivers of Grafana's PostgreSQL data source: its health check, its menus, its macros, a panel that is left."""

import datetime

import pytest

from grafana import Refused, Source, panel
from test_sql import HEAVY, SOME_DAYS, history, place, queries  # noqa: F401
from world import TURBINES, eventually

BEGIN, END = (datetime.datetime.fromisoformat(day) for day in SOME_DAYS)


@pytest.fixture(params=["pgx", "pq"])
def source(request, history):  # noqa: F811
    gateway, _ = history
    with Source(request.param, place(gateway), gateway.token) as source:
        yield source


def rows(source, sql, *arguments):
    if arguments:
        return source.ask("query", sql=sql, args=list(arguments))["rows"] or []
    return source.ask("text", sql=panel(sql, BEGIN, END))["rows"] or []


def test_the_health_check_succeeds_and_says_why_it_does_not(source, history):  # noqa: F811
    gateway, _ = history
    source.ask("ping")
    with Source("pgx", place(gateway), "nonsense") as wrong:
        with pytest.raises(Refused) as told:
            wrong.ask("ping")
        assert told.value.state == "28P01"


def test_the_menus_list_schemas_tables_columns_and_values(source):
    schemas = rows(source, "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT LIKE 'pg_%' "
                           "AND schema_name != 'information_schema' ORDER BY schema_name")
    assert ["public"] in schemas
    tables = rows(source, "SELECT table_name FROM information_schema.tables WHERE table_schema = $1 "
                          "AND table_type IN ('BASE TABLE', 'VIEW') ORDER BY table_name", "public")
    assert {"points", "wind-farm", "devices"} <= {row[0] for row in tables}
    columns = rows(source, "SELECT column_name, data_type, udt_name, numeric_precision, numeric_scale FROM information_schema.columns "
                           "WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position", "public", "wind-farm")
    kinds = {row[0]: (row[1], row[2]) for row in columns}
    assert [row[0] for row in columns][:3] == ["time", "device", "sequence"]
    assert kinds["time"] == ("timestamp with time zone", "timestamptz") and kinds["device"] == ("text", "text")
    assert kinds["P_avg"] == ("double precision", "float8") and kinds["sequence"] == ("bigint", "int8")
    values = rows(source, """SELECT 'device' AS col_name, "device"::text AS val FROM (SELECT DISTINCT "device" FROM "public"."wind-farm"
        WHERE "device" IS NOT NULL ORDER BY "device" LIMIT 100) sub_0""")
    assert values == [["device", device] for device in sorted(TURBINES)]


HOURLY = "SELECT time // 3600000 * 3600, deviceKey, avg(P_avg) FROM history WHERE time BETWEEN {} AND {} AND P_avg IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"


@pytest.mark.parametrize("sql", [
    'SELECT $__timeGroupAlias(time, $__interval), device AS metric, avg("P_avg") AS value FROM "wind-farm" '
    'WHERE $__timeFilter(time) AND "P_avg" IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2',
    # A fill is Grafana's own: what is sent is the same.
    'SELECT $__timeGroupAlias(time, \'1h\', NULL), device AS metric, avg("P_avg") AS value FROM "wind-farm" '
    'WHERE time BETWEEN $__timeFrom() AND $__timeTo() AND "P_avg" IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2',
    'SELECT $__unixEpochGroupAlias(at, 1h), device AS metric, avg(v) AS value FROM (SELECT extract(epoch from time) AS at, device, '
    '"P_avg" AS v FROM "wind-farm") x WHERE $__unixEpochFilter(at) AND v IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2',
    'SELECT $__timeGroup(time, 1h) AS "time", device AS metric, avg("P_avg") AS value FROM "wind-farm" WHERE extract(epoch from time) >= '
    '$__unixEpochFrom() AND extract(epoch from time) <= $__unixEpochTo() AND "P_avg" IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2',
], ids=["timeGroup", "fill", "unixEpochGroup", "unixEpoch"])
def test_every_way_to_group_by_time_gives_what_duckdb_gives(source, history, sql):  # noqa: F811
    _, engine = history
    begin, end = (int(moment.timestamp() * 1000) for moment in (BEGIN, END))
    wanted = engine.sql(HOURLY.format(begin, end)).fetchall()
    got = rows(source, sql)
    assert [(row[0], row[1]) for row in got] == [(row[0], row[1]) for row in wanted] and len(got) > 100
    assert [row[2] for row in got] == [pytest.approx(row[2], rel=1e-12) for row in wanted]


def test_times_numbers_and_texts_come_as_what_they_are(source):
    answer = source.ask("text", sql=panel('SELECT $__time(time), $__timeEpoch(time), device, "P_avg", sequence, true AS yes, NULL::text AS none '
                                          'FROM "wind-farm" WHERE $__timeFilter(time) AND "P_avg" IS NOT NULL ORDER BY device, time LIMIT 1'
                                          .replace('$__timeEpoch(time)', 'extract(epoch from time) AS epoch'), BEGIN, END))
    assert answer["columns"] == ["time", "epoch", "device", "P_avg", "sequence", "yes", "none"]
    assert [kind.lower() for kind in answer["types"]][0] == "timestamptz"
    time, epoch, device, value, sequence, yes, none = answer["rows"][0]
    assert datetime.datetime.fromisoformat(time).timestamp() == epoch >= BEGIN.timestamp()
    assert device == min(TURBINES) and isinstance(value, float) and isinstance(sequence, int) and yes is True and none is None


def test_nanoseconds_are_compared_whole(source):
    counted = rows(source, "SELECT count(*) FROM (SELECT CAST(extract(epoch from time) AS bigint) * 1000000000 AS at FROM \"wind-farm\") x "
                           "WHERE $__unixEpochNanoFilter(at)")
    assert counted == rows(source, 'SELECT count(*) FROM "wind-farm" WHERE $__timeFilter(time)')


def test_a_panel_that_is_left_ends_its_query(source, history):  # noqa: F811
    gateway, _ = history
    source.begin("cancelled", sql=HEAVY)
    eventually(lambda: queries(gateway) == 1, lambda: "the query does not run", 20)
    source.begin("leave")
    with pytest.raises(Refused) as told:
        source.answer()
    assert told.value.state in ("left", "57014"), told.value
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)
    assert rows(source, "SELECT 1") == [[1]]


def test_a_wrong_panel_is_told_and_the_next_one_is_answered(source):
    for sql, state in [("SELECT * FROM nothing", "42P01"), ("SELECT 1/", "42601"), ("DELETE FROM points", "25006")]:
        with pytest.raises(Refused) as told:
            rows(source, sql)
        assert told.value.state == state
    assert rows(source, "SELECT 1; SELECT 2")[0] == [1]
