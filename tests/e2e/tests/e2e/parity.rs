//! The same command lines against dockerd and against brigd, typed with the real docker CLI: equal
//! exit status and equal output, ids and times masked. `parity/commands.txt` has the lines,
//! `parity/differences.txt` what may differ, and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brig_e2e::dockerd::Dockerd;
use brig_e2e::{Brigd, image};

const COMMANDS: &str = include_str!("../../parity/commands.txt");
const DIFFERENCES: &str = include_str!("../../parity/differences.txt");
/// The CLI of the same release as the dockerd that is compared with.
const DOCKER: &str = "/usr/bin/docker";

#[test]
fn the_same_commands_give_the_same_answers() {
    let dockerd = Dockerd::start();
    let brigd = Brigd::start();
    let there = Desk::new(&dockerd.socket(), &dockerd.client_config());
    let here = Desk::new(&brigd.socket(), &brigd.client_config());
    let reasons = reasons();
    let (mut count, mut unexplained, mut equal) = (0, String::new(), Vec::new());
    for line in lines(COMMANDS) {
        count += 1;
        let (expected, found) = (there.types(line), here.types(line));
        let differs = expected != found;
        if differs && !reasons.contains_key(line) {
            let _ = writeln!(unexplained, "$ {line}\n--- dockerd\n{expected}--- brigd\n{found}");
        }
        if !differs && reasons.contains_key(line) {
            equal.push(line);
        }
    }
    assert!(count >= 100, "only {count} command lines");
    assert!(unexplained.is_empty(), "answers differ without a reason:\n{unexplained}");
    assert!(equal.is_empty(), "no longer different, to be removed from the list: {equal:#?}");
    let known: Vec<&str> = lines(COMMANDS).collect();
    let stale: Vec<&&str> = reasons.keys().filter(|line| !known.contains(line)).collect();
    assert!(stale.is_empty(), "reasons for lines that nobody types: {stale:#?}");
    println!("{count} command lines, {} with a listed difference", reasons.len());
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Command lines that may differ: the line, and below it, indented, the reason.
fn reasons() -> BTreeMap<&'static str, String> {
    let mut reasons: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = None;
    for line in lines(DIFFERENCES) {
        if let Some(reason) = line.strip_prefix("    ") {
            let line = current.expect("a reason belongs to a line");
            *reasons.entry(line).or_default() += reason;
        } else {
            current = Some(line);
            reasons.insert(line, String::new());
        }
    }
    for (line, reason) in &reasons {
        assert!(!reason.trim().is_empty(), "no reason for {line}");
    }
    reasons
}

/// A place to type commands at: a folder with the files that the lines name, and an engine.
struct Desk {
    folder: PathBuf,
    host: String,
    config: PathBuf,
}

impl Desk {
    fn new(socket: &Path, config: &Path) -> Self {
        // Equal paths on both sides, for answers that name them: each engine sees its own folder
        // at the same depth and length.
        let folder = config.join("desk");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(image::busybox(), folder.join("busybox.tar")).unwrap();
        std::fs::copy(image::busybox_rootfs(), folder.join("rootfs.tar")).unwrap();
        std::fs::write(folder.join("env.list"), "# variables\nC=three\nD=with space\n").unwrap();
        std::fs::write(folder.join("labels.list"), "two=2\n").unwrap();
        let host = format!("unix://{}", socket.display());
        Self { folder, host, config: config.to_path_buf() }
    }

    fn types(&self, line: &str) -> String {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.only_docker().display());
        let output = Command::new("timeout")
            .args(["-k", "5", "60", "sh", "-c", line])
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.config)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| self.masked(&String::from_utf8_lossy(bytes));
        let code = output.status.code().unwrap_or(-1);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        format!("exit {code}\n{out}{}{err}", if err.is_empty() { "" } else { "stderr:\n" })
    }

    /// A folder that has nothing but the CLI of the compared release.
    fn only_docker(&self) -> PathBuf {
        let folder = self.config.join("bin");
        if !folder.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(DOCKER, folder.join("docker")).unwrap();
        }
        folder
    }

    /// The text without what differs from run to run: ids, times, addresses, the widths of columns.
    fn masked(&self, text: &str) -> String {
        let text = text.replace(&self.folder.display().to_string(), "<folder>");
        let text = text.replace(&self.host, "<host>");
        let mut masked = String::new();
        // Docker's CLI of Debian says this, or not, by luck: two of its tasks race.
        let lucky = |line: &&str| !line.contains("error waiting for container: context canceled");
        for line in text.lines().filter(lucky) {
            let words: Vec<String> = line.split_whitespace().map(masked_word).collect();
            masked += &without_durations(&words.join(" "));
            masked.push('\n');
        }
        masked
    }
}

/// A word of an answer with its ids, times and addresses replaced.
fn masked_word(word: &str) -> String {
    let mut masked = String::new();
    let mut piece = String::new();
    for character in word.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-') {
            piece.push(character);
        } else {
            masked += &masked_piece(&piece);
            piece.clear();
            masked.push(character);
        }
    }
    masked += &masked_piece(&piece);
    masked
}

fn masked_piece(piece: &str) -> String {
    if let Some(sentence) = piece.strip_suffix('.') {
        return masked_piece(sentence) + ".";
    }
    let hex = |length| {
        piece.len() == length && piece.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let date = piece.len() >= 10
        && piece.as_bytes().get(4) == Some(&b'-')
        && piece.bytes().take(4).all(|byte| byte.is_ascii_digit());
    if hex(64) {
        "<id>".to_owned()
    } else if hex(12) && piece.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        "<short id>".to_owned()
    } else if date {
        "<time>".to_owned()
    } else if piece.starts_with("172.") && piece.split('.').count() == 4 {
        "<address>".to_owned()
    } else {
        piece.to_owned()
    }
}

/// `Up 3 seconds`, `About a minute ago`: replaced as a whole.
fn without_durations(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    for phrase in
        [&["Less", "than", "a", "second"][..], &["About", "a", "minute"], &["About", "an", "hour"]]
    {
        while let Some(at) = words.windows(phrase.len()).position(|window| window == phrase) {
            words.splice(at..at + phrase.len(), ["<while>"]);
        }
    }
    let unit = |word: &str| {
        matches!(
            word.trim_end_matches('s'),
            "second" | "minute" | "hour" | "day" | "week" | "month" | "year"
        )
    };
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    while let Some(at) = words.windows(2).position(|pair| number(pair[0]) && unit(pair[1])) {
        words.splice(at..at + 2, ["<while>"]);
    }
    words.join(" ")
}
