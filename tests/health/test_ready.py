"""However often /readyz is asked, the disk is tried once a second."""

import http.client
import threading
import time
import unittest

from ground import Case, meter


class Ready(Case):
    def test_many_who_ask_at_once_cost_one_sync_a_second(self):
        relay = self.relay(self.sink())
        relay.start()
        self.eventually("it is ready", relay.ready)
        before, began = meter(relay, "trackpost_log_sync_seconds_count"), time.monotonic()
        answers = []
        asking = [threading.Thread(target=ask_often, args=(relay.api, 250, answers)) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        took = time.monotonic() - began
        self.assertEqual(answers, [200] * 2_000)
        syncs = meter(relay, "trackpost_log_sync_seconds_count") - before
        # Two of its own beside them, for what is not synced at once.
        self.assertLessEqual(syncs, took + 3)


def ask_often(port, count, answers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(count):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        answers.append(answer.status)
    connection.close()


if __name__ == "__main__":
    unittest.main()
