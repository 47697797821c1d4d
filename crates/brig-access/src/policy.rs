//! Reading policies and bindings, and checking them before they count.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use crate::action::{Action, Class};
use crate::bindings::{Bindings, MAX_BINDINGS};

/// Largest policy or bindings file that is read.
const MAX_FILE: u64 = 4 << 20;
/// Most policy files of a directory.
const MAX_FILES: usize = 1_000;
/// Name of the file with bindings.
pub const BINDINGS_FILE: &str = "bindings.json";
/// What policy files end in.
pub const POLICY_SUFFIX: &str = "cedar";

const TYPES: &str = include_str!("schema.cedarschema");

/// The roles that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoleName {
    /// May do everything.
    Admin,
    /// May do everything but give the host or rights away.
    Operator,
    /// May deploy named services and stacks.
    Deployer,
    /// May look.
    Viewer,
}

impl RoleName {
    /// All of them, the mightiest first.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Deployer, Self::Viewer];

    /// The name in bindings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Deployer => "deployer",
            Self::Viewer => "viewer",
        }
    }

    /// The policies that make it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Admin => include_str!("roles/admin.cedar"),
            Self::Operator => include_str!("roles/operator.cedar"),
            Self::Deployer => include_str!("roles/deployer.cedar"),
            Self::Viewer => include_str!("roles/viewer.cedar"),
        }
    }
}

const BASE: &str = include_str!("roles/base.cedar");

/// Rules that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or the directory can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// More than is sensible.
    #[error("{} is too large: {reason}", path.display())]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// The limit.
        reason: &'static str,
    },
    /// Somebody else may write it.
    #[error(
        "{0} can be written by others than root; take the right away with: \
         chown root {0} && chmod go-w {0}",
        path.display()
    )]
    Writable {
        /// The file or directory.
        path: PathBuf,
    },
    /// A policy has a mistake.
    #[error("{place}: {reason}")]
    Policy {
        /// `file:line`.
        place: String,
        /// The mistake.
        reason: String,
    },
    /// The bindings have a mistake.
    #[error("{}:{line}: {reason}", path.display())]
    Bindings {
        /// The file.
        path: PathBuf,
        /// The line, 0 for none in particular.
        line: usize,
        /// The mistake.
        reason: String,
    },
    /// What is built in doesn't hold together.
    #[error("the built-in rules cannot be used: {0}")]
    BuiltIn(String),
}

/// One policy and where it is from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) policy: Policy,
    /// The built-in role that it belongs to; `None` holds for everybody.
    pub(crate) role: Option<&'static str>,
}

impl Loaded {
    pub(crate) fn forbids(&self) -> bool {
        self.policy.effect() == Effect::Forbid
    }
}

/// The schema: types, and every action in its class.
pub(crate) fn schema() -> Result<Schema, LoadError> {
    use fmt::Write as _;
    let mut text = TYPES.to_owned();
    for class in Class::ALL {
        let _ = writeln!(text, "action \"{}\";", class.name());
    }
    for action in Action::ALL {
        let _ = writeln!(
            text,
            "action \"{}\" in [\"{}\"] appliesTo {{ principal: Principal, resource: Object, context: Facts }};",
            action.name(),
            action.class().name()
        );
    }
    Schema::from_cedarschema_str(&text)
        .map(|(schema, _)| schema)
        .map_err(|error| LoadError::BuiltIn(error.to_string()))
}

/// The built-in policies.
pub(crate) fn built_in(schema: &Schema) -> Result<Vec<Loaded>, LoadError> {
    let mut all = Vec::new();
    let roles = RoleName::ALL.map(|role| (Some(role.name()), role.text()));
    for (role, text) in std::iter::once((None, BASE)).chain(roles) {
        let name = role.unwrap_or("base");
        let policies = parse(name, text, schema, None)?;
        all.extend(policies.into_iter().map(|policy| Loaded { policy, role }));
    }
    Ok(all)
}

/// Reads a policy file's text. Each policy is named after its `@id`, or file and number.
pub(crate) fn parse(
    file: &str,
    text: &str,
    schema: &Schema,
    stem: Option<&str>,
) -> Result<Vec<Policy>, LoadError> {
    let place = |offset: Option<usize>| match offset {
        Some(offset) => {
            let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
            format!("{file}:{}", before.iter().filter(|byte| **byte == b'\n').count() + 1)
        }
        None => file.to_owned(),
    };
    let set = PolicySet::from_str(text).map_err(|errors| {
        let first = errors.iter().next();
        LoadError::Policy {
            place: place(first.and_then(|error| offset(error))),
            reason: first.map_or_else(|| errors.to_string(), explained),
        }
    })?;
    if set.templates().next().is_some() {
        return Err(LoadError::Policy {
            place: file.to_owned(),
            reason: "templates (?principal, ?resource) cannot be used here".to_owned(),
        });
    }
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    if let Some(error) = result.validation_errors().next() {
        return Err(LoadError::Policy { place: place(offset(error)), reason: explained(error) });
    }
    let mut policies = Vec::new();
    for (number, policy) in set.policies().enumerate() {
        let own = policy.annotation("id").filter(|id| !id.is_empty()).map(str::to_owned);
        let id = match stem {
            None => own.unwrap_or_else(|| format!("{file}/{}", number + 1)),
            // Names of files keep the operator's from looking like built-in ones.
            Some(stem) => {
                format!("{stem}/{}", own.unwrap_or_else(|| (number + 1).to_string()))
            }
        };
        policies.push(policy.new_id(PolicyId::new(id)));
    }
    Ok(policies)
}

fn offset(error: &dyn Diagnostic) -> Option<usize> {
    Some(error.labels()?.next()?.offset())
}

fn explained(error: &(impl Diagnostic + fmt::Display)) -> String {
    match error.help() {
        Some(help) => format!("{error} ({help})"),
        None => error.to_string(),
    }
}

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) policies: Vec<Policy>,
    pub(crate) bindings: Bindings,
}

/// Reads a directory; a missing one holds nothing.
pub(crate) fn read_dir(dir: &Path, schema: &Schema) -> Result<Directory, LoadError> {
    let failed = |source| LoadError::Read { path: dir.to_owned(), source };
    let mut found = Directory { policies: Vec::new(), bindings: Bindings::default() };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    guard(dir, &std::fs::metadata(dir).map_err(failed)?)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|suffix| suffix == POLICY_SUFFIX) {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let reason = "more than 1000 policy files";
            return Err(LoadError::TooLarge { path: dir.to_owned(), reason });
        }
    }
    files.sort_unstable();
    for path in files {
        let text = read(&path)?.unwrap_or_default();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.unwrap_or_default();
        if RoleName::ALL.iter().any(|role| role.name() == stem) || stem == "base" {
            return Err(LoadError::Policy {
                place: path.display().to_string(),
                reason: "this is the name of a built-in role; call the file something else"
                    .to_owned(),
            });
        }
        found.policies.extend(parse(&path.display().to_string(), &text, schema, Some(&stem))?);
    }
    let path = dir.join(BINDINGS_FILE);
    if let Some(text) = read(&path)? {
        found.bindings = parse_bindings(&path, &text)?;
    }
    Ok(found)
}

/// Reads bindings and checks that each names one principal and something sensible.
pub(crate) fn parse_bindings(path: &Path, text: &str) -> Result<Bindings, LoadError> {
    let wrong = |line, reason| LoadError::Bindings { path: path.to_owned(), line, reason };
    let bindings: Bindings = serde_json::from_str(text)
        .map_err(|error| wrong(error.line(), format!("cannot be used: {error}")))?;
    if bindings.bindings.len() > MAX_BINDINGS {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            reason: "more than 10000 bindings",
        });
    }
    for (index, binding) in bindings.bindings.iter().enumerate() {
        let number = index + 1;
        if binding.subjects() != 1 {
            let reason =
                format!("binding {number} must name exactly one of uid, gid, certificate and ssh");
            return Err(wrong(0, reason));
        }
        if binding.role.is_empty() {
            return Err(wrong(0, format!("binding {number} has no role")));
        }
    }
    Ok(bindings)
}

fn read(path: &Path) -> Result<Option<String>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    guard(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge { path: path.to_owned(), reason: "more than 4 MiB" });
    }
    Ok(Some(text))
}

/// SECURITY: whoever can write the rules has all rights.
fn guard(path: &Path, metadata: &std::fs::Metadata) -> Result<(), LoadError> {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if metadata.mode() & 0o022 != 0 || (metadata.uid() != 0 && metadata.uid() != own) {
        return Err(LoadError::Writable { path: path.to_owned() });
    }
    Ok(())
}
