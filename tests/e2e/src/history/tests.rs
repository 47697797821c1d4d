//! The judge itself: it accepts whatever a correct store can show, however the clients overlap
//! and whatever they are not told, and it notices what a broken one does.

use proptest::prelude::*;

use super::*;

/// How one action of a made-up run goes.
#[derive(Clone, Copy, Debug)]
struct Draw {
    kind: u8,
    before: u8,
    after: u8,
    /// Nobody hears of it.
    is_silent: bool,
    /// It never reaches the store then.
    is_lost: bool,
    client: u8,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let draw = (any::<u8>(), any::<u8>(), any::<u8>(), 0..8u8, any::<bool>(), 0..3u8).prop_map(
        |(kind, before, after, silence, is_lost, client)| Draw {
            kind,
            before,
            after,
            is_silent: silence == 0,
            is_lost,
            client,
        },
    );
    proptest::collection::vec(draw, 1..40)
}

/// Plays the actions on one register, each at a moment within its time. All clients read at the
/// end.
fn play(draws: &[Draw]) -> Vec<Event> {
    let mut state: Option<Value> = None;
    let mut version = 0;
    let mut events = Vec::new();
    for (number, draw) in draws.iter().enumerate() {
        let number = number as u64;
        let at = 1000 * (number + 1);
        // Some clients' actions overlap with others' that were played before or after.
        let (call, end) = (at - u64::from(draw.before) * 3, at + u64::from(draw.after) * 3);
        let value = number + 1;
        let reaches = !(draw.is_silent && draw.is_lost);
        let (action, next) = match (draw.kind % 8, state) {
            (0..4, None) => {
                (Action::Create(Told::Done, value), Some(Value { value, created: value }))
            }
            (0..4, Some(now)) => {
                let next = Value { value, created: now.created };
                (Action::Update(Told::Done, now.value, value), Some(next))
            }
            (4, Some(now)) => (Action::Remove(Told::Done, now.created), None),
            (5, Some(_)) => (Action::Create(Told::Refused, value), state),
            (6, Some(now)) if now.value > 1 => {
                (Action::Update(Told::Refused, now.value - 1, value), state)
            }
            _ => (Action::Read(None), state),
        };
        let action = match action {
            Action::Read(_) => Action::Read(state.map(|value| Seen { value, version })),
            Action::Create(Told::Done, value) if draw.is_silent => {
                Action::Create(Told::Nothing, value)
            }
            Action::Update(Told::Done, from, to) if draw.is_silent => {
                Action::Update(Told::Nothing, from, to)
            }
            Action::Remove(Told::Done, created) if draw.is_silent => {
                Action::Remove(Told::Nothing, created)
            }
            other => other,
        };
        if reaches && next != state {
            state = next;
            version += 1;
        }
        // A session's actions follow each other: one that overlaps is somebody else's.
        events.push(Event {
            key: "k".to_owned(),
            session: number * 4 + u64::from(draw.client),
            call,
            end,
            action,
            is_settled: false,
        });
    }
    let end = 1000 * (draws.len() as u64 + 10);
    let seen = Action::Read(state.map(|value| Seen { value, version }));
    for session in 0..3 {
        events.push(Event {
            key: "k".to_owned(),
            session,
            call: end,
            end: end + 1,
            action: seen.clone(),
            is_settled: true,
        });
    }
    events
}

fn done(events: &[Event]) -> Vec<usize> {
    let is_done = |event: &Event| {
        matches!(
            event.action,
            Action::Create(Told::Done, _)
                | Action::Update(Told::Done, ..)
                | Action::Remove(Told::Done, _)
        )
    };
    (0..events.len()).filter(|at| is_done(&events[*at])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_a_correct_store_shows_is_accepted(draws in draws()) {
        let events = play(&draws);
        prop_assert_eq!(judge("k", &events), vec![]);
    }

    /// A write that was acknowledged and is gone: what the store was before is read in the end.
    #[test]
    fn a_lost_write_is_noticed(draws in draws()) {
        let mut events = play(&draws);
        let done = done(&events);
        prop_assume!(!done.is_empty());
        let last = *done.last().unwrap();
        // Everything is as if it had not been, but its client was told that it was done.
        let mut shorter = draws.clone();
        shorter.truncate(last + 1);
        shorter[last].is_silent = true;
        shorter[last].is_lost = true;
        let told = events[last].clone();
        events = play(&shorter);
        events[last] = told;
        prop_assert_ne!(judge("k", &events), vec![]);
    }

    /// Two writers that replaced the same value, and were both told that it worked.
    #[test]
    fn two_winners_are_noticed(draws in draws()) {
        let mut events = play(&draws);
        let updates: Vec<usize> = done(&events)
            .into_iter()
            .filter(|at| matches!(events[*at].action, Action::Update(..)))
            .collect();
        prop_assume!(!updates.is_empty());
        let first = updates[updates.len() / 2];
        let Action::Update(_, before, _) = events[first].action else { unreachable!() };
        let mut second = events[first].clone();
        second.action = Action::Update(Told::Done, before, 1_000_000);
        events.push(second);
        prop_assert_ne!(judge("k", &events), vec![]);
    }

    /// A removed object that comes back.
    #[test]
    fn a_ghost_is_noticed(draws in draws()) {
        let mut events = play(&draws);
        let removed = done(&events).into_iter().rev().find_map(|at| match events[at].action {
            Action::Remove(_, created) => Some(created),
            _ => None,
        });
        prop_assume!(removed.is_some());
        let created = removed.unwrap();
        let ghost = Seen { value: Value { value: created, created }, version: 1_000_000 };
        for event in events.iter_mut().filter(|event| event.is_settled) {
            event.action = Action::Read(Some(ghost));
        }
        prop_assert_ne!(judge("k", &events), vec![]);
    }

    /// Managers that do not agree when all is over.
    #[test]
    fn a_manager_that_missed_something_is_noticed(draws in draws()) {
        let mut events = play(&draws);
        // A removal that nobody heard of may be done at any time, between two of the last reads too.
        let is_open = |event: &Event| matches!(event.action, Action::Remove(Told::Nothing, _));
        prop_assume!(!events.iter().any(is_open));
        let last = events.len() - 1;
        let other = match events[last].action {
            Action::Read(Some(_)) => Action::Read(None),
            _ => return Err(TestCaseError::reject("nothing was there")),
        };
        events[last].action = other;
        // After the others: what nobody was told of may otherwise have been done between them.
        (events[last].call, events[last].end) = (events[last].call + 10, events[last].end + 10);
        prop_assert_ne!(judge("k", &events), vec![]);
    }
}

fn event(session: u64, call: u64, end: u64, action: Action) -> Event {
    Event { key: "k".to_owned(), session, call, end, action, is_settled: false }
}

fn seen(value: u64, created: u64, version: u64) -> Action {
    Action::Read(Some(Seen { value: Value { value, created }, version }))
}

#[test]
fn a_manager_that_turns_back_is_noticed() {
    let mut events = vec![
        event(0, 1, 2, Action::Create(Told::Done, 1)),
        event(0, 3, 4, Action::Update(Told::Done, 1, 2)),
        event(1, 5, 6, seen(2, 1, 11)),
        // Late, but somebody else's: fine.
        event(2, 7, 8, seen(1, 1, 10)),
    ];
    assert_eq!(judge("k", &events), vec![]);
    events.push(event(1, 9, 10, seen(1, 1, 10)));
    assert_eq!(judge("k", &events).len(), 2, "by its version, and by its place");
    events.pop();
    events.push(event(0, 9, 10, Action::Read(None)));
    assert_eq!(judge("k", &events).len(), 1);
}

#[test]
fn what_nobody_wrote_is_noticed() {
    let read = event(0, 5, 6, seen(7, 7, 1));
    assert_eq!(judge("k", std::slice::from_ref(&read)).len(), 1);
    let later = event(1, 7, 8, Action::Create(Told::Done, 7));
    assert_eq!(judge("k", &[read.clone(), later]).len(), 1, "from the future");
    let refused = event(1, 3, 8, Action::Create(Told::Refused, 7));
    assert_eq!(judge("k", &[read.clone(), refused]).len(), 1, "it was refused");
    let silent = event(1, 3, 8, Action::Create(Told::Nothing, 7));
    assert_eq!(judge("k", &[read, silent]), vec![]);
}

#[test]
fn versions_belong_to_one_value() {
    let events = [
        event(0, 1, 2, Action::Create(Told::Done, 1)),
        event(0, 3, 4, Action::Update(Told::Done, 1, 2)),
        event(1, 5, 6, seen(1, 1, 10)),
        event(2, 7, 8, seen(2, 1, 10)),
    ];
    assert_eq!(judge("k", &events).len(), 1);
}

#[test]
fn a_write_that_nobody_heard_of_may_come_late() {
    let events = [
        event(0, 1, 2, Action::Create(Told::Done, 1)),
        event(1, 3, 4, Action::Update(Told::Nothing, 1, 2)),
        event(0, 5, 6, seen(1, 1, 10)),
        event(0, 7, 8, Action::Update(Told::Done, 2, 3)),
    ];
    assert_eq!(judge("k", &events), vec![]);
    // But not before it began.
    let mut early = events.to_vec();
    early[3].call = 2;
    early[3].end = 2;
    assert_eq!(judge("k", &early).len(), 1);
}
