//! Giving up what a process that reads foreign bytes does not need: other namespaces than its own,
//! privileges, resources, and nearly all system calls.
//!
//! Everything here is for a process that was started for one purpose and has one thread yet: what is
//! given up does not come back.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, chroot, fchdir, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, unshare_unsafe};

/// Where a directory without anything is mounted, before it becomes the root.
const EMPTY: &str = "/proc";

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Address space, in bytes.
    pub memory: u64,
    /// Processor time, in seconds.
    pub cpu: u64,
    /// Open descriptors.
    pub files: u64,
}

/// What the process may still reach of the file system.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'fd> {
    /// What is open, and nothing else.
    OpenOnly,
    /// This directory and what lies below, for reading.
    Below(BorrowedFd<'fd>),
}

/// Moves the process into user, network, mount, IPC and host name namespaces of its own, with an
/// empty directory, or the one of `reach`, as its root.
///
/// # Errors
/// What the kernel answers; it may forbid such namespaces. Then nothing, or only a part, was done.
pub fn namespaces(reach: Reach<'_>) -> io::Result<()> {
    let flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    // SAFETY: none of the flags touches the descriptor table, which is what makes unshare unsafe.
    unsafe { unshare_unsafe(flags) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    match reach {
        Reach::OpenOnly => {
            let flags =
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("none", EMPTY, "tmpfs", flags, None)?;
            fchdir(File::open(EMPTY)?)?;
        }
        Reach::Below(dir) => fchdir(dir)?,
    }
    chroot(".")?;
    Ok(())
}

/// Sets the limits, hard ones too. No file may be written and no core dumped.
///
/// # Errors
/// What the kernel answers.
pub fn resources(limits: Resources) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, limits.memory),
        (Resource::Cpu, limits.cpu),
        (Resource::Nofile, limits.files),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// Gives up every capability and the way to get any.
///
/// # Errors
/// What the kernel answers.
pub fn privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// What becomes of a call whose argument does not fit.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | EPERM;
const EPERM: u32 = 1;
const EACCES: u32 = 13;
const ENOSYS: u32 = 38;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// A call and what is allowed of it.
#[derive(Clone, Copy)]
enum Rule {
    /// With any arguments.
    Call(libc::c_long),
    /// Where an argument, masked, has a value.
    Masked { call: libc::c_long, argument: u32, mask: u32, value: u32 },
    /// Never, but with an answer instead of an end.
    Answer(libc::c_long, u32),
}

/// Allows this process, and threads that it starts from now on, only the calls that reading takes.
/// Any other ends the process.
///
/// # Errors
/// What the kernel answers, for example when it knows no filters.
pub fn system_calls(reach: Reach<'_>) -> io::Result<()> {
    let program = compile(&rules(reach));
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call, which copies it.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const filter,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bits of `open` that write, make or change something.
const WRITES: i32 = libc::O_WRONLY
    | libc::O_RDWR
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_TMPFILE;

fn rules(reach: Reach<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_lseek,
        libc::SYS_fcntl,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getrandom,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_membarrier,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_prlimit64,
    ]
    .map(Rule::Call)
    .to_vec();
    let masked = |call, argument, mask: i32, value: i32| Rule::Masked {
        call,
        argument,
        mask: mask.cast_unsigned(),
        value: value.cast_unsigned(),
    };
    // Memory may be read and written, never run.
    rules.push(masked(libc::SYS_mmap, 2, libc::PROT_EXEC, 0));
    rules.push(masked(libc::SYS_mprotect, 2, libc::PROT_EXEC, 0));
    // Threads, no processes. The newer call hides its flags from filters; libraries fall back.
    rules.push(masked(libc::SYS_clone, 0, libc::CLONE_THREAD, libc::CLONE_THREAD));
    rules.push(Rule::Answer(libc::SYS_clone3, ENOSYS));
    // A thread's name.
    rules.push(masked(libc::SYS_prctl, 0, -1, libc::PR_SET_NAME));
    // An abort is a signal to oneself.
    let own = i32::try_from(std::process::id()).unwrap_or(-1);
    rules.push(masked(libc::SYS_tgkill, 0, -1, own));
    match reach {
        Reach::OpenOnly => {
            rules.push(Rule::Answer(libc::SYS_openat, EACCES));
            rules.push(Rule::Answer(libc::SYS_readlinkat, EACCES));
        }
        Reach::Below(_) => {
            rules.push(masked(libc::SYS_openat, 2, WRITES & !libc::O_DIRECTORY, 0));
            for call in [libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_fgetxattr] {
                rules.push(Rule::Call(call));
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        Rule::Answer(libc::SYS_open, EACCES),
        Rule::Answer(libc::SYS_access, EACCES),
        Rule::Answer(libc::SYS_readlink, EACCES),
        Rule::Call(libc::SYS_poll),
    ]);
    rules.push(Rule::Call(libc::SYS_ppoll));
    rules.push(Rule::Answer(libc::SYS_ioctl, EPERM));
    rules
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

fn compile(rules: &[Rule]) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let and = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![
        op(load, 0, 0, ARCHITECTURE),
        op(equal, 1, 0, ARCH),
        op(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        op(load, 0, 0, NUMBER),
    ];
    for rule in rules {
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        match *rule {
            Rule::Call(call) => {
                program.push(op(equal, 0, 1, number(call)));
                program.push(op(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
            }
            Rule::Answer(call, errno) => {
                program.push(op(equal, 0, 1, number(call)));
                program.push(op(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno));
            }
            Rule::Masked { call, argument, mask, value } => {
                program.push(op(equal, 0, 5, number(call)));
                // The low half: both architectures are little-endian, and the flags are 32 bits.
                program.push(op(load, 0, 0, ARGUMENTS + 8 * argument));
                program.push(op(and, 0, 0, mask));
                program.push(op(equal, 0, 1, value));
                program.push(op(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
                program.push(op(answer, 0, 0, REFUSE));
            }
        }
    }
    program.push(op(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Filters belong to threads, so one of its own shows what a whole process would meet.
    #[test]
    fn nothing_can_be_opened_and_threads_can_be_started() {
        let outcome = std::thread::spawn(|| {
            privileges().unwrap();
            system_calls(Reach::OpenOnly).unwrap();
            let opened = File::open("/etc/passwd").map(|_| ()).map_err(|error| error.kind());
            let inner = std::thread::spawn(|| vec![1_u8; 4 << 20].len()).join().unwrap();
            (opened, inner)
        })
        .join()
        .unwrap();
        assert_eq!(outcome, (Err(io::ErrorKind::PermissionDenied), 4 << 20));
    }

    #[test]
    fn below_a_directory_files_can_be_read_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        let handle = File::open(dir.path()).unwrap();
        let path = dir.path().join("a");
        let outcome = std::thread::spawn(move || {
            privileges().unwrap();
            system_calls(Reach::Below(std::os::fd::AsFd::as_fd(&handle))).unwrap();
            let write = std::fs::OpenOptions::new().write(true).open(&path);
            let create = File::create(path.with_extension("new"));
            (
                std::fs::read(&path).unwrap(),
                write.map(|_| ()).map_err(|error| error.kind()),
                create.map(|_| ()).map_err(|error| error.kind()),
            )
        })
        .join()
        .unwrap();
        let refused = Err(io::ErrorKind::PermissionDenied);
        assert_eq!(outcome, (b"x".to_vec(), refused, refused));
    }

    /// Started by the test below: the filter must end it.
    #[test]
    #[ignore = "ends its process"]
    fn makes_a_socket() {
        privileges().unwrap();
        system_calls(Reach::OpenOnly).unwrap();
        let _ = std::os::unix::net::UnixDatagram::unbound();
    }

    #[test]
    fn a_socket_ends_the_process() {
        use std::os::unix::process::ExitStatusExt as _;

        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "confine::tests::makes_a_socket", "--ignored"])
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS));
    }

    #[test]
    fn every_jump_of_the_filter_lands_inside() {
        for reach in [Reach::OpenOnly, Reach::Below(rustix::stdio::stdin())] {
            let program = compile(&rules(reach));
            assert!(program.len() < 4096);
            for (at, step) in program.iter().enumerate() {
                if u32::from(step.code) & 7 == libc::BPF_JMP {
                    let most = usize::from(step.jt.max(step.jf));
                    assert!(at + 1 + most < program.len(), "step {at}");
                }
            }
            let last = program.last().unwrap();
            assert_eq!(last.k, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}
