//! What every command gets: the client, the configuration, the program's name.

use crate::cli::Globals;
use crate::client::Client;
use crate::config_file::ConfigFile;
use crate::error::Result;

/// A command's surroundings.
#[derive(Debug)]
pub(crate) struct Context {
    /// The name the program was called by: `brig` or `docker`.
    pub(crate) program: String,
    /// The words that chose the command: `brig container ls`.
    pub(crate) path: String,
    /// The daemon.
    pub(crate) client: Client,
    /// The user's configuration.
    pub(crate) config: ConfigFile,
    /// The global flags.
    pub(crate) globals: Globals,
}

impl Context {
    /// Reads the configuration; the daemon is not contacted yet.
    pub(crate) fn new(program: String, path: String, globals: Globals) -> Result<Self> {
        let config = ConfigFile::load(&globals.config_dir());
        let endpoint = crate::contexts::endpoint(&globals, &config, &program)?;
        let client = Client::new(endpoint, &config.http_headers());
        Ok(Self { program, path, client, config, globals })
    }
}
