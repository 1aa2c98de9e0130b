"""Debian's Chromium without a window, driven over WebDriver as a person would drive it: by the words on the page.

It finds the hosts of a test on loopback and nothing else anywhere. With `scripts=False` pages run no script, by the
setting that people use for that; what a test itself runs in the page is not concerned.
"""

import base64
import contextlib
import os
import pathlib
import shutil

import paths  # noqa: F401
from selenium import webdriver
from selenium.common import NoAlertPresentException, NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support import until

PHONE, DESKTOP = (390, 844), (1280, 900)
LIGHT, DARK = "light", "dark"
# Of what a page comes to; a start on a busy machine is the longest.
SECONDS = 60
# What it does by itself would only be in the way; upgrading http to https by guess would look like HSTS.
OPTIONS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
           "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,Translate")
RESERVED = [pattern for end in ("example.com", "example.net", "example.org", "test") for pattern in (end, f"*.{end}")]
CONTROLS = "input:not([type=hidden]), select, textarea"
GONE = (NoSuchElementException, StaleElementReferenceException)


class Browser:
    """One with a profile of its own. `hosts` are ports by the names that lead there; all others that are reserved for
    examples lead to `world`."""

    def __init__(self, folder, world, hosts=None, scripts=True, base=""):
        self.base, self.scripts, self.world = base, scripts, world
        options = webdriver.ChromeOptions()
        options.binary_location = find("chromium")
        rules = [f"MAP {host} 127.0.0.1:{port}" for host, port in (hosts or {}).items()]
        rules += [f"MAP {name} 127.0.0.1:{world.port}" for name in RESERVED]
        # Nowhere else, also for what it does on its own.
        rules += ["MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
        # Its own sandbox is not for root.
        for option in (*OPTIONS, *(["--no-sandbox"] if os.getuid() == 0 else []), f"--user-data-dir={folder}",
                       f"--host-resolver-rules={', '.join(rules)}"):
            options.add_argument(option)
        if not scripts:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # A dialog stays open, so that it is seen.
        options.set_capability("unhandledPromptBehavior", "ignore")
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(find("chromedriver")))
        self.driver.set_page_load_timeout(SECONDS)
        self.driver.set_script_timeout(SECONDS)
        self.look(DESKTOP, LIGHT)

    def stop(self):
        self.driver.quit()

    # ---- What it is

    def look(self, size, scheme):
        """The width and height of its window, and whether its user likes it light or dark."""
        self.size = size
        self.command("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1,
                     mobile=size == PHONE)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme},
                                                             {"name": "prefers-reduced-motion", "value": "reduce"}])

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def forget(self):
        """As one that was never here."""
        self.command("Network.clearBrowserCookies")

    def cookies(self):
        return {one["name"]: one["value"] for one in self.command("Network.getAllCookies")["cookies"]}

    # ---- Where it is

    def open(self, address):
        self.driver.get(self.base + address if address.startswith("/") else address)

    def reload(self):
        self.driver.refresh()

    @property
    def address(self):
        return self.driver.current_url

    @property
    def path(self):
        """Of the page, with its query."""
        return self.address.removeprefix(self.base)

    def at(self, path):
        """Waits until the page is this one."""
        until(lambda: f"{path}, instead of {self.address}: {self.text()[:2000]}",
              lambda: self.path.partition("?")[0] == path and self.value("document.readyState") == "complete")

    # ---- What it shows

    def value(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def text(self):
        """What is seen of the page."""
        return self.value("document.body ? document.body.innerText : ''")

    def says(self, *words, seconds=30):
        """Waits until all of this is seen, whatever its case."""
        def missing():
            seen = " ".join(self.text().lower().split())
            return [one for one in words if one.lower() not in seen]

        until(lambda: f"{missing()} at {self.address}:\n{self.text()[:4000]}", lambda: not missing(), seconds)

    def all(self, selector, within=None):
        return (within or self.driver).find_elements(By.CSS_SELECTOR, selector)

    def named(self, kind, name, within=None):
        """The visible elements of an XPath that are called this."""
        quoted = literal(name)
        path = f".//{kind}[normalize-space()={quoted} or @aria-label={quoted} or @value={quoted}]"
        return [one for one in (within or self.driver).find_elements(By.XPATH, path) if one.is_displayed()]

    def one(self, kind, name, within=None):
        def found():
            with contextlib.suppress(*GONE):
                return self.named(kind, name, within)

        return until(lambda: f"{kind} {name!r} at {self.address}:\n{self.text()[:4000]}", found, 10)[0]

    def link(self, name, within=None):
        return self.one("a", name, within)

    def button(self, name, within=None):
        return self.one("*[self::button or self::input[@type='submit']]", name, within)

    def field(self, label, within=None):
        """The control that a screen reader calls this, with a hint behind it at the most."""
        def found():
            with contextlib.suppress(*GONE):
                controls = [(" ".join(one.accessible_name.split()), one) for one in self.all(CONTROLS, within)]
                begun = [one for name, one in controls if name.startswith(label)]
                return dict(controls).get(label) or (begun[0] if len(begun) == 1 else None)

        def told():
            return f"a field {label!r} among {[one.accessible_name for one in self.all(CONTROLS, within)]}"

        return until(lambda: f"{told()} at {self.address}:\n{self.text()[:4000]}", found, 10)

    def heading(self, name):
        return self.one("*[self::h1 or self::h2 or self::h3]", name)

    # ---- What its user does

    def follow(self, name, within=None):
        self.link(name, within).click()

    def press(self, name, within=None):
        self.button(name, within).click()

    def write(self, label, text, within=None):
        """In place of what is there."""
        field = self.field(label, within)
        field.clear()
        field.send_keys(text)

    def tick(self, label, on=True, within=None):
        field = self.field(label, within)
        if field.is_selected() != on:
            field.click()

    def key(self, *keys):
        """Presses keys wherever the focus is; what has it afterwards."""
        self.driver.switch_to.active_element.send_keys(*keys)
        return self.driver.switch_to.active_element

    def tab(self, backwards=False):
        return self.key(*([Keys.SHIFT, Keys.TAB] if backwards else [Keys.TAB]))

    def sign_in(self, token):
        self.open("/dashboard/sign-in")
        self.write("API key", token)
        self.press("Sign in")
        self.button("Sign out")

    # ---- What is noticed beside

    def console(self):
        """What the browser has told its console since it was asked last, as lines."""
        return [f"{one['level']} {one['message']}" for one in self.driver.get_log("browser")]

    def dialog(self):
        """The words of one that is open, or None."""
        try:
            return self.driver.switch_to.alert.text
        except NoAlertPresentException:
            return None

    def shoot(self, name, folder=None):
        """Keeps a picture of the whole page."""
        folder = pathlib.Path(folder or paths.SHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, optimizeForSpeed=True)
        (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def literal(text):
    """Text as XPath has it, which knows no escapes."""
    if '"' not in text:
        return f'"{text}"'
    return "concat(%s)" % ", '\"', ".join(f'"{part}"' for part in text.split('"'))


def find(program):
    if found := shutil.which(program):
        return found
    raise AssertionError(f"{program} is missing (Debian: chromium, chromium-driver)")
