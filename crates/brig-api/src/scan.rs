//! `/brig/scan/…`: the vulnerability database of an engine or a swarm. Docker has no such routes.

model! {
    /// `GET /brig/scan/database`, and the answer to a new one.
    pub struct ScanDatabase {
        /// SHA-256 of the file.
        digest: String,
        /// Hash that the index has of its own content.
        content: String,
        /// When it was made.
        created: String,
        /// In bytes.
        size: u64,
        /// The day up to which it knows any advisories.
        newest: String,
        /// The same for each distribution and ecosystem; empty for a database that does not say it.
        coverage: Vec<ScanCoverage> = omitempty,
        /// Flaws that it knows.
        vulnerabilities: u64,
        /// Packages that they are in.
        packages: u64,
        /// What it was made from.
        feeds: Vec<ScanFeed>,
        /// When this engine got it.
        received: String,
        /// Whether a swarm's managers share it.
        shared: bool,
        /// The node that got it first, in a swarm.
        node: String,
        /// Which file the swarm wants, where this engine does not have that one yet.
        awaited: String,
        /// What somebody should know.
        warnings: Vec<String>,
        /// How the engine fetches it by itself, where it does.
        fetch: Option<ScanFetch> = omitempty,
    }

    /// What became of fetching the database.
    pub struct ScanFetch {
        url: String,
        /// Seconds between two attempts that work.
        interval: u64,
        /// When it was tried last; empty for never.
        attempted: String,
        /// When that worked last.
        succeeded: String,
        /// Why the last attempt did not work.
        error: String = omitempty,
        /// When it is tried again.
        next: String,
    }

    /// How old what is known of a distribution or an ecosystem is.
    pub struct ScanCoverage {
        /// Which: `debian`, `pypi`.
        name: String,
        /// The day up to which its advisories are known.
        newest: String,
        /// Days since then; -1 when it is none.
        age: i64,
        /// The feeds that know them.
        feeds: Vec<String>,
    }

    /// A source of data and how old it is.
    pub struct ScanFeed {
        name: String,
        origin: String,
        /// Newest date among its records.
        newest: String,
        /// Days since then; -1 when it has no date.
        age: i64,
        /// When it was read.
        read: String,
        records: u64,
        skipped: u64,
    }
}
