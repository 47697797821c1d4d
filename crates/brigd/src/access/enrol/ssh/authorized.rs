//! Lines in a login's `~/.ssh/authorized_keys`.
//!
//! SECURITY: the folder belongs to the login, and this is root. Nothing in it is followed: the
//! folder and the file are opened without links, and whatever is odd is refused.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

use super::super::EnrolError;

const PASSWD: &str = "/etc/passwd";
const FOLDER: &str = ".ssh";
const FILE: &str = "authorized_keys";
const TEMPORARY: &str = ".authorized_keys.brig";
/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What begins the comment of a line of ours.
const MARK: &str = "brig-access:";

/// A login of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub name: String,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    home: PathBuf,
}

impl Login {
    /// The login of this name, or of this user.
    ///
    /// # Errors
    /// [`EnrolError::NotFound`], [`EnrolError::File`].
    pub fn find(name: &str, uid: Option<u32>) -> Result<Self, EnrolError> {
        let path = PathBuf::from(PASSWD);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .map_err(|source| EnrolError::File { action: "read", path, source })?;
        Self::in_text(&text, name, uid).ok_or_else(|| {
            let who = uid.map_or_else(|| format!("{name:?}"), |uid| format!("of user {uid}"));
            EnrolError::NotFound(format!(
                "there is no login {who} in {PASSWD}: name one with --user"
            ))
        })
    }

    fn in_text(text: &str, name: &str, uid: Option<u32>) -> Option<Self> {
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [login, _, user, group, _, home, ..] = fields.as_slice() else { return None };
            let found = Self {
                name: (*login).to_owned(),
                uid: user.parse().ok()?,
                gid: group.parse().ok()?,
                home: PathBuf::from(home),
            };
            let wanted = uid.map_or(found.name == name, |uid| found.uid == uid);
            (wanted && found.home.is_absolute()).then_some(found)
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.home.join(FOLDER).join(FILE)
    }

    /// Puts a line in, in place of an older one with the same mark.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn put(&self, id: &str, line: &str) -> Result<(), EnrolError> {
        self.edit(id, Some(line)).map_err(|source| self.failed(source))
    }

    /// Takes the line with this mark out; whether there was one.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn take_out(&self, id: &str) -> Result<(), EnrolError> {
        match self.edit(id, None) {
            // No folder, no line.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> EnrolError {
        EnrolError::File { action: "change", path: self.file(), source }
    }

    fn edit(&self, id: &str, line: Option<&str>) -> io::Result<()> {
        let folder = self.folder(line.is_some())?;
        let old = read(&folder, self.uid)?;
        let new = edited(&old, id, line);
        if new == old {
            return Ok(());
        }
        match unlinkat(&folder, TEMPORARY, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&folder, TEMPORARY, flags, Mode::from_raw_mode(0o600))?;
        fchmod(&made, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(made);
        let written = (|| {
            file.write_all(new.as_bytes())?;
            fchown(&file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
            file.sync_all()?;
            renameat(&folder, TEMPORARY, &folder, FILE)?;
            rustix::fs::fsync(&folder)?;
            Ok(())
        })();
        if written.is_err() {
            // The next change removes it if this does not.
            let _ = unlinkat(&folder, TEMPORARY, AtFlags::empty());
        }
        written
    }

    /// `~/.ssh`, which must be a folder of the login's or of root's.
    fn folder(&self, make: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let home = openat(CWD, self.home.as_path(), flags | OFlags::PATH, Mode::empty())?;
        let open =
            || openat(&home, FOLDER, flags | OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty());
        let folder = match open() {
            Err(Errno::NOENT) if make => {
                mkdirat(&home, FOLDER, Mode::from_raw_mode(0o700))?;
                let made = open()?;
                fchown(&made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
                made
            }
            other => other?,
        };
        check_owner(fstat(&folder)?.st_uid, self.uid, Path::new(FOLDER))?;
        Ok(folder)
    }
}

fn check_owner(owner: u32, uid: u32, what: &Path) -> io::Result<()> {
    if owner == uid || owner == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{} belongs to user {owner}", what.display())))
}

fn read(folder: &OwnedFd, uid: u32) -> io::Result<String> {
    // Not to hang on a pipe that somebody put there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(folder, FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let found = fstat(&file)?;
    check_owner(found.st_uid, uid, Path::new(FILE))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// The text without the line of this mark, and with another one at the end. What else is there
/// stays as it is.
fn edited(text: &str, id: &str, line: Option<&str>) -> String {
    let mark = format!(" {MARK}{id}");
    let mut new: String =
        text.split_inclusive('\n').filter(|old| !old.trim_end().ends_with(&mark)).collect();
    if let Some(line) = line {
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(line);
        new.push_str(&mark);
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn login(home: &Path) -> Login {
        let own = std::fs::metadata(home).unwrap();
        Login { name: "ann".into(), uid: own.uid(), gid: own.gid(), home: home.to_owned() }
    }

    #[test]
    fn logins_are_found() {
        let text = "root:x:0:0:root:/root:/bin/sh\nodd\nann:x:1000:1001::/home/ann:/bin/sh\nbob:x:7:7::nowhere:\n";
        let ann = Login::in_text(text, "ann", None).unwrap();
        assert_eq!(
            (ann.uid, ann.gid, ann.file()),
            (1000, 1001, "/home/ann/.ssh/authorized_keys".into())
        );
        assert_eq!(Login::in_text(text, "", Some(0)).unwrap().name, "root");
        assert_eq!(Login::in_text(text, "bob", None), None);
        assert_eq!(Login::in_text(text, "", Some(5)), None);
    }

    #[test]
    fn only_the_line_of_the_mark_changes() {
        let dir = tempfile::tempdir().unwrap();
        let login = login(dir.path());
        login.take_out("a").unwrap();
        login.put("a", "one").unwrap();
        let path = login.file();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "# theirs, without an end")
            .unwrap();
        login.put("b", "two").unwrap();
        login.put("a", "three").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# theirs, without an end\ntwo brig-access:b\nthree brig-access:a\n");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        login.take_out("b").unwrap();
        login.take_out("nobody").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# theirs, without an end\nthree brig-access:a\n"
        );
    }

    #[test]
    fn links_are_not_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let login = login(dir.path());
        symlink(other.path(), dir.path().join(".ssh")).unwrap();
        assert!(login.put("a", "one").is_err());
        std::fs::remove_file(dir.path().join(".ssh")).unwrap();
        std::fs::create_dir(dir.path().join(".ssh")).unwrap();
        let victim = other.path().join("victim");
        std::fs::write(&victim, "x").unwrap();
        symlink(&victim, login.file()).unwrap();
        assert!(login.put("a", "one").is_err());
        std::fs::remove_file(login.file()).unwrap();
        symlink(&victim, dir.path().join(".ssh").join(TEMPORARY)).unwrap();
        login.put("a", "one").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "x");
    }

    proptest::proptest! {
        #[test]
        fn what_was_put_in_comes_out_again(lines in proptest::collection::vec("[a-z #]{0,8}", 0..5), end in proptest::bool::ANY) {
            let mut text = lines.join("\n");
            if end && !text.is_empty() {
                text.push('\n');
            }
            let with = edited(&text, "id", Some("key"));
            proptest::prop_assert!(with.ends_with("key brig-access:id\n"));
            let without = edited(&with, "id", None);
            proptest::prop_assert_eq!(without.trim_end_matches('\n'), text.trim_end_matches('\n'));
        }
    }
}
