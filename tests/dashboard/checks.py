"""What every page of the dashboard is held against, whatever it shows.

Each function gives the faults that it found as lines, none where all is well; `sound` says them all at once.
"""

import json
import re
import subprocess

import paths
from browser import DARK, DESKTOP, LIGHT, PHONE

LARGEST = 200_000
LOOKS = [(name, size, scheme) for name, size in (("phone", PHONE), ("desktop", DESKTOP)) for scheme in (LIGHT, DARK)]
# Each width and each scheme once: axe takes its time, and finds no more in all four.
AXED = (LOOKS[0], LOOKS[3])
SERIOUS = ("serious", "critical")
# The message's own document within the preview, which may style itself and nothing else.
CONTENT = re.compile(r"/dashboard/emails/[^/]+/preview/content\Z")
AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"], iframes: false}).then(
    found => done(found.violations.filter(one => arguments[0].includes(one.impact)).map(one => [
        one.id, one.help,
        one.nodes.map(node => `${node.target}: ${node.html.slice(0, 300)} ${node.failureSummary}`)])),
    fault => done([["axe", String(fault), []]]));
"""
WIDEST = """(() => {
    const wide = [...document.querySelectorAll("body *")].filter(one => {
        const box = one.getBoundingClientRect();
        return box.right > arguments[0] + 1 && box.width > 0 && !one.parentElement.closest(".scroll");
    });
    return wide.slice(0, 5).map(one => one.outerHTML.slice(0, 200));
})()"""


def sound(faults):
    if faults:
        raise AssertionError(f"{len(faults)} faults:\n" + "\n".join(faults))


# ---- As it is shown

def axe(browser):
    """Serious and critical findings of axe-core on the page that is open, each with its nodes."""
    source = (modules() / "axe-core" / "axe.min.js").read_text()
    if not browser.value("typeof axe === 'object'"):
        browser.driver.execute_script(source)
    found = browser.driver.execute_async_script(AXE, SERIOUS)
    return [f"{rule}: {help}\n  " + "\n  ".join(nodes) for rule, help, nodes in found]


def layout(browser):
    """The page does not scroll sideways; what is wide does so by itself."""
    width, wanted = browser.value("document.scrollingElement.scrollWidth"), browser.size[0]
    if width <= wanted:
        return []
    return [f"{width} pixels wide instead of {wanted}: {browser.value(WIDEST, wanted)}"]


def quiet(browser, allowed=()):
    """Nothing on the console, no dialog, nothing fetched from elsewhere."""
    if words := browser.dialog():
        return [f"a dialog: {words}"]
    # What the browser advises is DEBUG.
    lines = [line for line in browser.console()
             if not line.startswith("DEBUG") and not any(re.search(one, line) for one in allowed)]
    return [f"console: {line}" for line in lines]


def shown(browser, name, looks=LOOKS):
    """All of these on the page that is open, in every look; a picture of each is kept under this name."""
    faults = []
    for look in looks:
        width, size, scheme = look
        browser.look(size, scheme)
        found = layout(browser) + (axe(browser) if look in AXED else [])
        browser.shoot(f"{name}-{width}-{scheme}")
        faults += [f"{name} ({browser.path}), {width}, {scheme}: {one}" for one in found]
    return faults + [f"{name} ({browser.path}): {one}" for one in quiet(browser)]


# ---- As it is served

def served(answer, status=200):
    """The answer itself: its status, size, headers, and no script or style within."""
    faults = []

    def ask(right, fault):
        if not right:
            faults.append(f"{answer.path}: {fault}")

    ask(answer.status == status, f"{answer.status} instead of {status}")
    ask(answer.headers.get("content-type") == "text/html; charset=utf-8", answer.headers.get("content-type"))
    ask(len(answer.body) < LARGEST, f"{len(answer.body)} bytes")
    ask(answer.headers.get("x-content-type-options") == "nosniff", "no nosniff")
    ask("no-store" in answer.headers.get("cache-control", ""), f"kept: {answer.headers.get('cache-control')}")
    ask(answer.headers.get("referrer-policy") in ("no-referrer", "same-origin"), "its address goes elsewhere")
    if CONTENT.match(answer.path):
        faults += content(answer)
        return faults
    policy = directives(answer)
    ask("unsafe-" not in str(policy), f"policy: {policy}")
    ask(policy.get("default-src") in (["'none'"], ["'self'"]), f"default-src: {policy}")
    ask(policy.get("script-src", policy.get("default-src")) in (["'self'"], ["'none'"]), f"script-src: {policy}")
    for name in ("frame-ancestors", "form-action", "base-uri"):
        ask(policy.get(name) in (["'none'"], ["'self'"]), f"{name}: {policy}")
    for element in answer.tree.iter():
        if not isinstance(element.tag, str):
            continue
        handlers = [name for name in element.keys() if name.startswith("on") or name == "style"]
        ask(not handlers, f"<{element.tag}> has {handlers}")
        # What stands in an image that is drawn here may be styled by the sheet alone as well.
        ask(element.tag != "style", f"a style: {element.text}")
        ask(element.tag != "script" or (element.get("src") and not element.text), f"a script: {element.text}")
        for name in ("src", "href", "action", "formaction"):
            where = element.get(name, "").strip().lower()
            ask(not where.startswith(("javascript:", "vbscript:", "data:text")), f"<{element.tag}> leads to {where}")
    return faults


def content(answer):
    """The message in its preview: styles in it are its own, nothing is fetched, run or sent."""
    policy = directives(answer)
    right = {"default-src": ["'none'"], "style-src": ["'unsafe-inline'"], "form-action": ["'none'"],
             "base-uri": ["'none'"]}
    faults = [f"{answer.path}: {name} is {policy.get(name)}" for name, value in right.items()
              if policy.get(name) != value]
    if "sandbox" not in policy or "allow-scripts" in policy["sandbox"]:
        faults.append(f"{answer.path}: sandbox is {policy.get('sandbox')}")
    for name, value in policy.items():
        if name not in right and name != "sandbox" and any("unsafe" in one or one == "*" for one in value):
            faults.append(f"{answer.path}: {name} is {value}")
    return faults


def directives(answer):
    parts = (part.split() for part in answer.headers.get("content-security-policy", "").split(";") if part.strip())
    return {name: values for name, *values in parts}


def valid(folder, answers):
    """What html-validate finds in pages as they were served, all in one go. Its rule on `meta-refresh` is off: where no
    script runs, and there alone, a page that shows what goes on asks for itself again."""
    folder.mkdir(parents=True, exist_ok=True)
    files, names = [], {}
    for number, answer in enumerate(one for one in answers if not CONTENT.match(one.path)):
        files.append(folder / f"{number}.html")
        files[-1].write_bytes(answer.body)
        names[str(files[-1])] = answer.path
    program = modules() / "html-validate" / "bin" / "html-validate.mjs"
    config = paths.TESTS / "dashboard" / ".htmlvalidate.json"
    # Into a file: it ends without waiting for a pipe to take all of it.
    told = folder / "found.json"
    ran = subprocess.run(["node", program, "--config", config, "--formatter", f"json={told}", *files],
                         capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    if ran.returncode not in (0, 1) or not told.exists():
        raise AssertionError(f"html-validate: {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    faults = []
    for report in json.loads(told.read_text()):
        lines = (folder / report["filePath"]).read_text().split("\n")
        for one in report["messages"]:
            line = lines[one["line"] - 1]
            around = line[max(0, one["column"] - 100):one["column"] + 100]
            faults.append(f"{names[report['filePath']]}:{one['line']}: {one['ruleId']}: {one['message']}: {around}")
    return faults


def led(visitor, answer, known):
    """Every link on the page that stays here leads somewhere. `known` are those that were followed before."""
    faults = []
    for path in answer.links():
        if path not in known:
            known.add(path)
            found = visitor.get(path)
            if found.status != 200:
                faults.append(f"{answer.path}: {path} is {found.status}")
    return faults


def modules():
    if not paths.NODE_MODULES.exists():
        raise AssertionError(f"{paths.NODE_MODULES} is missing: node_packages of tests/tools.sh installs it")
    return paths.NODE_MODULES
