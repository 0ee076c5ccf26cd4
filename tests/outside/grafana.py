"""A PostgreSQL data source as Grafana's backend is one: its drivers in one process (clients/grafana), its macros here."""

import json
import re
import subprocess

from world import ROOT

SOURCE = ROOT / ".tools" / "grafana" / "source"


class Refused(Exception):
    def __init__(self, told):
        super().__init__(told["error"])
        self.state = told.get("state")


class Source:
    """One data source; `driver` is pgx (Grafana 12.1 and later) or pq (before)."""

    def __init__(self, driver, place, password, user="grafana"):
        host, port = place
        address = f"user='{user}' password='{password}' host='{host}' dbname='backtide' port={port} sslmode='disable'"
        self.process = subprocess.Popen([SOURCE, driver, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    def begin(self, what, **more):
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, "the data source has ended"
        told = json.loads(line)
        if told.get("error"):
            raise Refused(told)
        return told

    def ask(self, what, **more):
        self.begin(what, **more)
        return self.answer()


def seconds(span):
    number, unit = re.fullmatch(r"(\d+)(ms|[smhd])", span).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def panel(sql, begin, end, interval="1h"):
    """A panel's query with its macros replaced, as the backend sends it: `begin` and `end` are aware times."""
    def told(found):
        name, arguments = found.group(1), [part.strip() for part in found.group(2).split(",")]
        column = arguments[0]
        first, last = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (begin, end))
        epochs = [int(moment.timestamp()) for moment in (begin, end)]
        step = seconds(arguments[1].strip("'")) if len(arguments) > 1 else None
        step = int(step) if step == int(step or 0) else step
        alias = ' AS "time"'
        return {
            "time": lambda: f"{column}{alias}",
            "timeEpoch": lambda: f"extract(epoch from {column}) as \"time\"",
            "timeFilter": lambda: f"{column} BETWEEN '{first}' AND '{last}'",
            "timeFrom": lambda: f"'{first}'",
            "timeTo": lambda: f"'{last}'",
            "timeGroup": lambda: f"floor(extract(epoch from {column})/{step})*{step}",
            "timeGroupAlias": lambda: f"floor(extract(epoch from {column})/{step})*{step}{alias}",
            "unixEpochFilter": lambda: f"{column} >= {epochs[0]} AND {column} <= {epochs[1]}",
            "unixEpochNanoFilter": lambda: f"{column} >= {epochs[0]}000000000 AND {column} <= {epochs[1]}000000000",
            "unixEpochNanoFrom": lambda: f"{epochs[0]}000000000",
            "unixEpochNanoTo": lambda: f"{epochs[1]}000000000",
            "unixEpochGroup": lambda: f"floor(({column})/{step})*{step}",
            "unixEpochGroupAlias": lambda: f"floor(({column})/{step})*{step}{alias}",
            "unixEpochFrom": lambda: str(epochs[0]),
            "unixEpochTo": lambda: str(epochs[1]),
        }[name]()

    sql = sql.replace("$__interval_ms", str(int(seconds(interval) * 1000))).replace("$__interval", interval)
    sql = re.sub(r"\$__([A-Za-z]+)\(([^()]*)\)", told, sql)
    assert "$__" not in sql, sql
    return sql
