//! Looks for words where none may be: in files, and in what hosts send each other.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Counts what passes an interface and looks for words in it; the answer is a line of JSON.
/// A packet is looked at by itself: a word that is cut in two by a packet's end is not found.
const LISTENER: &str = r#"
import json, select, signal, socket, sys
words = [bytes.fromhex(word) for word in sys.argv[1:]]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
try: s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
except OSError: pass
s.setblocking(False)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
packets, found = 0, set()
print('ready', flush=True)
while not ended:
    select.select([s], [], [], 0.2)
    try:
        while True:
            packet = s.recv(65536)
            packets += 1
            found.update(word.hex() for word in words if word in packet)
    except BlockingIOError: pass
    except OSError: pass
print(json.dumps({'packets': packets, 'found': sorted(found)}))
"#;

/// Standard base64.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = (0..3)
            .fold(0u32, |sum, at| sum << 8 | u32::from(part.get(at).copied().unwrap_or_default()));
        for at in 0..4 {
            let digit = ALPHABET[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// What base64 stands for; nothing for what is none.
#[must_use]
pub fn from_base64(text: &str) -> Vec<u8> {
    let digit = |digit: u8| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).map(u32::from).collect();
    let mut bytes = Vec::new();
    for part in digits.chunks(4) {
        let number = (0..4).fold(0u32, |sum, at| sum << 6 | part.get(at).copied().unwrap_or(0));
        bytes.extend_from_slice(&number.to_be_bytes()[1..part.len()]);
    }
    bytes
}

/// A word as it looks in clear, and inside of something that is base64, wherever it begins.
#[must_use]
pub fn disguises(word: &str) -> Vec<String> {
    let mut all = vec![word.to_owned()];
    for before in 0..3 {
        let text = base64(&[&vec![0; before][..], word.as_bytes()].concat());
        // The first and the last digits hold bits of the neighbours.
        let (first, last) = ((before * 4).div_ceil(3), text.trim_end_matches('=').len() - 2);
        all.push(text[first..last].to_owned());
    }
    all
}

/// The files below a folder that have one of the words in them, in clear or as base64.
///
/// # Panics
/// When they cannot be looked through.
#[must_use]
pub fn files_with(folder: &Path, words: &[String]) -> Vec<PathBuf> {
    let mut list = tempfile::NamedTempFile::new().expect("a file for the words");
    let lines: Vec<String> = words.iter().flat_map(|word| disguises(word)).collect();
    list.write_all(lines.join("\n").as_bytes()).expect("a file for the words");
    let found = Command::new("grep")
        .args(["-rlaF", "-D", "skip", "-f"])
        .arg(list.path())
        .arg(folder)
        .env("LC_ALL", "C")
        .output()
        .expect("grep starts");
    // Files come and go while it looks (2); found something (0), nothing (1).
    assert!(matches!(found.status.code(), Some(0..=2)), "{found:?}");
    String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect()
}

/// Somebody who reads everything that passes in a network namespace.
#[derive(Debug)]
pub struct Listener(Child);

impl Listener {
    /// Listens for words in the network namespace of a process.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(process: &str, words: &[String]) -> Self {
        let hex =
            |word: &String| word.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let words: Vec<String> = words.iter().flat_map(|word| disguises(word)).collect();
        let mut child = Command::new("nsenter")
            .args(["-t", process, "-n", "python3", "-c", LISTENER])
            .args(words.iter().map(hex))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter starts");
        let stdout = child.stdout.as_mut().expect("stdout is piped");
        let mut ready = [0; 6];
        std::io::Read::read_exact(stdout, &mut ready).expect("it listens");
        Self(child)
    }

    /// How many packets passed, and the words that were in them.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn end(mut self) -> (u64, Vec<String>) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        let mut stdout = self.0.stdout.take().expect("stdout is piped");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).expect("it says what it heard");
        let _ = self.0.wait();
        let heard: serde_json::Value = serde_json::from_str(text.trim()).expect(&text);
        let words = heard["found"].as_array().cloned().unwrap_or_default();
        let word = |hex: &str| -> String {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(b'?');
            (0..hex.len()).step_by(2).map(|at| char::from(byte(at))).collect()
        };
        let words = words.iter().filter_map(|hex| Some(word(hex.as_str()?))).collect();
        (heard["packets"].as_u64().unwrap_or_default(), words)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_clear_and_as_base64() {
        assert_eq!(base64(b"brig"), "YnJpZw==");
        assert_eq!(base64(b"brigd1"), "YnJpZ2Qx");
        for length in 0..20 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte * 13).collect();
            assert_eq!(from_base64(&base64(&bytes)), bytes);
        }
        let word = "a-word-that-is-secret".to_owned();
        for before in 0..5 {
            for after in 0..4 {
                let text = [&vec![b'x'; before][..], word.as_bytes(), &vec![b'y'; after]].concat();
                for text in [base64(&text), String::from_utf8(text).unwrap()] {
                    let folder = tempfile::tempdir().unwrap();
                    let file = folder.path().join("f");
                    std::fs::write(&file, [&[0, 255, 10][..], text.as_bytes(), &[0]].concat())
                        .unwrap();
                    assert_eq!(
                        files_with(folder.path(), std::slice::from_ref(&word)),
                        [file],
                        "{text}"
                    );
                    assert!(files_with(folder.path(), &["another-word".to_owned()]).is_empty());
                }
            }
        }
    }
}
