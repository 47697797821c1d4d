//! `system dial-stdio`: the daemon's socket on stdin and stdout, for clients that come over ssh.

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::terminal::stdin::Stdin;
use crate::terminal::writer::{Target, Writer};

leaf!(
    DIAL_STDIO,
    "dial-stdio",
    "",
    "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    DialArgs,
    dial
);

/// Size of reads, in bytes.
const BUFFER: usize = 32 * 1024;

#[derive(Args, Debug)]
struct DialArgs {
    /// Called by sshd instead of what the client asked for: refuse all but what this command does
    #[arg(long, hide = true)]
    forced: bool,
}

/// Where sshd says what the client asked for.
const ASKED_FOR: &str = "SSH_ORIGINAL_COMMAND";

/// Whether somebody who came over ssh asked for what this command does.
fn is_asked_for(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    matches!(program, "docker" | "brig") && words.ends_with(&["system", "dial-stdio"])
}

async fn dial(context: &Context, args: DialArgs) -> Result<()> {
    let asked = std::env::var(ASKED_FOR).unwrap_or_default();
    if args.forced && !is_asked_for(&asked) {
        return Err(message(
            "this key opens the engine, not a shell; use it so: docker -H ssh://USER@HOST ps",
        ));
    }
    let connection = context.client.endpoint().connect().await?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let out = Writer::start()?;
    let output = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = reader
                .read(&mut buffer)
                .await
                .map_err(|source| Error::io("reading from the daemon", source))?;
            let piece = bytes::Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
            if n == 0 || !out.write(Target::Stdout, piece).await {
                return Ok::<(), Error>(());
            }
        }
    };
    let input = async {
        let mut stdin = Stdin::open().map_err(|source| Error::io("opening stdin", source))?;
        while let Some(piece) =
            stdin.next().await.map_err(|source| Error::io("reading stdin", source))?
        {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
        }
        // The daemon may still have something to say.
        let _ = writer.shutdown().await;
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        result = output => result?,
        result = input => result?,
    }
    out.finish().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_of_the_engine_are_served() {
        for command in [
            "docker system dial-stdio",
            "docker --host=unix:///x.sock system dial-stdio",
            "/usr/bin/brig system dial-stdio",
        ] {
            assert!(is_asked_for(command), "{command}");
        }
        for command in ["", "id", "sh -c docker system dial-stdio", "docker run x", "docker system"]
        {
            assert!(!is_asked_for(command), "{command}");
        }
    }
}
