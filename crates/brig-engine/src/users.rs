//! Who a process runs as: docker's `user[:group]` resolved by the image's own passwd and group
//! files.
//!
//! Runtimes take numbers only. The files come from the image and are hostile input: bounded,
//! parsed line by line, broken lines skipped.

use crate::error::EngineError;

/// Largest passwd or group file that is read.
pub(crate) const MAX_DATABASE_BYTES: u64 = 1 << 20;
/// Longest home directory that is taken over.
const MAX_HOME: usize = 4096;
const MAX_ID: u32 = i32::MAX as u32;

/// The numbers a process runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group id.
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one first.
    pub(crate) additional_gids: Vec<u32>,
    /// Home directory; empty for none.
    pub(crate) home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn numeric(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn unknown_user(user: &str) -> EngineError {
    EngineError::Invalid(format!(
        "unable to find user {}: no matching entries in passwd file",
        user.chars().take(80).collect::<String>()
    ))
}

fn unknown_group(group: &str) -> EngineError {
    EngineError::Invalid(format!(
        "unable to find group {}: no matching entries in group file",
        group.chars().take(80).collect::<String>()
    ))
}

/// Resolves `user[:group]` and the groups of `--group-add` against the two files.
///
/// A name must have an entry; a number need not. Without a group, the passwd entry's group (else
/// 0) is the primary one, and the group file's memberships are added.
///
/// # Errors
/// [`EngineError::Invalid`] with docker's text for names without an entry.
pub(crate) fn resolve(
    spec: &str,
    group_add: &[String],
    passwd: &str,
    group: &str,
) -> Result<ResolvedUser, EngineError> {
    let (user, named_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user_number = if user.is_empty() { Some(0) } else { numeric(user) };
    if user.parse::<i64>().is_ok() && user_number.is_none() {
        return Err(EngineError::Invalid("uids and gids must be in range 0-2147483647".to_owned()));
    }
    // A name wins over a number that is spelled the same, as login does.
    let entry = passwd_entries(passwd)
        .find(|entry| !user.is_empty() && entry.name == user)
        .or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == user_number));
    let uid = match (&entry, user_number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => return Err(unknown_user(user)),
    };
    let mut additional = Vec::new();
    let gid = match named_group {
        Some(wanted) => group_entries(group)
            .find(|entry| entry.name == wanted)
            .map(|entry| entry.gid)
            .or_else(|| numeric(wanted))
            .ok_or_else(|| unknown_group(wanted))?,
        None => {
            if let Some(entry) = &entry {
                additional.extend(
                    group_entries(group)
                        .filter(|g| g.members.split(',').any(|member| member.trim() == entry.name))
                        .map(|g| g.gid),
                );
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
        }
    };
    for wanted in group_add {
        let found = group_entries(group)
            .find(|entry| entry.name == *wanted)
            .map(|entry| entry.gid)
            .or_else(|| numeric(wanted))
            .ok_or_else(|| {
                EngineError::Invalid(format!(
                    "Unable to find group {wanted}: no matching entries in group file"
                ))
            })?;
        additional.push(found);
    }
    // The primary group is among the supplementary ones, or files that the group is locked out of
    // (mode 0705) would open up.
    let mut gids = vec![gid];
    for extra in additional {
        if !gids.contains(&extra) {
            gids.push(extra);
        }
    }
    let home = entry.map_or("", |entry| entry.home);
    let home = if home.len() <= MAX_HOME && !home.contains('\0') { home } else { "" };
    Ok(ResolvedUser { uid, gid, additional_gids: gids, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nwww:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,www\nwww:x:34:\nadm:x:4:nobody, www\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>) {
        let user = resolve(spec, &[], PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn dockers_rules() {
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("www"), (33, 34, vec![34, 10, 4]));
        assert_eq!(ids("33"), (33, 34, vec![34, 10, 4]));
        assert_eq!(ids("www:wheel"), (33, 10, vec![10]));
        assert_eq!(ids("1000"), (1000, 0, vec![0]));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![1000]));
        assert_eq!(resolve("", &[], "", "").unwrap().additional_gids, vec![0]);
    }

    #[test]
    fn homes() {
        for (spec, home) in [("", "/root"), ("www", "/var/www"), ("33", "/var/www"), ("77", "")] {
            assert_eq!(resolve(spec, &[], PASSWD, GROUP).unwrap().home, home, "{spec}");
        }
        assert_eq!(resolve("", &[], "root:x:0:0\n", "").unwrap().home, "");
    }

    #[test]
    fn group_add() {
        let user = resolve("", &["adm".into(), "77".into()], PASSWD, GROUP).unwrap();
        assert_eq!(user.additional_gids, vec![0, 10, 4, 77]);
        let error = resolve("", &["none".into()], PASSWD, GROUP).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Unable to find group none: no matching entries in group file"
        );
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(
            resolve("nobody", &[], PASSWD, GROUP).unwrap_err().to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            resolve("root:none", &[], PASSWD, GROUP).unwrap_err().to_string(),
            "unable to find group none: no matching entries in group file"
        );
    }

    proptest! {
        #[test]
        fn any_file_content_is_survived(spec in ".{0,20}", passwd in ".{0,200}", group in ".{0,200}") {
            let _ = resolve(&spec, &[], &passwd, &group);
        }
    }
}
