//! Which distribution: os-release and the older signs.

use crate::distribution::Distribution;

/// The files that tell, the best first. `etc/os-release` decides before `usr/lib/os-release`; the
/// others help where neither is there or says no version.
pub const SIGNS: &[&str] = &[
    "etc/os-release",
    "usr/lib/os-release",
    "etc/alpine-release",
    "etc/debian_version",
    "etc/lsb-release",
    "etc/almalinux-release",
    "etc/rocky-release",
    "etc/oracle-release",
    "etc/centos-release",
    "etc/redhat-release",
    "etc/fedora-release",
    "etc/system-release",
    "etc/mariner-release",
    "etc/photon-release",
    "etc/SuSE-release",
];

/// How much of a sign is read.
pub const MAX_SIGN: usize = 64 << 10;

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sign {
    id: String,
    like: Vec<String>,
    version: Option<String>,
    codename: Option<String>,
    point: Option<String>,
    pretty: Option<String>,
}

/// The distribution that these files (path, content) tell.
#[must_use]
pub fn distribution<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Option<Distribution> {
    let mut signs: Vec<(usize, &str, Sign)> = files
        .into_iter()
        .filter_map(|(path, bytes)| {
            let rank = SIGNS.iter().position(|sign| *sign == path)?;
            let text = String::from_utf8_lossy(bytes.get(..MAX_SIGN).unwrap_or(bytes));
            read(path, &text).map(|sign| (rank, path, sign))
        })
        .collect();
    signs.sort_by_key(|(rank, ..)| *rank);
    // A rebuild's own file is more exact than the name of what it was built from.
    let (_, path, first) = signs.first()?;
    let mut known = Distribution {
        id: first.id.clone(),
        like: first.like.clone(),
        version: first.version.clone(),
        codename: first.codename.clone(),
        point_release: first.point.clone(),
        pretty_name: first.pretty.clone(),
        known_by: vec![(*path).to_owned()],
        contradicted_by: Vec::new(),
    };
    for (_, path, sign) in signs.iter().skip(1) {
        let related = sign.id == known.id || known.like.contains(&sign.id) || generic(&sign.id);
        if !related {
            known.contradicted_by.push(format!(
                "{path}: {} {}",
                sign.id,
                sign.version.as_deref().unwrap_or("of no version")
            ));
            continue;
        }
        if sign.id != known.id {
            continue;
        }
        // Debian's testing and unstable say `trixie/sid` there: no version.
        if known.version.is_none() && known.codename.is_none() {
            known.version.clone_from(&sign.version);
        }
        if known.codename.is_none() {
            known.codename.clone_from(&sign.codename);
        }
        if known.point_release.is_none() {
            known.point_release.clone_from(&sign.point);
        }
        known.known_by.push((*path).to_owned());
    }
    Some(known)
}

/// `redhat-release` is a link to the rebuild's own file nearly everywhere.
fn generic(id: &str) -> bool {
    id == "rhel"
}

fn read(path: &str, text: &str) -> Option<Sign> {
    match path.rsplit('/').next()? {
        "os-release" => os_release(text),
        "lsb-release" => lsb_release(text),
        "alpine-release" => plain("alpine", text),
        "debian_version" => debian_version(text),
        "mariner-release" => named("mariner", text),
        "photon-release" => named("photon", text),
        "SuSE-release" => suse_release(text),
        _ => red_hat_like(text),
    }
}

fn os_release(text: &str) -> Option<Sign> {
    let mut sign = Sign::default();
    for (key, value) in assignments(text) {
        match key {
            "ID" => sign.id = value.to_ascii_lowercase(),
            "ID_LIKE" => {
                sign.like = value.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
            }
            "VERSION_ID" => sign.version = some(&value),
            "VERSION_CODENAME" => sign.codename = some(&value),
            "PRETTY_NAME" => sign.pretty = some(&value),
            _ => {}
        }
    }
    valid(sign)
}

fn lsb_release(text: &str) -> Option<Sign> {
    let mut sign = Sign::default();
    for (key, value) in assignments(text) {
        match key {
            "DISTRIB_ID" => sign.id = value.to_ascii_lowercase(),
            "DISTRIB_RELEASE" => sign.version = some(&value),
            "DISTRIB_CODENAME" => sign.codename = some(&value),
            "DISTRIB_DESCRIPTION" => sign.pretty = some(&value),
            _ => {}
        }
    }
    valid(sign)
}

fn plain(id: &str, text: &str) -> Option<Sign> {
    let version = text.split_ascii_whitespace().next()?;
    valid(Sign { id: id.to_owned(), version: some(version), ..Sign::default() })
}

fn debian_version(text: &str) -> Option<Sign> {
    let word = text.split_ascii_whitespace().next()?;
    let mut sign = Sign { id: "debian".to_owned(), ..Sign::default() };
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        sign.version = word.split('.').next().and_then(some);
        sign.point = some(word);
    } else {
        sign.codename = word.split('/').next().and_then(some);
    }
    valid(sign)
}

/// The first number of a line: `CBL-Mariner 2.0.20240112`.
fn named(id: &str, text: &str) -> Option<Sign> {
    let line = text.lines().next()?;
    let version = line
        .split(|c: char| c.is_ascii_whitespace())
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let short: Vec<&str> = version.splitn(3, '.').take(2).collect();
    valid(Sign { id: id.to_owned(), version: some(&short.join(".")), ..Sign::default() })
}

fn suse_release(text: &str) -> Option<Sign> {
    let id = if text.contains("openSUSE") { "opensuse" } else { "sles" };
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let version = match (field("VERSION"), field("PATCHLEVEL")) {
        (Some(version), Some(patch)) if !version.contains('.') && patch != "0" => {
            Some(format!("{version}.{patch}"))
        }
        (version, _) => version,
    };
    valid(Sign { id: id.to_owned(), version: version.as_deref().and_then(some), ..Sign::default() })
}

/// `AlmaLinux release 9.3 (Shamrock Pampas Cat)`.
fn red_hat_like(text: &str) -> Option<Sign> {
    let line = text.lines().next()?;
    let (name, rest) = line.split_once(" release ")?;
    let id = match name.trim().to_ascii_lowercase().as_str() {
        "almalinux" => "almalinux",
        "rocky linux" => "rocky",
        "oracle linux server" => "ol",
        "centos" | "centos linux" | "centos stream" => "centos",
        "fedora" => "fedora",
        "amazon linux" | "amazon linux ami" => "amzn",
        "virtuozzo linux" => "virtuozzo",
        name if name.starts_with("red hat") => "rhel",
        _ => return None,
    };
    let version = rest.split_ascii_whitespace().next()?;
    valid(Sign {
        id: id.to_owned(),
        version: some(version),
        pretty: some(line.trim()),
        ..Sign::default()
    })
}

fn valid(sign: Sign) -> Option<Sign> {
    let fine = |text: &str| text.len() <= 128 && !text.chars().any(char::is_control);
    let all = [&sign.version, &sign.codename, &sign.point, &sign.pretty];
    let right = !sign.id.is_empty()
        && fine(&sign.id)
        && all.iter().all(|field| field.as_deref().is_none_or(fine))
        && sign.like.len() <= 16
        && sign.like.iter().all(|id| fine(id));
    right.then_some(sign)
}

fn some(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The assignments of a file as a shell would read it (os-release(5)).
fn assignments(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((key.trim(), unquote(value.trim())))
    })
}

fn unquote(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => out.extend(chars.next()),
            (None, ' ' | '\t' | '#') => break,
            (_, other) => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(files: &[(&str, &str)]) -> Option<Distribution> {
        distribution(files.iter().map(|(path, text)| (*path, text.as_bytes())))
    }

    #[test]
    fn debian_has_a_point_release() {
        let known = of(&[
            ("etc/debian_version", "12.5\n"),
            ("usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n"),
        ])
        .unwrap();
        assert_eq!((known.id.as_str(), known.version.as_deref()), ("debian", Some("12")));
        assert_eq!(known.point_release.as_deref(), Some("12.5"));
        assert_eq!(known.known_by, ["usr/lib/os-release", "etc/debian_version"]);
        assert!(known.contradicted_by.is_empty());
    }

    #[test]
    fn testing_has_no_version() {
        let known = of(&[
            ("etc/os-release", "ID=debian\nVERSION_CODENAME=trixie\n"),
            ("etc/debian_version", "trixie/sid\n"),
        ])
        .unwrap();
        assert_eq!((known.version.as_deref(), known.codename.as_deref()), (None, Some("trixie")));
    }

    #[test]
    fn older_signs_do_alone() {
        for (path, text, id, version) in [
            ("etc/alpine-release", "3.19.1\n", "alpine", "3.19.1"),
            ("etc/debian_version", "10.13\n", "debian", "10"),
            ("etc/redhat-release", "Red Hat Enterprise Linux release 9.3 (Plow)\n", "rhel", "9.3"),
            ("etc/redhat-release", "AlmaLinux release 9.3 (Shamrock)\n", "almalinux", "9.3"),
            ("etc/system-release", "Amazon Linux release 2 (Karoo)\n", "amzn", "2"),
            ("etc/mariner-release", "CBL-Mariner 2.0.20240112\n", "mariner", "2.0"),
            (
                "etc/SuSE-release",
                "SUSE Linux Enterprise Server 12\nVERSION = 12\nPATCHLEVEL = 5\n",
                "sles",
                "12.5",
            ),
            ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n", "ubuntu", "22.04"),
        ] {
            let known = of(&[(path, text)]).unwrap();
            assert_eq!(
                (known.id.as_str(), known.version.as_deref()),
                (id, Some(version)),
                "{path}"
            );
        }
        assert_eq!(of(&[("etc/redhat-release", "nothing\n")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn ubuntu_is_not_contradicted_by_its_debian_version() {
        let known = of(&[
            ("etc/os-release", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID='22.04'\n"),
            ("etc/debian_version", "bookworm/sid\n"),
        ])
        .unwrap();
        assert_eq!(known.version.as_deref(), Some("22.04"));
        assert!(known.contradicted_by.is_empty());
        let liar = of(&[
            ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
            ("etc/alpine-release", "3.19.1\n"),
        ])
        .unwrap();
        assert_eq!(liar.contradicted_by, ["etc/alpine-release: alpine 3.19.1"]);
    }

    #[test]
    fn values_are_quoted_as_in_a_shell() {
        for (text, value) in [
            ("plain", "plain"),
            ("\"a b\"", "a b"),
            ("'a \"b'", "a \"b"),
            ("\"a \\\"b\\\\\"", "a \"b\\"),
            ("a # comment", "a"),
            ("\"open", "open"),
        ] {
            assert_eq!(unquote(text), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "(?s).{0,200}", index in 0..SIGNS.len()) {
            let _ = of(&[(SIGNS[index], &text)]);
        }
    }
}
