//! Spaces: which advisories speak about which packages. A space is a distribution's release or a
//! language's registry, with the order of its versions.

use crate::distribution::Distribution;
use crate::package::Ecosystem;
use crate::version::Scheme;

/// A space's name and its order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceName {
    /// `debian:12`, `alpine:3.19`, `npm`.
    pub name: String,
    /// The order of its versions.
    pub scheme: Scheme,
}

impl SpaceName {
    /// The space of an OSV ecosystem (`Debian:12`, `Ubuntu:Pro:20.04:LTS`, `crates.io`); none for
    /// what images hold no packages of.
    #[must_use]
    pub fn of_osv(ecosystem: &str) -> Option<Self> {
        let (family, release) = ecosystem.split_once(':').unwrap_or((ecosystem, ""));
        let named = |prefix: &str, release: &str, scheme| {
            let release = release.trim().to_ascii_lowercase().replace(' ', "-");
            let name =
                if release.is_empty() { prefix.to_owned() } else { format!("{prefix}:{release}") };
            Some(Self { name, scheme })
        };
        match family {
            "Debian" => named("debian", release, Scheme::Dpkg),
            "Ubuntu" => match release.split(':').collect::<Vec<_>>().as_slice() {
                [version] | [version, "LTS"] => named("ubuntu", version, Scheme::Dpkg),
                ["Pro", version] | ["Pro", version, "LTS"] => {
                    named("ubuntu-pro", version, Scheme::Dpkg)
                }
                // FIPS and real-time streams have versions of their own.
                _ => None,
            },
            "Alpine" => named("alpine", release.strip_prefix('v').unwrap_or(release), Scheme::Apk),
            "Wolfi" | "Chainguard" | "MinimOS" => {
                named(&family.to_ascii_lowercase(), "", Scheme::Apk)
            }
            "AlmaLinux" | "Mageia" | "openEuler" => {
                named(&family.to_ascii_lowercase(), release, Scheme::Rpm)
            }
            "Rocky Linux" => named("rocky", release, Scheme::Rpm),
            "Oracle Linux" => named("oracle", release, Scheme::Rpm),
            "Photon OS" => named("photon", release, Scheme::Rpm),
            "Azure Linux" => named("azurelinux", release, Scheme::Rpm),
            "Amazon Linux" => named("amazon", release, Scheme::Rpm),
            "openSUSE" | "SUSE" => named(&family.to_ascii_lowercase(), release, Scheme::Rpm),
            "npm" => named("npm", "", Scheme::Semver),
            "PyPI" => named("pypi", "", Scheme::Pep440),
            "Go" => named("go", "", Scheme::Go),
            "crates.io" => named("cargo", "", Scheme::Semver),
            "Maven" => named("maven", "", Scheme::Maven),
            "NuGet" => named("nuget", "", Scheme::NuGet),
            "RubyGems" => named("gem", "", Scheme::Gem),
            "Packagist" => named("composer", "", Scheme::Composer),
            "Hex" => named("hex", "", Scheme::Semver),
            "Pub" => named("pub", "", Scheme::Semver),
            "SwiftURL" => named("swift", "", Scheme::Semver),
            _ => None,
        }
    }

    /// The name that a package has in this space's tables.
    #[must_use]
    pub fn normalise(&self, package: &str) -> String {
        match self.scheme {
            Scheme::Pep440 => {
                let mut name = String::with_capacity(package.len());
                for c in package.chars() {
                    if matches!(c, '-' | '_' | '.') {
                        if !name.ends_with('-') {
                            name.push('-');
                        }
                    } else {
                        name.extend(c.to_lowercase());
                    }
                }
                name
            }
            Scheme::NuGet | Scheme::Composer => package.to_ascii_lowercase(),
            Scheme::Dpkg
            | Scheme::Rpm
            | Scheme::Apk
            | Scheme::Semver
            | Scheme::Go
            | Scheme::Maven
            | Scheme::Gem => package.to_owned(),
        }
    }
}

/// The space of a language's packages; none for operating systems' packages and what no rule is for.
#[must_use]
pub fn language_space(ecosystem: Ecosystem) -> Option<&'static str> {
    match ecosystem {
        Ecosystem::PyPi => Some("pypi"),
        Ecosystem::Npm => Some("npm"),
        Ecosystem::Go => Some("go"),
        Ecosystem::Cargo => Some("cargo"),
        Ecosystem::Maven => Some("maven"),
        Ecosystem::Gem => Some("gem"),
        Ecosystem::Composer => Some("composer"),
        Ecosystem::NuGet => Some("nuget"),
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm | Ecosystem::Generic => None,
    }
}

/// The spaces that judge the packages of a distribution, the nearest first. Empty when its release
/// is not known.
#[must_use]
pub fn os_spaces(distribution: &Distribution) -> Vec<String> {
    let major = distribution.major();
    let branch = distribution.branch();
    let of = |prefix: &str, release: Option<&str>| {
        release.map(|r| vec![format!("{prefix}:{r}")]).unwrap_or_default()
    };
    match distribution.id.as_str() {
        "debian" => match (major, distribution.codename.as_deref()) {
            (Some(major), _) => vec![format!("debian:{major}")],
            // Testing and unstable have a codename only.
            (None, Some(codename)) => {
                vec![format!("debian:{}", debian_release(codename).unwrap_or(codename))]
            }
            (None, None) => Vec::new(),
        },
        "ubuntu" => match distribution.version.as_deref() {
            Some(version) => vec![format!("ubuntu:{version}"), format!("ubuntu-pro:{version}")],
            None => Vec::new(),
        },
        "alpine" => match distribution.version.as_deref() {
            // `3.20_alpha20240329` is what edge calls itself.
            Some(version) if version.contains("_alpha") || version == "edge" => {
                vec!["alpine:edge".to_owned()]
            }
            _ => of("alpine", branch),
        },
        id @ ("wolfi" | "chainguard" | "minimos") => vec![id.to_owned()],
        "rocky" => of("rocky", major),
        "almalinux" => of("almalinux", major),
        "ol" | "oracle" => of("oracle", major),
        "rhel" => of("rhel", major),
        "amzn" => of("amazon", distribution.version.as_deref()),
        "photon" => of("photon", distribution.version.as_deref()),
        "mariner" | "azurelinux" => of("azurelinux", major),
        "opensuse-leap" => of("opensuse", branch.map(|b| format!("leap-{b}")).as_deref()),
        "opensuse-tumbleweed" => vec!["opensuse:tumbleweed".to_owned()],
        id => match distribution.version.as_deref() {
            Some(version) => vec![format!("{id}:{version}")],
            None => Vec::new(),
        },
    }
}

/// The distribution or ecosystem that a space is of: `debian` for `debian:12`.
pub(super) fn family(space: &str) -> &str {
    match space.split(':').next().unwrap_or(space) {
        "ubuntu-pro" => "ubuntu",
        family => family,
    }
}

/// Whether a family is a language's registry, not a distribution.
pub(crate) fn is_language(family: &str) -> bool {
    matches!(
        family,
        "cargo"
            | "composer"
            | "gem"
            | "go"
            | "hex"
            | "maven"
            | "npm"
            | "nuget"
            | "pub"
            | "pypi"
            | "swift"
    )
}

/// The number of a Debian release by its codename.
#[must_use]
pub(super) fn debian_release(codename: &str) -> Option<&'static str> {
    Some(match codename {
        "wheezy" => "7",
        "jessie" => "8",
        "stretch" => "9",
        "buster" => "10",
        "bullseye" => "11",
        "bookworm" => "12",
        "trixie" => "13",
        "forky" => "14",
        "duke" => "15",
        _ => return None,
    })
}

/// The number of an Ubuntu release by its codename.
#[must_use]
pub(super) fn ubuntu_release(codename: &str) -> Option<&'static str> {
    Some(match codename {
        "trusty" => "14.04",
        "xenial" => "16.04",
        "bionic" => "18.04",
        "eoan" => "19.10",
        "focal" => "20.04",
        "groovy" => "20.10",
        "hirsute" => "21.04",
        "impish" => "21.10",
        "jammy" => "22.04",
        "kinetic" => "22.10",
        "lunar" => "23.04",
        "mantic" => "23.10",
        "noble" => "24.04",
        "oracular" => "24.10",
        "plucky" => "25.04",
        "questing" => "25.10",
        "resolute" => "26.04",
        _ => return None,
    })
}
