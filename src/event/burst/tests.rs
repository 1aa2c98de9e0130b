use super::*;
use proptest::prelude::*;

const SCANNER: u8 = 1;
const PERSON: u8 = 2;

fn id(message: u8) -> QueueId {
    QueueId::from_bytes([message; 16])
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn hit(message: u8, recipient: u16, link: Option<u16>, at: u64, by: u8) -> Hit {
    let kind = match link {
        Some(link) => HitKind::Click { link, url: "https://example.com/".into() },
        None => HitKind::Open,
    };
    Hit {
        id: id(message),
        recipient,
        kind,
        at,
        count: 1,
        address: address(by),
        agent: format!("agent {by}").into(),
        head: false,
        repeat: false,
    }
}

fn reference(hit: &Hit) -> HitRef {
    let link = match hit.kind {
        HitKind::Click { link, .. } => Some(link),
        HitKind::Open => None,
    };
    HitRef { id: hit.id, recipient: hit.recipient, link, at: hit.at, address: hit.address }
}

/// Which of `hits` are a machine's in the end, by place, for this reason.
fn judged(hits: &[Hit], total: Option<u16>, reason: &MachineReason) -> Vec<bool> {
    let mut bursts = Bursts::default();
    let mut told = vec![false; hits.len()];
    for (place, hit) in hits.iter().enumerate() {
        let verdict = bursts.note(hit, total);
        told[place] |= verdict.this.as_ref() == Some(reason);
        for (earlier, _) in verdict.earlier.iter().filter(|(_, why)| why == reason) {
            // Hits that a reference does not tell apart are relabelled together, one naming each.
            let found = (0..place).find(|before| !told[*before] && reference(&hits[*before]) == *earlier);
            told[found.unwrap_or_else(|| panic!("{earlier:?} was told twice, or never noted"))] = true;
        }
    }
    told
}

/// Clicks and opens on one copy: link (`None`: an open), milliseconds, whose; with the judgement that is due.
type Told = (Option<u16>, u64, u8, bool);

#[track_caller]
fn check(name: &str, total: Option<u16>, table: &[Told]) {
    let hits: Vec<_> = table.iter().map(|(link, at, by, _)| hit(1, 0, *link, 100_000 + at, *by)).collect();
    let want: Vec<_> = table.iter().map(|(.., machine)| *machine).collect();
    assert_eq!(judged(&hits, total, &MachineReason::Burst), want, "{name}");
}

#[test]
fn people_are_no_burst() {
    let p = PERSON;
    check(
        "four tabs over twelve seconds",
        Some(4),
        &[
            (None, 0, p, false),
            (Some(0), 1_000, p, false),
            (Some(1), 5_000, p, false),
            (Some(2), 9_000, p, false),
            (Some(3), 13_000, p, false),
        ],
    );
    check(
        "four of five tabs at once",
        Some(5),
        &[(Some(0), 0, p, false), (Some(1), 500, p, false), (Some(2), 900, p, false), (Some(3), 1_300, p, false)],
    );
    check(
        "two links double-clicked",
        Some(2),
        &[(Some(0), 0, p, false), (Some(0), 200, p, false), (Some(1), 1_201, p, false), (Some(1), 1_400, p, false)],
    );
    check("one link", Some(1), &[(Some(0), 0, p, false), (Some(0), 10, p, false)]);
    check("no links known to be tracked", Some(0), &[(Some(0), 0, p, false)]);
    let seven: Vec<_> = (0..7).map(|n| (Some(n), u64::from(n), p, false)).collect();
    check("seven links of nobody knows how many", None, &seven);
}

#[test]
fn scanners_are() {
    let s = SCANNER;
    let twenty: Vec<_> = (0..20).map(|n| (Some(n), u64::from(n) * 50, s, true)).collect();
    for total in [Some(20), Some(5_000), None] {
        check("twenty links in a second", total, &twenty);
    }
    check("all three", Some(3), &[(Some(0), 0, s, true), (Some(2), 5_000, s, true), (Some(1), 10_000, s, true)]);
    check(
        "all three, too slowly",
        Some(3),
        &[(Some(0), 0, s, false), (Some(2), 5_000, s, false), (Some(1), 10_001, s, false)],
    );
    check("both of two", Some(2), &[(Some(0), 0, s, true), (Some(1), 1_000, s, true)]);
    check(
        "from four addresses",
        Some(4),
        &[(Some(3), 0, 5, true), (Some(2), 3, 6, true), (Some(1), 9, 7, true), (Some(0), 9, 8, true)],
    );
    check(
        "with opens and clicks around it, its own and others'",
        Some(3),
        &[
            (None, 0, s, false),
            (None, 1_000, s, true),
            (None, 1_001, PERSON, false),
            (Some(0), 11_000, s, true),
            (Some(1), 11_001, s, true),
            (Some(2), 11_002, s, true),
            (None, 12_000, PERSON, false),
            (Some(1), 15_000, s, true),
            (Some(1), 20_000, PERSON, false),
            (Some(1), 21_002, s, true),
            (Some(1), 21_003, s, false),
        ],
    );
    check(
        "a person just before and after",
        Some(3),
        &[
            (Some(1), 0, PERSON, false),
            (Some(0), 2_000, s, true),
            (Some(1), 2_001, s, true),
            (Some(2), 2_002, s, true),
            (Some(1), 4_000, PERSON, false),
        ],
    );
    check(
        "out of order",
        Some(3),
        &[(Some(0), 2_000, s, true), (None, 1_500, s, true), (Some(1), 0, s, true), (Some(2), 1_000, s, true)],
    );
}

#[test]
fn what_speaks_for_a_person_is_not_forgotten_too_soon() {
    let (s, p) = (SCANNER, PERSON);
    // The person's click is on a link that the other has just clicked. That one is forgotten when the last open comes.
    check(
        "a pair, and opens long after it",
        Some(2),
        &[
            (Some(0), 0, s, false),
            (Some(1), 2_700, s, false),
            (Some(0), 3_100, p, false),
            (None, 12_000, s, false),
            (None, 30_001, s, false),
        ],
    );
}

#[test]
fn each_recipient_has_bursts_of_their_own() {
    let hits: Vec<_> = (0..3).map(|n| hit(1, n, Some(n), 1_000, SCANNER)).collect();
    assert_eq!(judged(&hits, Some(3), &MachineReason::Burst), [false; 3]);
}

#[test]
fn head_requests_and_repeats_count() {
    let mut hits: Vec<_> = (0..3).map(|n| hit(1, 0, Some(n), u64::from(n), SCANNER)).collect();
    hits[0].head = true;
    hits[1].repeat = true;
    hits[1].count = 7;
    assert_eq!(judged(&hits, Some(3), &MachineReason::Burst), [true; 3]);
}

#[test]
fn a_forwarded_mail_is_read_by_people() {
    // Four readers, each at one link of four, all within ten seconds, is what a scanner with four addresses looks
    // like; with five links it is not.
    let hits: Vec<_> = (0..4u8).map(|n| hit(1, 0, Some(n.into()), u64::from(n) * 2_000, 10 + n)).collect();
    assert_eq!(judged(&hits, Some(5), &MachineReason::Burst), [false; 4]);
}

#[test]
fn an_office_is_people_and_a_filter_is_not() {
    let office: Vec<_> = (0..60u16).map(|n| hit(1, n, None, u64::from(n) * 2_501, PERSON)).collect();
    assert_eq!(judged(&office, Some(3), &MachineReason::ManyRecipients), [false; 60]);
    let filter: Vec<_> = (0..60u16).map(|n| hit(1, n, Some(0), u64::from(n) * 2_500, SCANNER)).collect();
    assert_eq!(judged(&filter, Some(3), &MachineReason::ManyRecipients), [true; 60]);
    let one_recipient: Vec<_> = (0..60).map(|n| hit(1, 0, Some(0), n * 100, PERSON)).collect();
    assert_eq!(judged(&one_recipient, Some(3), &MachineReason::ManyRecipients), [false; 60]);
}

#[test]
fn one_agent_of_an_address_is_judged_alone() {
    let mut hits: Vec<_> = (0..48u16).map(|n| hit(1, n, None, u64::from(n), SCANNER)).collect();
    hits.iter_mut().step_by(2).for_each(|hit| hit.agent = "another".into());
    assert_eq!(judged(&hits, None, &MachineReason::ManyRecipients), [false; 48]);
}

#[test]
fn memory_is_bounded() {
    let mut bursts = Bursts::default();
    let many = u32::try_from(MAX_HITS + 1_000).unwrap();
    for n in 0..many {
        let mut one = hit(1, 0, Some(0), 1_000, 1);
        one.id = QueueId::new(u64::from(n), [0; 10]);
        one.address = IpAddr::from(n.to_be_bytes());
        bursts.note(&one, Some(3));
    }
    assert_eq!((bursts.copies.order.len(), bursts.places.order.len()), (MAX_HITS, MAX_HITS));
    assert_eq!((bursts.copies.groups.len(), bursts.places.groups.len()), (MAX_HITS, MAX_HITS));
    assert_eq!(bursts.links.len(), MAX_HITS);
    // Time forgets the rest, whatever a group has lost before.
    for n in 0..1_000 {
        bursts.note(&hit(2, 0, None, 200_000 + n, 3), None);
    }
    assert_eq!((bursts.copies.groups.len(), bursts.links.len()), (1, 0));
    assert_eq!(bursts.copies.groups[&(id(2), 0)].seen.len(), MAX_TOGETHER);
    bursts.note(&hit(3, 0, None, 400_000, 4), None);
    assert_eq!((bursts.copies.order.len(), bursts.copies.groups.len(), bursts.places.groups.len()), (1, 1, 1));
}

/// The rule in its plainest form: every run, of which neither end can be spared and whose last link no other address
/// has just clicked, of the clicks in order of time, and of those of each address by itself.
fn bursts_by_looking_at_all(hits: &[Hit], total: Option<u16>) -> Vec<bool> {
    let mut clicks: Vec<_> = hits.iter().filter(|hit| reference(hit).link.is_some()).collect();
    clicks.sort_by_key(|hit| hit.at);
    let mut groups = vec![clicks.clone()];
    for by in hits.iter().map(|hit| hit.address).collect::<std::collections::BTreeSet<_>>() {
        groups.push(clicks.iter().filter(|hit| hit.address == by).copied().collect());
    }
    let mut machine = vec![false; hits.len()];
    for group in groups {
        let found = bursts_among(&group, hits, total);
        machine.iter_mut().zip(found).for_each(|(machine, found)| *machine |= found);
    }
    machine
}

fn bursts_among(clicks: &[&Hit], hits: &[Hit], total: Option<u16>) -> Vec<bool> {
    let (needed, within) = match total {
        Some(0 | 1) => return vec![false; hits.len()],
        Some(2) => (2, 1_000),
        Some(n) => (usize::from(n).min(8), 10_000),
        None => (8, 10_000),
    };
    let clicks: Vec<_> = clicks.iter().filter_map(|hit| Some((hit.at, reference(hit).link?, hit.address))).collect();
    let mut machine = vec![false; hits.len()];
    let different = |run: &[(u64, u16, IpAddr)]| {
        run.iter().map(|(_, link, _)| link).collect::<std::collections::HashSet<_>>().len()
    };
    for start in 0..clicks.len() {
        for end in start..clicks.len() {
            let run = &clicks[start..=end];
            let spared = different(&run[1..]) >= needed || different(&run[..run.len() - 1]) >= needed;
            let (at, link, by) = clicks[end];
            let known = clicks[..end].iter().any(|one| one.1 == link && one.2 != by && one.0 + 10_000 >= at);
            if different(run) < needed || spared || known || clicks[end].0 - clicks[start].0 > within {
                continue;
            }
            let first = |n: usize| run[..n].iter().all(|(_, link, _)| *link != run[n].1);
            for (hit, machine) in hits.iter().zip(&mut machine) {
                let near = hit.at + 10_000 >= clicks[start].0 && hit.at <= clicks[end].0 + 10_000;
                *machine |= near && (0..run.len()).any(|n| first(n) && run[n].2 == hit.address);
            }
        }
    }
    machine
}

fn many_by_looking_at_all(hits: &[Hit]) -> Vec<bool> {
    let mut machine = vec![false; hits.len()];
    for first in hits {
        let inside = |hit: &Hit| {
            (hit.address, &hit.agent) == (first.address, &first.agent)
                && (first.at..=first.at + 60_000).contains(&hit.at)
        };
        let copies = hits.iter().filter(|hit| inside(hit)).map(|hit| (hit.id, hit.recipient));
        if copies.collect::<std::collections::HashSet<_>>().len() >= 25 {
            hits.iter().zip(&mut machine).for_each(|(hit, machine)| *machine |= inside(hit));
        }
    }
    machine
}

/// Hits with the pause before each in milliseconds.
fn paused(hits: Vec<(u64, Hit)>) -> Vec<Hit> {
    let mut now = 1_000_000;
    let timed = hits.into_iter().map(|(pause, mut hit)| {
        now += pause;
        hit.at = now;
        hit
    });
    timed.collect()
}

fn on_one_copy(longest: u64) -> impl Strategy<Value = Vec<(u64, Hit)>> {
    let link = prop_oneof![1 => Just(None), 6 => (0u16..12).prop_map(Some)];
    let one = (0..longest, link, 1u8..4).prop_map(|(pause, link, by)| (pause, hit(1, 0, link, 0, by)));
    prop::collection::vec(one, 1..90)
}

fn of_two_places(longest: u64) -> impl Strategy<Value = Vec<(u64, Hit)>> {
    let one = (0..longest, 0u16..60, 1u8..3).prop_map(|(pause, to, by)| (pause, hit(1, to, None, 0, by)));
    prop::collection::vec(one, 1..120)
}

/// Moves hits within the bound that the module allows.
fn disordered(mut hits: Vec<Hit>, late: &[u64]) -> Vec<Hit> {
    let arrives = |hit: &Hit, n: usize| hit.at + late[n % late.len()];
    let mut order: Vec<_> = hits.drain(..).enumerate().map(|(n, hit)| (arrives(&hit, n), hit)).collect();
    order.sort_by_key(|(arrives, _)| *arrives);
    order.into_iter().map(|(_, hit)| hit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn bursts_as_by_looking_at_all(hits in prop_oneof![on_one_copy(300), on_one_copy(4_000), on_one_copy(30_000)], total in prop::option::of(0u16..14)) {
        let hits = paused(hits);
        prop_assert_eq!(judged(&hits, total, &MachineReason::Burst), bursts_by_looking_at_all(&hits, total));
    }

    #[test]
    fn many_recipients_as_by_looking_at_all(hits in prop_oneof![of_two_places(500), of_two_places(1_500), of_two_places(4_000)]) {
        let hits = paused(hits);
        prop_assert_eq!(judged(&hits, None, &MachineReason::ManyRecipients), many_by_looking_at_all(&hits));
    }

    /// Late hits can only make more of a burst: a click that comes to lie between others may spare one of them, after
    /// that one was told.
    #[test]
    fn late_hits_miss_nothing(
        hits in prop_oneof![on_one_copy(300), on_one_copy(3_000)],
        others in of_two_places(1_500),
        late in prop::collection::vec(0u64..10_000, 1..20),
        total in prop::option::of(0u16..14),
    ) {
        let hits = disordered(paused(hits), &late);
        let told = judged(&hits, total, &MachineReason::Burst);
        let want = bursts_by_looking_at_all(&hits, total);
        prop_assert!(want.iter().zip(&told).all(|(want, told)| told >= want), "{:?} {:?}", want, told);
        let hits = disordered(paused(others), &late);
        prop_assert_eq!(judged(&hits, None, &MachineReason::ManyRecipients), many_by_looking_at_all(&hits));
    }
}
