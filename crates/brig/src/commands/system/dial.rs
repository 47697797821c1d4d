//! `system dial-stdio`: the daemon's socket on stdin and stdout, for clients that come over ssh.

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result};
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
struct DialArgs {}

async fn dial(context: &Context, _: DialArgs) -> Result<()> {
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
