use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn ascending(scheme: Scheme, versions: &[&str]) {
    for (at, a) in versions.iter().enumerate() {
        for (bt, b) in versions.iter().enumerate() {
            assert_eq!(scheme.compare(a, b), at.cmp(&bt), "{scheme:?}: {a} and {b}");
        }
    }
}

fn equal(scheme: Scheme, versions: &[&str]) {
    for a in versions {
        for b in versions {
            assert_eq!(scheme.compare(a, b), Ordering::Equal, "{scheme:?}: {a} and {b}");
        }
    }
}

#[test]
fn debian() {
    ascending(
        Scheme::Dpkg,
        &[
            "1.0~~",
            "1.0~rc1",
            "1.0",
            "1.0-0.1",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+deb12u2",
            "1.0-1+deb12u10",
            "1.0+b1",
            "1.0.1",
            "1:0.1",
        ],
    );
    equal(Scheme::Dpkg, &["1.0", "1.0-0", "0:1.0", "01.0", "1.00"]);
    assert_eq!(source_version("1.2-3+b12"), "1.2-3");
    assert_eq!(source_version("1.2-3+build"), "1.2-3+build");
}

#[test]
fn rpm_vectors() {
    ascending(
        Scheme::Rpm,
        &["1.0~rc1", "1.0", "1.0^", "1.0^git1", "1.0a", "1.0.1", "1.0.010", "1.0.11", "2", "1:0"],
    );
    equal(Scheme::Rpm, &["1.0-1", "0:1.0-1", "1_0-1", "01.00-01"]);
}

#[test]
fn alpine() {
    ascending(
        Scheme::Apk,
        &[
            "",
            "abc",
            "0.1",
            "1.0_alpha",
            "1.0_alpha0",
            "1.0_alpha2",
            "1.0_beta",
            "1.0_pre1",
            "1.0_rc1",
            "1.0",
            "1.0-r0",
            "1.0-r1",
            "1.0_cvs",
            "1.0_git20230101",
            "1.0_p1",
            "1.0a",
            "1.0b",
            "1.0.0",
            "1.02",
            "1.1",
            "1.2.3",
            "1.2.3~abc",
            "1.10",
        ],
    );
    ascending(Scheme::Apk, &["1.9.5-r0", "1.9.5p2-r0", "1.9.5p2-r1", "1.9.5p10-r0", "1.9.6-r0"]);
}

#[test]
fn semantic() {
    ascending(
        Scheme::Semver,
        &[
            "main",
            "1.0.0-0",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta",
            "1.0.0",
            "1.2.0",
            "1.10.0",
        ],
    );
    equal(Scheme::Semver, &["1.0.0", "v1.0.0", "=1.0.0", "1.0.0+build", "1.0"]);
    ascending(
        Scheme::Go,
        &[
            "v0.0.0-20180101000000-abcdefabcdef",
            "v0.0.0-20190101000000-000000000000",
            "v0.1.0",
            "go1.21rc2",
            "go1.21rc10",
            "go1.21",
            "go1.21.1 X:boringcrypto",
            "v2.0.0+incompatible",
        ],
    );
    equal(Scheme::Go, &["1.21.0-rc.2", "go1.21rc2"]);
    assert!(!Scheme::Go.is_comparable("(devel)"));
    ascending(Scheme::NuGet, &["1.0.0-alpha", "1.0.0-BETA", "1.0.0", "1.0.0.1", "1.0.1"]);
    equal(Scheme::NuGet, &["1.0-rc", "1.0.0.0-RC"]);
}

#[test]
fn python_vectors() {
    ascending(
        Scheme::Pep440,
        &[
            "not a version",
            "1.0.dev1",
            "1.0a1.dev1",
            "1.0a1",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post1.dev1",
            "1.0.post1",
            "1.1",
            "1!0.1",
        ],
    );
    equal(Scheme::Pep440, &["1.0-1", "1.0.post1", "v1.0.0.post1", "1.0-r1"]);
    equal(Scheme::Pep440, &["1.0alpha", "1.0a0", "1.0.a"]);
}

#[test]
fn maven_vectors() {
    ascending(
        Scheme::Maven,
        &[
            "1-alpha",
            "1-beta",
            "1-m1",
            "1-rc",
            "1-snapshot",
            "1",
            "1-sp",
            "1-abc",
            "1-1",
            "1.0.1",
            "1.1",
            "1.10",
        ],
    );
    equal(Scheme::Maven, &["1", "1.0", "1-ga", "1.0.0-FINAL", "1.release"]);
}

#[test]
fn rubygems() {
    ascending(Scheme::Gem, &["x", "1.0.a", "1.0.a.2", "1.0.b1", "1.0", "1.0.1", "1.2", "1.10"]);
    equal(Scheme::Gem, &["1.13.6", "1.13.6-x86_64-linux", "1.13.6-java", "1.13.6.0"]);
    equal(Scheme::Gem, &["1.0-rc1", "1.0.pre.rc1"]);
}

#[test]
fn composer_vectors() {
    ascending(
        Scheme::Composer,
        &[
            "dev-main",
            "1.0-dev",
            "1.0-alpha",
            "1.0-alpha2",
            "1.0-b1",
            "1.0-RC1",
            "1.0-RC2-dev",
            "1.0-RC2",
            "v1.0",
            "1.0-p1",
            "1.0.1",
            "1.2.x-dev",
            "2.0",
            "20100102",
        ],
    );
    equal(Scheme::Composer, &["1.0", "v1.0.0.0", "1.0.0-stable", "1.0+build"]);
    assert!(!Scheme::Composer.is_comparable("dev-master"));
}

#[test]
fn requirements() {
    let shown = |text: &str, syntax, scheme| -> Vec<String> {
        intervals(text, syntax, scheme)
            .unwrap()
            .into_iter()
            .map(|i| {
                let end = |b: Option<Bound>, l: &str, h: &str| {
                    b.map_or(String::new(), |b| {
                        format!("{}{}", if b.inclusive { l } else { h }, b.version)
                    })
                };
                format!("{} {}", end(i.from, ">=", ">"), end(i.to, "<=", "<")).trim().to_owned()
            })
            .collect()
    };
    assert_eq!(shown("^1.2.3", Syntax::Cargo, Scheme::Semver), [">=1.2.3 <2"]);
    assert_eq!(shown("0.2.3", Syntax::Cargo, Scheme::Semver), [">=0.2.3 <0.3"]);
    assert_eq!(shown(">= 0.10.1, < 0.11", Syntax::Cargo, Scheme::Semver), [">=0.10.1 <0.11"]);
    assert_eq!(shown("~> 2.2.1", Syntax::Gem, Scheme::Gem), [">=2.2.1 <2.3"]);
    assert_eq!(shown("~> 2.2", Syntax::Gem, Scheme::Gem), [">=2.2 <3"]);
    assert_eq!(
        shown("<=1.0.0 || >=2.0.0 <2.1.0", Syntax::Npm, Scheme::Semver),
        ["<=1.0.0", ">=2.0.0 <2.1.0"]
    );
    assert_eq!(shown("1.x", Syntax::Npm, Scheme::Semver), [">=1 <2"]);
    assert_eq!(shown(">=2.0.0,<2.0.99", Syntax::Composer, Scheme::Composer), [">=2.0.0 <2.0.99"]);
    assert!(intervals(">= 1 <", Syntax::Npm, Scheme::Semver).is_err());
}

fn versions() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,2}(\\.[0-9]{1,2}){0,3}([-._~^+]?(a|b|rc|alpha|beta|pre|dev|post|p|sp|x|git|r|ga|snapshot|final|patch)?[0-9]{0,2}){0,3}",
        "[0-9a-c.~^+:_-]{0,8}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn orders_are_antisymmetric_and_reflexive(a in versions(), b in versions()) {
        for scheme in Scheme::ALL {
            prop_assert_eq!(scheme.compare(&a, &b), scheme.compare(&b, &a).reverse(), "{:?}", scheme);
            prop_assert_eq!(scheme.compare(&a, &a), Ordering::Equal, "{:?}", scheme);
        }
    }

    #[test]
    fn orders_are_transitive(a in versions(), b in versions(), c in versions()) {
        for scheme in Scheme::ALL {
            // Maven's own order is not transitive for odd strings; being exact comes first there.
            if scheme == Scheme::Maven {
                continue;
            }
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|x, y| scheme.compare(x, y));
            prop_assert!(scheme.compare(sorted[0], sorted[2]).is_le(), "{:?} {:?}", scheme, sorted);
        }
    }
}

/// Deterministic pairs that look like versions of the family.
fn pairs(alphabet: &[&str], count: usize) -> Vec<(String, String)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let mut version = || {
        let mut text = random(12).to_string();
        for _ in 0..random(6) {
            text.push_str(alphabet[random(alphabet.len())]);
        }
        text
    };
    (0..count).map(|_| (version(), version())).collect()
}

/// Feeds `a b` lines to a tool and holds its `-1`, `0`, `1` (or another word: not a version for it)
/// against ours. Says so and passes where the tool is not installed.
fn against(scheme: Scheme, alphabet: &[&str], program: &str, arguments: &[&str]) {
    // dpkg is a process a comparison.
    let pairs = pairs(alphabet, if scheme == Scheme::Dpkg { 600 } else { 2000 });
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: {program} is not installed");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = pairs.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    if !output.status.success() {
        eprintln!("skipped: {program} lacks the library");
        return;
    }
    written.unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let mut compared = 0;
    for ((a, b), answer) in pairs.iter().zip(answers.lines()) {
        let Ok(expected) = answer.trim().parse::<i32>() else { continue };
        let got = scheme.compare(a, b) as i32;
        assert_eq!(got, expected.signum(), "{scheme:?}: {a} and {b}");
        compared += 1;
    }
    assert!(compared > 200, "{scheme:?}: only {compared} pairs were versions for {program}");
}

#[test]
fn as_dpkg_orders() {
    let script = r#"while read -r a b; do
        if dpkg --compare-versions "$a" lt "$b" 2>/dev/null; then echo -1
        elif dpkg --compare-versions "$a" gt "$b" 2>/dev/null; then echo 1
        elif dpkg --compare-versions "$a" eq "$b" 2>/dev/null; then echo 0; else echo x; fi; done"#;
    against(
        Scheme::Dpkg,
        &[".", "~", "+", "-", "0", "1", "10", "a", "b1", "rc", "deb12u", ".0"],
        "sh",
        &["-c", script],
    );
}

#[test]
fn as_rpm_orders() {
    let script = r#"command -v rpm >/dev/null || exit 1
        tmp=$(mktemp); cat >"$tmp"
        rpm --eval "%{lua: for l in io.lines('$tmp') do local a, b = l:match('(%S+) (%S+)'); print(rpm.vercmp(a, b)) print('\n') end}" | grep -v '^$'
        rm -f "$tmp""#;
    against(
        Scheme::Rpm,
        &[".", "~", "^", "_", "0", "1", "10", "a", "b1", "rc", ".el9", ".0"],
        "sh",
        &["-c", script],
    );
}

#[test]
fn as_packaging_orders() {
    let script = "import sys
from packaging.version import Version, InvalidVersion
for line in sys.stdin:
    try:
        a, b = map(Version, line.split())
        print((a > b) - (a < b))
    except (InvalidVersion, ValueError):
        print('x')";
    against(
        Scheme::Pep440,
        &[".1", ".0", "a1", "b", "rc2", ".post1", ".dev3", "-2", "+abc", "+1.2", "!1", ".10"],
        "/usr/bin/python3",
        &["-c", script],
    );
}

#[test]
fn as_node_orders() {
    let script = "const s = require('semver');
        require('fs').readFileSync(0, 'utf8').trim().split('\\n').forEach(l => { const [a, b] = l.split(' ');
        try { console.log(s.compare(a, b)); } catch { console.log('x'); } });";
    against(
        Scheme::Semver,
        &[".1", ".0", ".10", ".2", "-1", "-rc", "-alpha.1", "+b", ".beta", "-x-y"],
        "node",
        &["-e", script],
    );
}

#[test]
fn as_rubygems_orders() {
    let script = "STDIN.each_line { |l| a, b = l.split; begin; puts Gem::Version.new(a) <=> Gem::Version.new(b); rescue ArgumentError; puts 'x'; end }";
    against(
        Scheme::Gem,
        &[".1", ".0", ".10", ".a", "b2", ".rc", "-1", ".pre"],
        "ruby",
        &["-e", script],
    );
}

#[test]
fn as_maven_orders() {
    let script = r#"jar=/usr/share/java/maven-artifact-3.x.jar; [ -e "$jar" ] || exit 1
        dir=$(mktemp -d); cat >"$dir/C.java" <<'J'
import org.apache.maven.artifact.versioning.ComparableVersion;
import java.io.*;
public class C { public static void main(String[] x) throws Exception {
  BufferedReader r = new BufferedReader(new InputStreamReader(System.in));
  for (String l; (l = r.readLine()) != null; ) { String[] p = l.split(" ");
    System.out.println(Integer.signum(new ComparableVersion(p[0]).compareTo(new ComparableVersion(p[1])))); } } }
J
        CLASSPATH="$jar:/usr/share/java/commons-lang3.jar" java "$dir/C.java"; code=$?; rm -rf "$dir"; exit $code"#;
    against(
        Scheme::Maven,
        &[
            ".1",
            ".0",
            ".10",
            "-1",
            "-0",
            "a",
            "b2",
            "-rc",
            ".sp",
            "-snapshot",
            ".ga",
            "-final",
            "x",
            ".x1",
            "-",
        ],
        "sh",
        &["-c", script],
    );
}
