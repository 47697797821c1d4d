//! Keeping this process's memory out of files.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Makes sure that this process leaves no core dump and cannot be attached to by other processes
/// of its user: `PR_SET_DUMPABLE` 0 and a soft `RLIMIT_CORE` of 0.
///
/// The hard limit stays, so that whoever starts other programs can give them theirs back; being
/// not dumpable ends at execve by itself.
///
/// # Errors
/// What the kernel answers.
pub fn no_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limit = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum })?;
    Ok(())
}
