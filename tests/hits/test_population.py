"""Some 2,000 hits of people and machines: labels and counts beside the truth. tests/campaign population is the same
with 100,000."""
import asyncio, time, unittest

from crowd import Crowd, agents
from ground import Hits, binary, until, whose
from play import Play, share_right, show
from web import Web

LEAST = 0.99


class Population(unittest.TestCase):
    def test_labels_and_counts(self):
        server = Hits(binary())
        self.addCleanup(server.close)
        play = Play(server, Crowd(hits=2_000, seconds=12, recipients=50))
        play.run()
        play.settled()
        table, reasons = play.compare()
        print(show(table, reasons))
        ids = play.check_counts()
        for message in play.crowd.messages[:3]:
            self.assertGreater(play.check_events(message.ident, ids[message.ident]), 0)
        self.assertEqual(play.faults[:5], [])
        self.assertEqual(server.lost(), 0)
        self.assertGreaterEqual(play.hits, 2_000)
        self.assertLess(len(play.unsure), play.hits // 100, "the machine is too slow to know what is true")
        self.assertGreaterEqual(share_right(table), LEAST, show(table, reasons))

    def test_a_person_soon_after_a_scanner(self):
        """Whichever link they click, also the one that was scanned first."""
        server = Hits(binary())
        self.addCleanup(server.close)
        links = 4
        copies = server.copies(server.post("soon", links, links))
        time.sleep(2.2)
        asyncio.run(self.scan_and_click(server, copies))
        until("all in the counts", lambda: server.counted() == links * links + links)
        seen = {(*whose(event), event["address"][:8]): event["class"] for event in server.export()}
        self.assertEqual({seen[who, number, "198.18.0"] for who in copies for number in range(links)}, {"machine"})
        people = {number: seen[f"soonr{number}", number, "198.18.1"] for number in range(links)}
        self.assertEqual(people, dict.fromkeys(range(links), "human"))

    @staticmethod
    async def scan_and_click(server, copies):
        web, (_, browsers, _) = Web(server.relay.web), agents()
        for number in range(4):
            await asyncio.gather(*(web.hit(copy.links[number], f"198.18.0.{place}", browsers[0])
                                   for place, copy in enumerate(copies.values())))
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        for place, copy in enumerate(copies.values()):
            await web.hit(copy.links[place], f"198.18.1.{place}", browsers[1])
        await web.close()


if __name__ == "__main__":
    unittest.main()
