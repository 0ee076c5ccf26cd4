"""The console as a person uses it: one page of real Chromium, spoken to by what one reads on it."""

import os
import pathlib
import re

from playwright.sync_api import expect, sync_playwright

from world import ROOT, TOOLS, eventually

CHROMIUM = os.environ.get("BACKTIDE_CHROMIUM", "/usr/bin/chromium")
AXE = TOOLS / "browser/node_modules/axe-core/axe.min.js"
# `BACKTIDE_SCREENSHOTS=1` writes docs/images/; a run without it leaves the tree as it is.
IMAGES = ROOT / "docs/images" if os.environ.get("BACKTIDE_SCREENSHOTS") else None
# Screens that are shown in dark too.
SHOWN_DARK = {"overview", "wind-farm", "rule-editor", "sql"}
# `BACKTIDE_CONSOLE=console/dist` shows that build in place of the one in the binary, so that work on the console needs no other.
BUILD = pathlib.Path(os.environ["BACKTIDE_CONSOLE"]).absolute() if os.environ.get("BACKTIDE_CONSOLE") else None

USER, PASSWORD = "mei", "correct horse battery"

expect.set_options(timeout=15_000)

__all__ = ["USER", "PASSWORD", "Browser", "Console", "expect", "eventually"]


class Browser:
    """Chromium; each console is a profile of its own."""

    def __init__(self):
        self.playwright = sync_playwright().start()
        self.chromium = self.playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                  "--no-first-run", "--font-render-hinting=none"])

    def close(self):
        self.chromium.close()
        self.playwright.stop()


class Console:
    """The console of one gateway in one browser profile."""

    def __init__(self, browser, gateway, **options):
        self.gateway = gateway
        self.context = browser.chromium.new_context(
            base_url=gateway.url, viewport={"width": 1360, "height": 900}, locale="en-GB", timezone_id="Asia/Shanghai",
            color_scheme="light", reduced_motion="reduce", **options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=gateway.url)
        if BUILD:
            self.context.route(lambda url: not url.startswith(f"{gateway.url}/api/"), self._from_build)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.trouble, self.foreign = [], []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, message):
        # What the browser says of an answer other than 200 is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.trouble.append(message.text)

    def _asked(self, url):
        if not url.startswith((self.gateway.url, "data:", "blob:")):
            self.foreign.append(url)

    def _from_build(self, route):
        file = BUILD / route.request.url.removeprefix(self.gateway.url).split("?")[0].lstrip("/")
        route.fulfill(path=file if file.is_file() else BUILD / "index.html")

    def close(self):
        self.context.close()

    # --- getting somewhere ---

    def open(self, path="/"):
        self.page.goto(path)
        return self

    def sign_in(self, name=USER, password=PASSWORD, role="admin"):
        """Signs in as a user that is made by the API if there is none yet."""
        made = self.gateway.http("PUT", f"/api/v1/access/users/{name}", json={"role": role, "password": password})
        assert made.status_code == 200, made.text
        self.open("/")
        self.fill("User name", name).fill("Password", password).click("Sign in")
        expect(self.page.get_by_role("navigation", name="Menu")).to_be_visible()
        return self

    def menu(self, name):
        self.page.get_by_role("navigation", name="Menu").get_by_role("link", name=name, exact=True).click()
        return self.heading(name)

    def heading(self, name):
        expect(self.page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()
        return self

    # --- acting by what is read ---

    @property
    def front(self):
        """What can be used: the dialog while one is open, else the page."""
        return self.page.locator("[role=dialog], body:not(:has([role=dialog]))")

    def field(self, label):
        """A text field by its label; a star marks those that are needed."""
        return self.front.get_by_label(re.compile(rf"^{re.escape(label)}( \*)?$")).and_(self.page.locator("input,textarea"))

    def field_of(self, label):
        """A list of the browser's own, by its label."""
        return self.front.get_by_label(label, exact=True).and_(self.page.locator("select"))

    def fill(self, label, text):
        self.field(label).fill(text)
        return self

    def click(self, name, exact=True, within=None):
        # An empty list has the button of its head once more.
        (within or self.front).get_by_role("button", name=name, exact=exact).first.click()
        return self

    def link(self, name, exact=True):
        self.page.get_by_role("link", name=name, exact=exact).first.click()
        return self

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()
        return self

    def choose(self, label, option):
        """An entry of a list that drops down."""
        self.front.get_by_role("combobox", name=label, exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        return self

    def choose_by_typing(self, label, option):
        """An entry of a list that is too long to be shown whole."""
        self.front.get_by_role("combobox", name=label, exact=True).fill(option)
        self.page.get_by_role("option", name=option, exact=True).click()
        return self

    def dialog(self):
        return self.page.get_by_role("dialog")

    def see(self, text, exact=False):
        expect(self.page.get_by_text(text, exact=exact).first).to_be_visible()
        return self

    def row(self, text):
        return self.page.get_by_role("row").filter(has_text=text)

    def write(self, text):
        """Into the code editor."""
        editor = self.page.locator(".cm-content[contenteditable=true]").first
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)
        return self

    def value(self, label):
        return self.field(label).input_value()

    def copy(self, label):
        """Presses the copy button of a text and reads the clipboard, as a person would paste it."""
        # The page writes it when it comes to it: what was copied before must not be read again.
        self.page.evaluate("navigator.clipboard.writeText('')")
        self.front.get_by_role("button", name=f"Copy {label}", exact=True).click()
        return self.page.wait_for_function("() => navigator.clipboard.readText()").json_value()

    def download(self, name):
        with self.page.expect_download() as download:
            self.click(name)
        return pathlib.Path(download.value.path()).read_bytes()

    # --- looking at the whole ---

    def colours(self, scheme):
        """light or dark, as the operating system says."""
        self.page.emulate_media(color_scheme=scheme)
        expect(self.page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
        return self

    def settled(self):
        """Nothing on the page waits for an answer."""
        expect(self.page.get_by_text("Loading…")).to_have_count(0)
        return self

    def barriers(self):
        """What axe finds, serious or worse, as text."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("""async () => (await axe.run(document, {resultTypes: ['violations']})).violations""")
        return [f"{one['id']} ({one['impact']}): {node['html'][:200]} · {node['failureSummary'][:300]}"
                for one in found if one["impact"] in ("serious", "critical") for node in one["nodes"]]

    def inspect(self, name):
        """No barrier in light or dark; the screenshot `name` where they are wanted; no trouble, nothing from elsewhere."""
        for scheme in ("light", "dark"):
            self.colours(scheme).settled()
            barriers = self.barriers()
            assert not barriers, f"{name}, {scheme}:\n" + "\n".join(barriers)
            if IMAGES and (scheme == "light" or name in SHOWN_DARK):
                IMAGES.mkdir(parents=True, exist_ok=True)
                self.page.screenshot(path=IMAGES / (f"{name}.png" if scheme == "light" else f"{name}-dark.png"))
        self.colours("light")
        assert not self.trouble, f"{name}: {self.trouble}"
        assert not self.foreign, f"{name} asked elsewhere: {self.foreign}"
        return self
