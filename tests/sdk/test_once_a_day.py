"""A tracking subdomain changes once in 24 hours: on the real program, with libfaketime moving its clock, a minute too
early is refused, and a minute later is not. A restart between the two forgets nothing."""

import glob
import os
import pathlib
import tempfile
import unittest

import contract
from ground import Ground, unique
from web import call

HOUR, MINUTE = 3600, 60


class Clock:
    """A file that the library reads each time that the program asks for the time of day. What only goes on is left."""

    def __init__(self, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not found:
            raise AssertionError("libfaketime is missing (Debian: libfaketime)")
        self.file = folder / "clock"
        self.environment = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.set(0)

    def set(self, seconds):
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self.file)


class OnceADay(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="trackpost-clock-"))
        self.clock = Clock(pathlib.Path(folder))
        self.ground = self.enterContext(Ground(environment=self.clock.environment))

    def call(self, status, method, path, value=None, error=None):
        return contract.read(call(self.ground.server, self.ground.key, method, path, value), status, error)

    def test_a_minute_before_and_after(self):
        created = self.call(201, "POST", "/domains", {"name": unique("daily"), "tracking_subdomain": "first"})
        path = f"/domains/{created['id']}"
        # What was given at creation is no change, so the first change is allowed at once.
        self.call(200, "PATCH", path, {"tracking_subdomain": "second"})
        before = self.call(200, "GET", path)
        for restart in (False, True):
            if restart:
                self.ground.server.stop()
                self.ground.server.start()
            for passed in (0, MINUTE, 12 * HOUR, 24 * HOUR - MINUTE):
                self.clock.set(passed)
                change = {"tracking_subdomain": "third", "open_tracking": True}
                told = self.call(422, "PATCH", path, change, "validation_error")
                # When it may be, to the day at least.
                self.assertRegex(told["message"], r"20\d\d-\d\d-\d\d")
                self.assertEqual(self.call(200, "GET", path), before)
                # Anything else is no matter of the day.
                self.call(200, "PATCH", path, {"tracking_subdomain": "SECOND", "open_tracking": False})
        self.clock.set(24 * HOUR + MINUTE)
        self.assertEqual(self.call(200, "PATCH", path, {"tracking_subdomain": "third"})["tracking_subdomain"], "third")
        self.call(422, "PATCH", path, {"tracking_subdomain": "first"}, "validation_error")
