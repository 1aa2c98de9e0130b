"""All pages that links lead to from the overview, each with the kind of page that it is.

A kind is a path with ids taken out, with the names of what it is asked for, but for pages and ranges of the same, and
with what it shows: `/dashboard/emails/ID/report`, `/dashboard/metrics?show=rates`. There may be thousands of one kind,
so some of each are read, and one of each is looked at in a browser.
"""

import concurrent.futures
import queue
import re

import checks
from browser import DESKTOP, LIGHT

ID = re.compile(r"(?<=/)(msg_[0-9A-Za-z]+|[0-9a-f]{8}-[0-9a-f-]{27})(?=/|\Z)")
HEAD = "/dashboard"
# Where a link leads to something that is no page.
FILES = re.compile(r"/dashboard/(assets/[^/]+|metrics\.csv)\Z")
SAME = {"after", "before", "page", "last", "from", "to", "by", "domain"}


def kind(path):
    path, _, query = path.partition("?")
    parts = [part if part.startswith("show=") else part.partition("=")[0] for part in query.split("&") if part]
    names = sorted({*parts} - SAME)
    return ID.sub("ID", path) + (f"?{'&'.join(names)}" if names else "")


def crawl(visitor, each=3, start=HEAD, also=()):
    """Answers by their kinds, `each` at the most, and those of `also`, to which no link may lead. Whatever is found has
    to be there, but is judged by nobody here."""
    found, seen, waiting, also = {}, set(), [start, *also], set(also)
    while waiting:
        path = waiting.pop(0).partition("#")[0]
        which = kind(path)
        enough = path not in also and len(found.get(which, ())) >= each
        if path in seen or enough or FILES.match(path.partition("?")[0]):
            continue
        seen.add(path)
        answer = visitor.get(path)
        found.setdefault(which, []).append(answer)
        if answer.status == 200:
            waiting += answer.links()
    return found


def judged(folder, visitor, found):
    """The faults of all these pages as they were served, and of where their links lead."""
    answers = [answer for kept in found.values() for answer in kept]
    faults, known = [], {answer.path for answer in answers}
    for answer in answers:
        faults += checks.served(answer) + checks.led(visitor, answer, known)
    return faults + checks.valid(folder, answers)


def watched(browsers, name, pages, look=checks.shown):
    """Each page in one of the browsers, its pictures under `name` and its kind."""
    waiting, faults = queue.SimpleQueue(), []
    for page in pages:
        waiting.put(page)

    def work(browser):
        while True:
            try:
                which, path = waiting.get_nowait()
            except queue.Empty:
                return
            browser.look(DESKTOP, LIGHT)
            browser.open(path)
            faults.extend(look(browser, f"{name}-{title(which)}"))

    with concurrent.futures.ThreadPoolExecutor(len(browsers)) as pool:
        for one in [pool.submit(work, browser) for browser in browsers]:
            one.result()
    return faults


def title(which):
    """A kind of page as the name of a file."""
    return re.sub(r"[^A-Za-z0-9]+", "-", which.removeprefix(HEAD)).strip("-") or "overview"
