"""The way to Configure with Tab, Shift, Enter and Space alone, and seeing where one is."""

import paths  # noqa: F401, I001
import rest
from base import Case
from selenium.webdriver.common.keys import Keys
from support import until
from together import load_tests  # noqa: F401

# What is drawn around, or under, what has the focus.
DRAWN = """(() => {
    const style = getComputedStyle(document.activeElement);
    return [style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none",
            document.activeElement.getBoundingClientRect().toJSON()];
})()"""
NAVIGATION = {"Overview": "", "Domains": "/domains", "Emails": "/emails", "Metrics": "/metrics",
              "Webhooks": "/webhooks", "API keys": "/api-keys", "Queue": "/queue", "Kill list": "/kill-list"}


class Keyboard(Case):
    def to(self, browser, name, most=80, hinted=False):
        """Tabs on until what is called this has the focus, which is seen at every step."""
        passed = []
        for _ in range(most):
            element = browser.tab()
            called = " ".join(element.accessible_name.split())
            drawn, box = browser.value(DRAWN)
            self.assertTrue(drawn, f"no focus is seen on {called}")
            self.assertGreater(box["width"] * box["height"], 0, called)
            self.assertTrue(box["right"] > 0 and box["bottom"] > 0, f"{called} is beside the page")
            passed.append(called)
            # A hint may follow.
            if called == name or hinted and called.startswith(f"{name} "):
                return element
        raise AssertionError(f"no {name} after {passed} at {browser.path}")

    def go(self, browser, name):
        """To a link or button, and through it."""
        before = browser.value("performance.timeOrigin")
        self.to(browser, name).send_keys(Keys.ENTER)
        until(f"the page behind {name}", lambda: browser.value("performance.timeOrigin") != before
              and browser.value("document.readyState") == "complete")

    def test_to_configure(self):
        self.relay()
        browser = self.browser()
        browser.open("/dashboard/sign-in")
        self.to(browser, "API key").send_keys(self.server.token, Keys.ENTER)
        browser.at("/dashboard")
        self.go(browser, "Domains")
        self.go(browser, "Add domain")
        self.to(browser, "Domain name").send_keys("example.com", Keys.ENTER)
        browser.says("example.com")
        until("the domain", lambda: rest.done(self.server, 200, "GET", "/domains")["data"])
        self.go(browser, "Configuration")
        self.go(browser, "Configure")
        self.to(browser, "Tracking subdomain").send_keys("links")
        for name in ("Open tracking", "Click tracking"):
            box = self.to(browser, name, hinted=True)
            box.send_keys(Keys.SPACE)
            self.assertTrue(box.is_selected())
        self.go(browser, "+ Add domain")
        (domain,) = rest.done(self.server, 200, "GET", "/domains")["data"]
        self.assertEqual((domain["tracking_subdomain"], domain["open_tracking"], domain["click_tracking"]),
                         ("links", True, True))

    def test_where_one_is(self):
        """The navigation says it. The first stop of every page leads past that, and is seen once one is there."""
        self.relay()
        browser = self.browser(token=self.server.token)
        for name, path in NAVIGATION.items():
            with self.subTest(name):
                browser.open(f"/dashboard{path}")
                (here,) = browser.all("header nav [aria-current=page]")[:1]
                self.assertEqual(here.text, name)
                self.assertEqual(len(browser.all("header nav[aria-label] ul [aria-current]")), 1)
                self.assertEqual(len(browser.all("h1")), 1)
                self.assertTrue(browser.value("document.title").strip())
                link = browser.tab()
                self.assertTrue(link.accessible_name.startswith("Skip"), link.accessible_name)
                self.assertTrue(browser.value(DRAWN)[0])
                link.send_keys(Keys.ENTER)
                until("the focus in the page", lambda: browser.value("document.activeElement.closest('main') !== null"))

    def test_tabs_of_a_domain(self):
        self.relay()
        id = self.track("example.com")
        browser = self.browser(token=self.server.token)
        for name, path in (("Records", ""), ("Configuration", "/configuration")):
            browser.open(f"/dashboard/domains/{id}{path}")
            self.assertEqual([one.text for one in browser.all("main [aria-current=page]")], [name])

    def test_a_fault_is_where_one_looks(self):
        """Said of the field that it is about."""
        self.relay()
        browser = self.browser(token=self.server.token)
        browser.open("/dashboard/domains/new")
        browser.write("Domain name", "a..b")
        browser.press("Add domain")
        until("the fault", lambda: browser.all("[role=alert]"))
        field = browser.field("Domain name")
        self.assertEqual(field.get_attribute("aria-invalid"), "true")
        described = browser.value("arguments[0].split(' ').map(id => document.getElementById(id).innerText)",
                                  field.get_attribute("aria-describedby"))
        self.assertIn("a..b", " ".join(described))
