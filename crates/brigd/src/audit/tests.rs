use super::query::Selection;
use super::*;

fn entry(action: &str, principal: &str, allowed: bool) -> Entry {
    Entry {
        action: action.into(),
        principal: principal.into(),
        request: format!("{action}-{principal}"),
        allowed,
        ..Entry::default()
    }
}

fn filled() -> (tempfile::TempDir, AuditLog) {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path()).unwrap();
    for number in 0..10 {
        log.append(entry("service.update", &format!("uid:{number}"), number % 2 == 0)).unwrap();
    }
    log.seal().unwrap();
    (dir, log)
}

fn lines(dir: &Path) -> (PathBuf, Vec<String>) {
    let path = files(dir).unwrap().remove(0);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text.lines().map(str::to_owned).collect())
}

fn problems(dir: &Path) -> Vec<(u64, String)> {
    let report = verify::verify(dir).unwrap();
    assert_eq!(report.intact, report.problems.is_empty());
    report.problems.into_iter().map(|problem| (problem.line, problem.reason)).collect()
}

#[test]
fn an_untouched_log_is_intact_over_restarts() {
    let (dir, log) = filled();
    drop(log);
    let log = AuditLog::open(dir.path()).unwrap();
    log.append(entry("node.remove", "uid:0", true)).unwrap();
    assert_eq!(problems(dir.path()), [], "what follows the seal is no damage");
    log.seal().unwrap();
    let report = verify::verify(dir.path()).unwrap();
    assert_eq!((report.intact, report.entries), (true, 11));
}

#[test]
fn a_daemon_that_is_killed_before_the_first_seal_left_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path()).unwrap();
    log.append(entry("service.update", "uid:0", true)).unwrap();
    drop(log);
    let log = AuditLog::open(dir.path()).unwrap();
    assert_eq!(lines(dir.path()).1.len(), 1, "no alarm");
    drop(log);
    std::fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    drop(AuditLog::open(dir.path()).unwrap());
    assert!(lines(dir.path()).1[1].contains("the head of the log was missing"));
}

#[test]
fn every_damage_is_found_and_its_line_named() {
    type Damage = fn(&mut Vec<String>);
    let damage: [(&str, Damage, u64, &str); 6] = [
        ("changed", |l| l[3] = l[3].replace("uid:3", "uid:7"), 4, "entry 4 was changed"),
        ("removed", |l| drop(l.remove(4)), 5, "removed or reordered"),
        ("reordered", |l| l.swap(1, 2), 2, "removed or reordered"),
        ("garbage", |l| l[0] = "x".into(), 1, "not an entry"),
        ("truncated", |l| l.truncate(8), 0, "ends at entry 8"),
        ("emptied", Vec::clear, 0, "ends at entry 0"),
    ];
    for (name, break_it, line, reason) in damage {
        let (dir, log) = filled();
        drop(log);
        let (path, mut lines) = lines(dir.path());
        break_it(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let found = problems(dir.path());
        assert!(
            found.iter().any(|(at, why)| *at == line && why.contains(reason)),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn a_rewritten_end_is_not_the_sealed_one() {
    let (dir, log) = filled();
    drop(log);
    let (path, mut lines) = lines(dir.path());
    let (before, _) = entry::split(&lines[8]).unwrap();
    let forged = Entry { seq: 10, ..entry("service.update", "uid:66", true) };
    let (line, _) = entry::line(before, &forged).unwrap();
    lines[9] = line.trim_end().to_owned();
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let found = problems(dir.path());
    assert!(found.iter().any(|(_, why)| why.contains("not the one that was sealed")), "{found:?}");
}

#[test]
fn what_was_lost_while_the_daemon_was_down_stays_on_record() {
    let (dir, log) = filled();
    drop(log);
    let (path, lines) = lines(dir.path());
    std::fs::write(&path, lines[..6].join("\n") + "\n").unwrap();
    let log = AuditLog::open(dir.path()).unwrap();
    log.append(entry("node.remove", "uid:0", true)).unwrap();
    log.seal().unwrap();
    let found = problems(dir.path());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, 7);
    assert!(found[0].1.contains("had 10 when it was sealed"), "{found:?}");
}

#[test]
fn half_a_line_of_a_crash_is_cut_off() {
    let (dir, log) = filled();
    drop(log);
    let (path, _) = lines(dir.path());
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"hash\":\"ab").unwrap();
    let log = AuditLog::open(dir.path()).unwrap();
    log.append(entry("node.remove", "uid:0", true)).unwrap();
    log.seal().unwrap();
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn the_chain_goes_on_over_files() {
    let (dir, log) = filled();
    log.writer.lock().unwrap().rotate(dir.path()).unwrap();
    log.append(entry("node.remove", "uid:0", true)).unwrap();
    log.seal().unwrap();
    assert_eq!(files(dir.path()).unwrap().len(), 2);
    assert_eq!(problems(dir.path()), []);
    drop(log);
    // A whole file gone is a gap.
    std::fs::remove_file(files(dir.path()).unwrap().remove(0)).unwrap();
    assert!(problems(dir.path())[0].1.contains("removed"));
}

#[test]
fn entries_are_found_and_carry_their_outcome() {
    let (dir, log) = filled();
    let outcome =
        Entry { kind: Kind::Outcome, status: Some(409), ..entry("service.update", "uid:4", true) };
    log.append(outcome).unwrap();
    let read = |selection: Selection| query::read(dir.path(), &selection).unwrap();
    assert_eq!(read(Selection { denied: true, ..Selection::default() }).len(), 5);
    let own = read(Selection { principal: Some("uid:4".into()), ..Selection::default() });
    assert_eq!((own.len(), own[0].status), (1, Some(409)));
    assert_eq!(
        read(Selection { action: Some("service".into()), ..Selection::default() }).len(),
        10
    );
    assert_eq!(read(Selection { action: Some("serv".into()), ..Selection::default() }).len(), 0);
    let last = read(Selection { limit: 2, ..Selection::default() });
    assert_eq!(last.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [9, 10]);
    let now = OffsetDateTime::now_utc();
    assert_eq!(read(Selection { since: Some(now), ..Selection::default() }).len(), 0);
    assert_eq!(read(Selection { until: Some(now), ..Selection::default() }).len(), 10);
}

use time::OffsetDateTime;
