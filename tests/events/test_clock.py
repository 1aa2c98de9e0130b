"""A clock that is set wrong: webhooks are told all the same, and no history goes because of it."""

import paths  # noqa: F401, I001
import rest
from base import Case, hook, side_by_side, wait_for_events
from case import DAY
from support import until

load_tests = side_by_side
WRONG_YEAR = 401 * DAY


class WrongClock(Case):
    def test_a_first_start_three_days_ahead_keeps_no_news_back(self):
        http = self.receiver()
        self.clock.set(3 * DAY)
        server = self.relay(clock=True)
        hook(server, http.url("/ahead"))
        self.clock.set(0)
        hook(server, http.url("/right"))
        mail = self.send()
        wait_for_events(server, mail, 2)
        for path in ("/ahead", "/right"):
            self.assertEqual({one.kind for one in http.wait(path, 2)}, {"email.sent", "email.delivered"})

    def test_a_start_in_a_wrong_year_forgets_nothing(self):
        server = self.relay(clock=True)
        mail = self.send()
        wait_for_events(server, mail, 2)
        for year in (WRONG_YEAR, 0):
            self.clock.set(year)
            server.restart()
            if year:
                until("a word about the clock", lambda: "no history is forgotten by it" in server.log())
            until("the history to be open", lambda: rest.call(server, "GET", "/emails").status == 200)
            self.assertEqual(rest.call(server, "GET", f"/emails/{mail.id}").status, 200)
            self.assertEqual(len(wait_for_events(server, mail, 2)), 2)

    def test_what_is_forgotten_is_logged(self):
        server = self.relay({"events": {"retention": "1d", "raw_retention": "1d"}}, clock=True)
        mail = self.send()
        wait_for_events(server, mail, 2)
        self.clock.set(DAY + 7200)
        server.restart()
        until("the history to go", lambda: rest.call(server, "GET", f"/emails/{mail.id}").status == 404)
        until("a word of it", lambda: "history that is past its time was forgotten messages=1" in server.log())
