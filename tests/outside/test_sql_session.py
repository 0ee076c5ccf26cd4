"""What a session of PostgreSQL says beside its queries: cursors, settings, transactions, beginning anew."""

import psycopg
import pytest

from test_sql import HEAVY, connected, history, psql, queries  # noqa: F401
from world import TURBINES, eventually


@pytest.fixture
def session(history):  # noqa: F811
    gateway, _ = history
    with connected(gateway) as connection:
        yield connection


def value(session, sql):
    return session.execute(sql).fetchone()[0]


# --- cursors ---

@pytest.mark.parametrize("prepare", [False, True], ids=["text", "prepared"])
def test_a_cursor_moves_on_and_fetches_in_every_form(session, prepare):
    def said(sql):
        return session.execute(sql, prepare=prepare) if prepare else session.execute(sql)

    with session.transaction():
        said("DECLARE numbers CURSOR FOR SELECT value FROM generate_series(1, 100) t(value) ORDER BY value")
        assert said("MOVE 10 FROM numbers").statusmessage == "MOVE 10"
        assert said("FETCH numbers").fetchall() == [(11,)]
        assert said("FETCH FROM numbers").fetchall() == [(12,)]
        assert said("FETCH FORWARD IN numbers").fetchall() == [(13,)]
        assert said("FETCH 2 IN numbers").fetchall() == [(14,), (15,)]
        assert said("MOVE numbers").statusmessage == "MOVE 1"
        assert said("FETCH FORWARD 1 FROM numbers").fetchall() == [(17,)]
        assert said("MOVE FORWARD 3 numbers").statusmessage == "MOVE 3"
        assert len(said("FETCH FORWARD ALL FROM numbers").fetchall()) == 80
        assert said("MOVE ALL IN numbers").statusmessage == "MOVE 0"
        assert said("FETCH NEXT FROM numbers").fetchall() == []


@pytest.mark.parametrize("way", ["BACKWARD 1", "BACKWARD", "PRIOR", "FIRST", "LAST", "ABSOLUTE 3", "RELATIVE 2", "-1", "BACKWARD ALL"])
def test_a_cursor_that_is_asked_to_go_back_says_so(session, way):
    session.execute("DECLARE held CURSOR WITH HOLD FOR SELECT device FROM devices ORDER BY 1")
    for verb in ("FETCH", "MOVE"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as told:
            session.execute(f"{verb} {way} FROM held")
        assert told.value.diag.message_hint
    assert session.execute("FETCH ALL FROM held").fetchall() == [(turbine,) for turbine in sorted(TURBINES)]
    session.execute("CLOSE ALL")


def test_a_cursor_that_is_not_there_cannot_be_moved(session):
    with pytest.raises(psycopg.errors.InvalidCursorName):
        session.execute("MOVE 1 FROM nothing")
    with pytest.raises(psycopg.errors.SyntaxError):
        session.execute("MOVE sideways FROM nothing at all")


def test_psql_moves_and_fetches_between_other_statements(history):  # noqa: F811
    gateway, _ = history
    told = psql(gateway, "BEGIN; DECLARE c CURSOR FOR SELECT device FROM devices ORDER BY 1; MOVE 1 FROM c; FETCH 1 FROM c; COMMIT; SELECT 'MOVE ; on'")
    assert told.returncode == 0, told.stderr
    assert sorted(TURBINES)[1] in told.stdout and sorted(TURBINES)[0] not in told.stdout and "MOVE ; on" in told.stdout


# --- settings ---

def test_what_is_set_is_shown_until_it_is_reset(session):
    assert value(session, "SHOW server_version") == "16.6"
    assert value(session, "SHOW transaction_read_only") == "on"
    assert value(session, "SHOW TRANSACTION ISOLATION LEVEL") == "read committed"
    session.execute("SET application_name = 'a report'")
    session.execute("SET SESSION lock_timeout TO '5s'")
    assert value(session, "SHOW application_name") == "a report" and value(session, "SHOW lock_timeout") == "5s"
    session.execute("RESET application_name")
    assert value(session, "SHOW application_name") == ""
    session.execute("SET lock_timeout TO DEFAULT")
    assert value(session, "SHOW lock_timeout") == "0"
    session.execute("SET TIME ZONE 'Europe/Paris'")
    assert value(session, "SHOW timezone") == value(session, "SHOW TIME ZONE") == "Europe/Paris"
    session.execute("RESET ALL")
    assert value(session, "SHOW timezone") == "UTC"
    everything = session.execute("SHOW ALL").fetchall()
    assert len(everything) > 25 and ("server_encoding", "UTF8") in [row[:2] for row in everything]
    for name, setting in session.execute("SELECT name, setting FROM pg_settings").fetchall():
        assert value(session, f"SELECT current_setting('{name}')") == setting


@pytest.mark.parametrize("sql,error", [
    ("SHOW nonsense", psycopg.errors.UndefinedObject),
    ("SET server_version = '9.6'", psycopg.errors.CantChangeRuntimeParam),
    ("SET statement_timeout = 'soon'", psycopg.errors.InvalidParameterValue),
    ("SET client_encoding = 'LATIN1'", psycopg.errors.InvalidParameterValue),
])
def test_what_cannot_be_set_or_shown_is_told(session, sql, error):
    with pytest.raises(error) as told:
        session.execute(sql)
    assert told.value.diag.message_hint
    assert value(session, "SELECT 1") == 1


def test_a_setting_of_a_transaction_ends_with_it(session):
    session.execute("SET statement_timeout = '100s'")
    with session.transaction():
        session.execute("SET LOCAL statement_timeout = '300ms'")
        assert value(session, "SHOW statement_timeout") == "300ms"
        with pytest.raises(psycopg.errors.QueryCanceled), session.transaction():
            session.execute(HEAVY)
    assert value(session, "SHOW statement_timeout") == "100s"


def test_everything_is_given_up_at_once(session, history):  # noqa: F811
    gateway, _ = history
    session.execute("SET application_name = 'pooled'")
    session.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
    with session.transaction(), pytest.raises(psycopg.errors.ActiveSqlTransaction), session.transaction():
        session.execute("DISCARD ALL")
    session.execute("DISCARD ALL")
    assert value(session, "SHOW application_name") == ""
    with pytest.raises(psycopg.errors.InvalidCursorName):
        session.execute("FETCH 1 FROM held")
    eventually(lambda: queries(gateway) == 0, lambda: f"{queries(gateway)} queries run on", 20)
    # As pools of connections do between two who use one.
    for sql in ("CLOSE ALL", "UNLISTEN *", "RESET ALL", "DISCARD PLANS", "DISCARD TEMP", "DEALLOCATE ALL", "SELECT pg_advisory_unlock_all()"):
        session.execute(sql)


# --- transactions ---

@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                                   "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE"])
def test_a_savepoint_mends_a_failed_transaction(session, begin):
    session.execute(begin)
    session.execute("SAVEPOINT here")
    with pytest.raises(psycopg.errors.UndefinedTable):
        session.execute("SELECT * FROM nothing")
    for sql in ("SELECT 1", "SAVEPOINT there", "SHOW server_version"):
        with pytest.raises(psycopg.errors.InFailedSqlTransaction) as told:
            session.execute(sql)
        assert told.value.diag.message_hint
    session.execute("ROLLBACK TO SAVEPOINT here")
    assert value(session, "SELECT 2") == 2
    session.execute("RELEASE SAVEPOINT here")
    assert session.execute("COMMIT").statusmessage == "COMMIT"


def test_a_failed_transaction_is_rolled_back_by_commit(session):
    session.execute("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        session.execute("SELECT * FROM nothing")
    assert session.execute("COMMIT").statusmessage == "ROLLBACK"
    assert value(session, "SELECT 1") == 1
    with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
        session.execute("SAVEPOINT alone")


def test_a_plan_is_explained(session):
    plan = session.execute("EXPLAIN SELECT \"P_avg\" FROM \"wind-farm\" WHERE device = 'R80711'").fetchall()
    assert any("devices=[R80711]" in str(row) for row in plan)
