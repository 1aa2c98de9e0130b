"""The dashboard without a browser: one session over plain HTTP, whose forms are filled in by the words on the page.

For what a browser would not do, and for looking at what is served as it is served.
"""

import dataclasses
import http.client
import re
import ssl
import urllib.parse

import html5lib

TIMEOUT = 30
FORM = "application/x-www-form-urlencoded"
SPACES = re.compile(r"\s+")


@dataclasses.dataclass(frozen=True)
class Answer:
    """`headers` by their names in small letters; `cookies` are the lines of Set-Cookie."""

    path: str
    status: int
    headers: dict
    cookies: list
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def tree(self):
        return html5lib.parse(self.text, namespaceHTMLElements=False)

    @property
    def words(self):
        """All text of the page, as one line."""
        return words(self.tree.find("body"))

    @property
    def forms(self):
        return [Form(self.path, element, self.tree) for element in self.tree.iter("form")]

    def form(self, button):
        """The form with this button."""
        found = [one for one in self.forms if button in one.buttons]
        if not found:
            raise AssertionError(f"no form with a button {button!r} at {self.path}, {self.status}: {self.words[:2000]}")
        return found[0]

    def asking(self, label):
        """The form with this field."""
        found = [one for one in self.forms if any(name.startswith(label) for name in one.labels)]
        if not found:
            raise AssertionError(f"no form with a field {label!r} at {self.path}, {self.status}: {self.words[:2000]}")
        return found[0]

    def links(self):
        """Paths with their queries of all links that stay within the dashboard."""
        found = []
        for element in self.tree.iter("a"):
            address = urllib.parse.urljoin(f"http://relay.test{self.path}", element.get("href", ""))
            parts = urllib.parse.urlsplit(address)
            if parts.netloc == "relay.test" and parts.path.startswith("/dashboard"):
                found.append(parts.path + (f"?{parts.query}" if parts.query else ""))
        return list(dict.fromkeys(found))


class Form:
    """A form as it came. `fields` are (name, value) as they would be sent; `labels` has names by the words beside."""

    def __init__(self, path, element, tree):
        self.path, self.method = path, element.get("method", "get").lower()
        self.action = urllib.parse.urljoin(path, element.get("action", path))
        self.fields, self.labels, self.buttons, self.ticks, self.radios = [], {}, {}, {}, set()
        beside = {one.get("for"): words(one) for one in tree.iter("label") if one.get("for")}
        around = {control: words(label) for label in element.iter("label") for control in label.iter()}
        for control in element.iter():
            label = around.get(control) or beside.get(control.get("id")) or control.get("aria-label")
            self.add(control, label)

    def add(self, control, label):
        name, kind = control.get("name"), control.get("type", "text")
        if control.tag == "button" or kind == "submit":
            self.buttons[words(control) or control.get("value")] = (name, control.get("value", "")) if name else None
            return
        if control.tag not in ("input", "select", "textarea") or not name:
            return
        value = control.get("value", "on" if kind in ("checkbox", "radio") else "")
        if control.tag == "textarea":
            # The first line's end is not of the text.
            value = "".join(control.itertext()).removeprefix("\n")
        if control.tag == "select":
            options = list(control.iter("option"))
            chosen = [one for one in options if one.get("selected") is not None] or options[:1]
            value = chosen[0].get("value", words(chosen[0])) if chosen else ""
        if label:
            self.labels[label] = name
        if kind in ("checkbox", "radio"):
            self.ticks[label] = (name, value)
            if kind == "radio":
                self.radios.add(name)
            if control.get("checked") is None:
                return
        self.fields.append((name, value))

    def label(self, wanted):
        """The whole label that is this, or begins with it: what follows then is a hint."""
        if wanted in self.labels:
            return wanted
        found = [one for one in self.labels if one.startswith(wanted)]
        if len(found) != 1:
            raise AssertionError(f"no field {wanted!r} among {list(self.labels)} at {self.path}")
        return found[0]

    def value(self, label):
        return dict(self.fields).get(self.labels[self.label(label)])

    def ticked(self, label):
        return self.ticks[self.label(label)] in self.fields

    def filled(self, values, button=None):
        """The fields to send. Of `values` a bool ticks a box or takes its tick away, a string is written, by label."""
        fields = list(self.fields)
        for label, value in values.items():
            label = self.label(label)
            name = self.labels[label]
            if isinstance(value, bool):
                # Of buttons that exclude each other, one alone.
                gone = [one for one in fields if one == self.ticks[label] or name in self.radios and one[0] == name]
                fields = [one for one in fields if one not in gone] + ([self.ticks[label]] if value else [])
            else:
                fields = [one for one in fields if one[0] != name] + [(name, value)]
        return fields + ([self.buttons[button]] if button and self.buttons[button] else [])


class Visitor:
    """`jar` has the cookies by name. With a token, signed in; with a root, over TLS."""

    def __init__(self, port, token=None, root=None):
        self.port, self.jar, self.root = port, {}, root
        if token:
            answer = self.sign_in(token)
            if not [one for one in answer.forms if "Sign out" in one.buttons]:
                raise AssertionError(f"not signed in: {answer.status} {answer.path} {answer.words[:1000]}")

    @property
    def origin(self):
        return f"{'https' if self.root else 'http'}://127.0.0.1:{self.port}"

    def sign_in(self, token):
        page = self.get("/dashboard/sign-in")
        return self.submit(page.form("Sign in"), {"API key": token}, "Sign in")

    def get(self, path, follow=True):
        return self.ask("GET", path, follow=follow)

    def submit(self, form, values=None, button=None, follow=True, drop=(), headers=None):
        """Sends a form with these values by label; `drop` are names of fields that are left out."""
        fields = [one for one in form.filled(values or {}, button) if one[0] not in drop]
        data = urllib.parse.urlencode(fields)
        if form.method == "get":
            return self.get(f"{form.action.partition('?')[0]}?{data}", follow)
        return self.ask("POST", form.action, data.encode(), headers, follow)

    def ask(self, method, path, body=None, headers=None, follow=True):
        given = {"Accept": "text/html", "Host": f"127.0.0.1:{self.port}"}
        if self.jar:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        if body is not None:
            given |= {"Content-Type": FORM, "Origin": self.origin}
        given |= headers or {}
        answer = self.exchange(method, path, body, {name: value for name, value in given.items() if value is not None})
        for line in answer.cookies:
            name, _, value = line.partition(";")[0].partition("=")
            self.jar.pop(name, None)
            if value and "max-age=0" not in line.lower().replace(" ", ""):
                self.jar[name] = value
        if follow and answer.status in (301, 302, 303, 307, 308):
            where = urllib.parse.urljoin(f"{self.origin}{path}", answer.headers["location"])
            if not where.startswith(self.origin):
                raise AssertionError(f"{path} leads to {where}")
            return self.get(where.removeprefix(self.origin))
        return answer

    def connect(self):
        if not self.root:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        context = ssl.create_default_context(cafile=self.root)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT, context=context)

    def exchange(self, method, path, body, headers):
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(path.partition("#")[0], answer.status, found, answer.headers.get_all("Set-Cookie") or [],
                          answer.read())
        finally:
            connection.close()


def words(element):
    """The text in an element, as one line."""
    return SPACES.sub(" ", "".join(element.itertext())).strip()
