"""Users, sessions, API tokens, roles, the audit trail: over HTTP."""

import json

import requests

from world import CHANNEL, FARM, eventually

PASSWORD = "correct horse battery"


def make_user(gateway, name="mei", role="operator", password=PASSWORD):
    answer = gateway.http("PUT", f"/api/v1/access/users/{name}", json={"role": role, "password": password})
    assert answer.status_code == 200, answer.text


class Visitor:
    """Somebody with a cookie jar."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.jar = requests.Session()

    def sign_in(self, name="mei", password=PASSWORD):
        answer = self.jar.post(self.gateway.url + "/api/v1/access/sign-in", json={"name": name, "password": password}, timeout=60)
        if answer.status_code == 200:
            self.jar.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return answer

    def ask(self, method, path, **options):
        return self.jar.request(method, self.gateway.url + path, timeout=60, **options)


def audit(gateway, **filters):
    return gateway.http("GET", "/api/v1/access/audit", params=filters).json()["items"]


def test_the_first_user_is_made_with_the_admin_token_and_signs_in(gateway):
    state = lambda: gateway.http("GET", "/api/v1/access/state", token=False).json()["hasUsers"]
    assert state() is False
    make_user(gateway, role="admin")
    assert state() is True
    visitor = Visitor(gateway)
    answer = visitor.sign_in()
    assert answer.status_code == 200 and answer.json()["role"] == "admin"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert visitor.ask("GET", "/api/v1/access/me").json()["name"] == "mei"
    assert visitor.ask("POST", "/api/v1/access/sign-out").status_code == 204
    assert visitor.ask("GET", "/api/v1/access/me").status_code == 401


def test_a_proxy_with_tls_before_the_gateway_gets_a_secure_cookie(gateway):
    make_user(gateway)
    answer = requests.post(gateway.url + "/api/v1/access/sign-in", json={"name": "mei", "password": PASSWORD},
                           headers={"X-Forwarded-Proto": "https"}, timeout=60)
    assert "; Secure" in answer.headers["set-cookie"]


def test_a_session_survives_a_restart_and_a_revoked_one_does_not(farm):
    make_user(farm)
    kept, revoked = Visitor(farm), Visitor(farm)
    assert kept.sign_in().status_code == 200
    assert revoked.sign_in().status_code == 200
    sessions = farm.http("GET", "/api/v1/access/sessions").json()["items"]
    newest = max(sessions, key=lambda session: session["created"])
    assert farm.http("DELETE", f"/api/v1/access/sessions/{newest['id']}").status_code == 204
    farm.restart()
    assert kept.ask("GET", "/api/v1/channels").status_code == 200
    assert revoked.ask("GET", "/api/v1/channels").status_code == 401


def test_a_change_made_with_a_session_needs_its_csrf_token(farm):
    make_user(farm)
    visitor = Visitor(farm)
    visitor.sign_in()
    csrf = visitor.jar.headers.pop("X-CSRF-Token")
    refused = visitor.ask("POST", f"/api/v1/channels/{CHANNEL}/pause")
    assert refused.status_code == 403 and refused.json()["code"] == "csrf"
    assert visitor.ask("POST", f"/api/v1/channels/{CHANNEL}/pause", headers={"X-CSRF-Token": csrf}).status_code == 200


def test_guessing_a_password_is_slowed_down(gateway):
    make_user(gateway)
    visitor = Visitor(gateway)
    answers = [visitor.sign_in(password=f"wrong wrong {n}") for n in range(7)]
    assert [a.status_code for a in answers[:5]] == [401] * 5
    assert answers[0].json()["detail"] == Visitor(gateway).sign_in(name="nobody").json()["detail"] or answers[-1].status_code == 429
    throttled = [a for a in answers if a.status_code == 429]
    assert throttled and int(throttled[-1].headers["retry-after"]) >= 1
    # It is the wait that ends it, not an admin.
    eventually(lambda: visitor.sign_in().status_code == 200, "signed in after the wait")
    assert [deed["action"] for deed in audit(gateway, author="mei")].count("sign-in refused") == 5


def test_roles_bound_what_tokens_can_do(farm):
    def token(role):
        made = farm.http("POST", "/api/v1/access/tokens", json={"name": role, "role": role})
        assert made.status_code == 201, made.text
        return made.json()["token"]

    viewer, operator, admin = token("viewer"), token("operator"), token("admin")
    connection, pause, users = f"/api/v1/channels/{CHANNEL}/connection", f"/api/v1/channels/{CHANNEL}/pause", "/api/v1/access/users"
    wanted = {
        ("GET", "/api/v1/devices"): (200, 200, 200), ("POST", pause): (403, 200, 200),
        ("GET", connection): (403, 403, 200), ("GET", users): (403, 403, 200),
    }
    found = {(method, path): tuple(farm.http(method, path, token=t).status_code for t in (viewer, operator, admin))
             for method, path in wanted}
    assert found == wanted
    assert farm.http("DELETE", "/api/v1/access/tokens/admin").status_code == 204
    assert farm.http("GET", users, token=admin).status_code == 401
    assert "token" not in farm.http("GET", "/api/v1/access/tokens").json()["items"][0]


def test_the_command_line_works_with_an_api_token(farm):
    made = farm.http("POST", "/api/v1/access/tokens", json={"name": "ci", "role": "viewer", "days": 1}).json()
    environment = {**farm.environment(), "BACKTIDE_TOKEN": made["token"]}
    farm.environment = lambda: environment
    assert farm.cli("get", "device", "-o", "json").json()
    assert "operator" in farm.cli("channel", "pause", CHANNEL, code=3).err


def test_the_trail_has_every_change_before_and_after_and_no_secret(farm):
    farm.apply(FARM.read_text().replace("mode: strict", "mode: lenient"))
    farm.rotate()
    farm.cli("channel", "pause", CHANNEL)
    farm.cli("delete", "device", "R80790")
    strings = farm.channel()
    deeds = audit(farm, limit=100)
    # The default rules are made by the gateway itself.
    own = [deed for deed in deeds if deed["author"] == "gateway"]
    assert sorted(deed["action"] for deed in own) == ["rule created"] * 4 + ["rule-state created"] * 4
    deeds = [deed for deed in deeds if deed not in own]
    by_action = {}
    for deed in deeds:
        by_action.setdefault(deed["action"], []).append(deed)
    changed = by_action["channel changed"][0]
    assert json.loads(changed["before"])["mode"] == "strict" and json.loads(changed["after"])["mode"] == "lenient"
    assert [json.loads(d["after"])["paused"] for d in by_action["login changed"]] == [True, False], "the last first"
    assert by_action["device deleted"][0]["object"].endswith("/R80790")
    assert by_action["channel secret shown"][0]["object"] == CHANNEL
    assert all(deed["author"] == "admin.token" and deed["time"] > 0 for deed in deeds)
    assert strings.secret not in json.dumps(deeds) and "sealed\": \"•••" in json.dumps([json.loads(d["after"]) for d in by_action["login changed"]], ensure_ascii=False)


def test_pages_of_the_trail_follow_each_other(farm):
    first = farm.http("GET", "/api/v1/access/audit", params={"limit": 3}).json()
    second = farm.http("GET", "/api/v1/access/audit", params={"limit": 3, "cursor": first["next"]}).json()
    ids = [deed["id"] for deed in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == 6


def test_access_db_is_for_nobody_else_and_holds_no_password(gateway):
    make_user(gateway)
    for path in gateway.data_dir.glob("access.db*"):
        assert PASSWORD.encode() not in path.read_bytes()
