"""PostgreSQL's JDBC driver as the tests drive it: one process of clients/Jdbc.java has one connection at a time."""

import json
import subprocess

from world import ROOT

LIBRARIES = ROOT / ".tools" / "jdbc"


class Refused(Exception):
    """What the driver or the server refused: `state` is the SQLSTATE."""

    def __init__(self, told):
        super().__init__(f"{told.get('state')}: {told['message']}")
        self.state, self.hint, self.message = told.get("state"), told.get("hint"), told["message"]


class Jdbc:
    def __init__(self, place, password, user="backtide", **properties):
        host, port = place
        self.url = f"jdbc:postgresql://{host}:{port}/backtide"
        self.properties = {"user": user, "password": password, "connectTimeout": "20"}
        self.process = subprocess.Popen(["java", "-XX:TieredStopAtLevel=1", "-Duser.timezone=Europe/Paris", "-cp",
                                         f"{LIBRARIES / 'classes'}:{LIBRARIES}/*", "Jdbc"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.connect(**properties)

    def connect(self, **properties):
        """A new connection in place of the one before."""
        self.ask("connect", url=self.url, properties={**self.properties, **properties})
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    def ask(self, what, **more):
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the program that drives the driver has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def rows(self, sql, *parameters, **more):
        """The rows of a query; a parameter is {"long": 5}, {"text": "a"} and so on."""
        return self.ask("query", sql=sql, parameters=list(parameters), **more).get("rows")

    def meta(self, method, *arguments):
        """What DatabaseMetaData says: rows as dictionaries, or a value."""
        answer = self.ask("meta", method=method, arguments=list(arguments))
        if "value" in answer:
            return answer["value"]
        return [dict(zip(answer["columns"], row)) for row in answer["rows"]]
