//! `build`: the folder goes to the daemon as a tar, its classic builder does the rest.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use brig_api::progress::JsonMessage;
use bytes::Bytes;
use clap::Args;
use http::HeaderName;

use super::context::{Ignore, pack};
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::progress::{Display, Target};
use crate::parse;
use crate::terminal::stdout_is_terminal;

leaf!(BUILD, "build", "[OPTIONS] PATH | -", "Build an image from a Dockerfile", BuildArgs, build);

/// Largest Dockerfile that comes from stdin or from outside of the context.
const MAX_DOCKERFILE: u64 = 4 << 20;
const PIECE: usize = 128 << 10;
const PIECES: usize = 8;
const AUTH_HEADER: HeaderName = HeaderName::from_static("x-registry-config");
/// The name that a Dockerfile from elsewhere gets in the context.
const FOREIGN_DOCKERFILE: &str = ".brig.Dockerfile";

#[derive(Args, Debug)]
struct BuildArgs {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    add_host: Vec<String>,
    /// Set build-time variables
    #[arg(long)]
    build_arg: Vec<String>,
    /// Images to consider as cache sources
    #[arg(long)]
    cache_from: Vec<String>,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Compress the build context using gzip
    #[arg(long)]
    compress: bool,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(long, short = 'c')]
    cpu_shares: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Name of the Dockerfile (Default is "PATH/Dockerfile")
    #[arg(long, short = 'f')]
    file: Option<String>,
    /// Always remove intermediate containers
    #[arg(long)]
    force_rm: bool,
    /// Write the image ID to the file
    #[arg(long)]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long)]
    label: Vec<String>,
    /// Memory limit
    #[arg(long, short = 'm')]
    memory: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long)]
    memory_swap: Option<String>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long)]
    network: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Remove intermediate containers after a successful build
    #[arg(long, hide = true)]
    rm: bool,
    /// Size of "/dev/shm"
    #[arg(long)]
    shm_size: Option<String>,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(long, short = 't')]
    tag: Vec<String>,
    /// Set the target build stage to build.
    #[arg(long)]
    target: Option<String>,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    #[arg(hide = true)]
    path: String,
}

async fn build(context: &Context, args: BuildArgs) -> Result<()> {
    let (dockerfile, source) = source(&args)?;
    let mut call = request(&args, &dockerfile)?;
    call = call.header(AUTH_HEADER, &auths(context).await);
    let call = match source {
        Source::Stdin(first) => {
            let rest = tokio::fs::File::from_std(stdin()?);
            let body = tokio::io::AsyncReadExt::chain(std::io::Cursor::new(first), rest);
            call.stream("application/x-tar", body)
        }
        Source::Folder { folder, ignore, always, extra } => {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(PIECES);
            // Ends with the request: pieces that nobody takes any more are a broken pipe.
            tokio::task::spawn_blocking(move || {
                let always: Vec<&str> = always.iter().map(String::as_str).collect();
                let pieces = Pieces(sender.clone());
                let mut writer = std::io::BufWriter::with_capacity(PIECE, pieces);
                let packed = pack(folder.as_deref(), &ignore, &always, &extra, &mut writer)
                    .and_then(|()| writer.flush());
                if let Err(error) = packed {
                    let _ = sender.blocking_send(Err(error));
                }
            });
            let pieces = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
            let reader = tokio_util::io::StreamReader::new(pieces);
            call.stream("application/x-tar", reader)
        }
    };
    follow(context, &args, call).await
}

async fn follow(context: &Context, args: &BuildArgs, call: Call) -> Result<()> {
    let mut answer = context.client.send(call).await?;
    let mut display = Display::new(Target::Stdout, stdout_is_terminal());
    let mut kept = String::new();
    let mut id = None;
    let mut failed = None;
    let mut take = |display: &mut Display, message: &JsonMessage| {
        if let Some(found) = message.aux.as_ref().and_then(|aux| aux.get("ID")?.as_str()) {
            id = Some(found.to_owned());
        }
        if let Some(detail) = message.error_detail.as_ref().filter(|d| !d.message.is_empty()) {
            failed = Some((detail.code, detail.message.clone()));
            return Ok(());
        }
        if args.quiet {
            kept.push_str(&message.stream);
            return Ok(());
        }
        display.show(message)
    };
    while let Some(chunk) = answer.chunk().await? {
        display.read(&chunk, &mut take)?;
    }
    display.read(b"\n", &mut take)?;
    if let Some((code, text)) = failed {
        let status = u8::try_from(code).ok().filter(|&code| code > 0).unwrap_or(1);
        return Err(Error::Failed { text, status });
    }
    if args.quiet {
        crate::output::print(&kept)?;
    }
    match (&args.iidfile, id) {
        (Some(path), Some(id)) => std::fs::write(path, id)
            .map_err(|source| Error::io(format!("writing {}", path.display()), source)),
        (Some(_), None) => Err(message("server did not provide an image ID")),
        (None, _) => Ok(()),
    }
}

/// Sends what is written to it.
struct Pieces(tokio::sync::mpsc::Sender<std::io::Result<Bytes>>);

impl std::io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Source {
    /// What was read of stdin already; the rest follows.
    Stdin(Vec<u8>),
    Folder {
        folder: Option<PathBuf>,
        ignore: Ignore,
        always: Vec<String>,
        extra: Vec<(String, Vec<u8>)>,
    },
}

fn stdin() -> Result<std::fs::File> {
    use std::os::fd::AsFd as _;
    let fd = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Error::io("opening stdin", source))?;
    Ok(fd.into())
}

fn read_stdin(limit: u64) -> Result<Vec<u8>> {
    if std::io::stdin().is_terminal() {
        return Err(message("the Dockerfile is to come from stdin, but stdin is a terminal"));
    }
    let mut bytes = Vec::new();
    stdin()?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::io("reading stdin", source))?;
    Ok(bytes)
}

/// Where the context comes from, and what the Dockerfile is called in it.
fn source(args: &BuildArgs) -> Result<(String, Source)> {
    let file = args.file.as_deref();
    if args.path == "-" {
        if file == Some("-") {
            return Err(message(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        let mut head = vec![0; 512];
        let mut read = 0;
        let mut input = stdin()?;
        while read < head.len() {
            let more = input
                .read(head.get_mut(read..).unwrap_or_default())
                .map_err(|source| Error::io("reading stdin", source))?;
            if more == 0 {
                break;
            }
            read += more;
        }
        head.truncate(read);
        if is_archive(&head) {
            return Ok((file.unwrap_or("Dockerfile").to_owned(), Source::Stdin(head)));
        }
        // Not an archive: it is the Dockerfile itself, and there is no context.
        head.extend(read_stdin(MAX_DOCKERFILE)?);
        let extra = vec![("Dockerfile".to_owned(), head)];
        let source =
            Source::Folder { folder: None, ignore: Ignore::default(), always: Vec::new(), extra };
        return Ok(("Dockerfile".to_owned(), source));
    }
    if args.path.contains("://") || args.path.starts_with("git@") {
        return Err(message(
            "building from a URL is not available: fetch it and build from the folder",
        ));
    }
    let folder = Path::new(&args.path).canonicalize().map_err(|source| {
        Error::io(format!("unable to prepare context: path {:?} not found", args.path), source)
    })?;
    if !folder.is_dir() {
        return Err(message(format!(
            "unable to prepare context: context must be a directory: {}",
            args.path
        )));
    }
    let mut extra = Vec::new();
    let dockerfile = match file {
        None => "Dockerfile".to_owned(),
        Some("-") => {
            extra.push((FOREIGN_DOCKERFILE.to_owned(), read_stdin(MAX_DOCKERFILE)?));
            FOREIGN_DOCKERFILE.to_owned()
        }
        Some(path) => {
            let path = Path::new(path);
            let found = path
                .canonicalize()
                .or_else(|_| folder.join(path).canonicalize())
                .map_err(|source| {
                    Error::io(
                        format!("unable to prepare context: unable to evaluate symlinks in Dockerfile path {}", path.display()),
                        source,
                    )
                })?;
            match found.strip_prefix(&folder) {
                Ok(inside) => inside.display().to_string(),
                Err(_) => {
                    let bytes = parse::env::read_limited(&found, MAX_DOCKERFILE)?;
                    extra.push((FOREIGN_DOCKERFILE.to_owned(), bytes));
                    FOREIGN_DOCKERFILE.to_owned()
                }
            }
        }
    };
    let ignore_file = folder.join(".dockerignore");
    let ignore = if ignore_file.exists() {
        let bytes = parse::env::read_limited(&ignore_file, MAX_DOCKERFILE)?;
        Ignore::parse(&String::from_utf8_lossy(&bytes))
    } else {
        Ignore::default()
    };
    if extra.is_empty() && !folder.join(&dockerfile).is_file() {
        return Err(message(format!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
            folder.join(&dockerfile).display()
        )));
    }
    let always = vec![dockerfile.clone(), ".dockerignore".to_owned()];
    Ok((dockerfile, Source::Folder { folder: Some(folder), ignore, always, extra }))
}

/// Tar, gzip, bzip2, xz or zstd, by their first bytes.
fn is_archive(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
        || [
            &[0x1f, 0x8b, 8][..],
            b"BZh",
            &[0xfd, b'7', b'z', b'X', b'Z'],
            &[0x28, 0xb5, 0x2f, 0xfd],
        ]
        .iter()
        .any(|magic| head.starts_with(magic))
}

fn request(args: &BuildArgs, dockerfile: &str) -> Result<Call> {
    let wrong = |error: parse::BadValue| message(error.to_string());
    let json = |map: &BTreeMap<String, Option<String>>| serde_json::json!(map).to_string();
    let arguments: BTreeMap<String, Option<String>> = args
        .build_arg
        .iter()
        .map(|arg| match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            // Without a value it is the one of this process, if there is one.
            None => (arg.clone(), parse::env::process_env(arg)),
        })
        .collect();
    let labels = parse::key_value_map(&args.label);
    let bytes = |text: &Option<String>| -> Result<Option<String>> {
        text.as_deref()
            .map(|text| parse::size::bytes(text).map(|n| n.to_string()))
            .transpose()
            .map_err(wrong)
    };
    let mut ulimits = Vec::new();
    for spec in &args.ulimit {
        ulimits.push(parse::resources::ulimit(spec).map_err(wrong)?);
    }
    let swap = args
        .memory_swap
        .as_deref()
        .map(parse::size::bytes_or_unlimited)
        .transpose()
        .map_err(wrong)?;
    let number = |n: Option<i64>| n.map(|n| n.to_string());
    let mut call = Call::post("/build")
        .query("dockerfile", dockerfile)
        .query("buildargs", json(&arguments))
        .query("labels", serde_json::json!(labels).to_string())
        .query("rm", "1")
        .query_if("forcerm", args.force_rm)
        .query_if("q", args.quiet)
        .query_if("nocache", args.no_cache)
        .query_if("pull", args.pull)
        .query_opt("target", args.target.as_deref())
        .query_opt("networkmode", args.network.as_deref())
        .query_opt("platform", args.platform.as_deref().map(str::to_ascii_lowercase))
        .query_opt("cgroupparent", args.cgroup_parent.as_deref())
        .query_opt("cpusetcpus", args.cpuset_cpus.as_deref())
        .query_opt("cpusetmems", args.cpuset_mems.as_deref())
        .query_opt("cpushares", number(args.cpu_shares))
        .query_opt("cpuperiod", number(args.cpu_period))
        .query_opt("cpuquota", number(args.cpu_quota))
        .query_opt("memory", bytes(&args.memory)?)
        .query_opt("memswap", number(swap))
        .query_opt("shmsize", bytes(&args.shm_size)?);
    if !ulimits.is_empty() {
        call = call.query("ulimits", serde_json::json!(ulimits).to_string());
    }
    if !args.add_host.is_empty() {
        call = call.query("extrahosts", args.add_host.join(","));
    }
    if !args.cache_from.is_empty() {
        call = call.query("cachefrom", serde_json::json!(args.cache_from).to_string());
    }
    for tag in &args.tag {
        call = call.query("t", tag);
    }
    Ok(call)
}

/// The user's credentials for all registries, as the header has them.
async fn auths(context: &Context) -> String {
    use base64::Engine as _;
    let all = context.config.all_credentials().await;
    let json = serde_json::to_vec(&all).unwrap_or_else(|_| b"{}".to_vec());
    let json = brig_types::secret::SecretBytes::new(json);
    base64::engine::general_purpose::URL_SAFE.encode(json.expose_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_beginning() {
        let mut header = tar::Header::new_gnu();
        header.set_cksum();
        assert!(is_archive(header.as_bytes()));
        assert!(is_archive(&[0x1f, 0x8b, 8, 0]));
        assert!(!is_archive(b"FROM busybox\n"));
        assert!(!is_archive(b""));
    }
}
