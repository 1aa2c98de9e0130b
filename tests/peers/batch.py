#!/usr/bin/env python3
"""Many messages through Postfix, trackpost and Postfix: nothing lost, nothing twice, nothing damaged.

    tests/campaign postfix [MESSAGES]

Each is given to `sendmail` of the Postfix in front, every fifth of them for two recipients, and is compared in the
mailbox of the Postfix behind with what it was by tests/verify, which shares no code with the relay. Every link is
followed at the relay's tracking host. Exits 1 if anything is not as it should be.
"""

import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from route import Route
from support import DOTS, SENDER, check, fixture, fixtures, until

SECONDS_A_MESSAGE = 0.25


def originals(count):
    """So many messages: those of fixtures/mail that a Postfix passes on as they are, and one of many dots, in turn."""
    kinds = [DOTS] + [data for data in map(fixture, fixtures.names()) if passes_unchanged(data)]
    return [kinds[number % len(kinds)] for number in range(count)]


def passes_unchanged(data):
    """Postfix breaks lines over 998 octets; and where a text of no octet gets the pixel, SMTP adds a line end to it."""
    return max(map(len, data.split(b"\r\n"))) <= 998 and not data.endswith(b"\r\n\r\n")


def recipients(number):
    return [f"m{number}-{who}@example.net" for who in (("ada", "grace") if number % 5 == 0 else ("ada",))]


def send_and_compare(count):
    """Faults as lines of text, and counts."""
    messages = originals(count)
    expected = sum(len(recipients(number)) for number in range(count))
    faults, counts = [], Counter()
    with Route(users=None) as route:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as senders:
            sent = [
                senders.submit(route.front.sendmail, message, recipients(number), sender=SENDER)
                for number, message in enumerate(messages)
            ]
        for one in sent:
            one.result()

        def settled():
            # The queues are looked at in the order in which mail goes through them.
            return route.behind.delivered("all") >= expected and not route.waiting()

        try:
            until("everything to have arrived", settled, 30 + SECONDS_A_MESSAGE * count)
        except AssertionError as error:
            faults.append(f"{error}, and there wait {route.waiting()[:5]}")
        counts["seconds"] = round(time.monotonic() - began, 1)
        arrived = {}
        for copy in route.behind.mailbox("all"):
            arrived.setdefault(copy.notes["x-original-to"], []).append(copy.message)
        jobs = []
        for number, message in enumerate(messages):
            for recipient in recipients(number):
                copies = arrived.pop(recipient, [])
                if len(copies) != 1:
                    faults.append(f"{recipient}: arrived {len(copies)} times")
                jobs += [(recipient, message, copy, route.relay.web) for copy in copies]
        faults += [f"{recipient}: nobody sent this" for recipient in arrived]
        with multiprocessing.Pool() as pool:
            for recipient, report in pool.imap_unordered(compared, jobs, chunksize=8):
                counts.update(copies=1, changed=report["changed"], links_followed=len(report["links"]))
                faults += [f"{recipient}: {fault['kind']}: {fault['detail']}" for fault in report["violations"]]
    return faults, counts


def compared(job):
    recipient, original, arrived, web = job
    try:
        return recipient, check(original, arrived, web)
    except Exception as error:
        fault = {"kind": "checker", "detail": repr(error)[:300]}
        return recipient, {"changed": False, "links": [], "violations": [fault]}


def main(arguments):
    count = int(arguments[0]) if arguments else 5000
    faults, counts = send_and_compare(count)
    for fault in faults:
        print(fault)
    print(f"{count} messages: {dict(counts)}, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
