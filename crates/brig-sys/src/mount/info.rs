//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id, unique while it exists.
    pub id: u32,
    /// The id of the mount it lies on.
    pub parent: u32,
    /// The directory of the file system that is its root.
    pub root: PathBuf,
    /// Where it is.
    pub mount_point: PathBuf,
    /// Options of this mount (`ro,nosuid,...`).
    pub options: String,
    /// Propagation (`shared:7`, `master:3`); empty for a private mount.
    pub propagation: Vec<String>,
    /// The file system's type.
    pub fs_type: String,
    /// What it was mounted from.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

/// The mount table of a process, or of the calling thread, in the order of mounting.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn mountinfo(pid: Option<i32>) -> io::Result<Vec<MountInfo>> {
    let path = pid.map_or_else(
        || "/proc/thread-self/mountinfo".to_owned(),
        |pid| format!("/proc/{pid}/mountinfo"),
    );
    let table = fs::read(path)?;
    Ok(table.split(|&b| b == b'\n').filter_map(parse_line).collect())
}

pub(super) fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&b| b == b' ').filter(|field| !field.is_empty());
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let _device = fields.next()?;
    let root = path(fields.next()?);
    let mount_point = path(fields.next()?);
    let options = text(fields.next()?);
    let mut propagation = Vec::new();
    loop {
        match fields.next()? {
            b"-" => break,
            field => propagation.push(text(field)),
        }
    }
    let fs_type = text(fields.next()?);
    // An empty source leaves two spaces: then only the options follow.
    let (source, super_options) = match (fields.next(), fields.next()) {
        (Some(source), Some(options)) => (text(source), text(options)),
        (Some(options), None) => (String::new(), text(options)),
        (None, _) => return None,
    };
    Some(MountInfo {
        id,
        parent,
        root,
        mount_point,
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

/// Space, tab, newline and backslash are written as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            out.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}
