//! `GET /brig/inventories`: the images that run, and who runs them.

model! {
    /// An image that something runs.
    pub struct RunningImage {
        /// Its id; empty when nobody knows what image it is.
        image: String,
        /// What it is called.
        names: Vec<String>,
        /// Whether its inventory can be asked for.
        known: bool,
        uses: Vec<ImageUse>,
    }

    /// A container, a task of another node, or a service without tasks.
    pub struct ImageUse {
        /// container, task or service.
        kind: String,
        #[serde(rename = "ID")] id: String,
        name: String,
        service: String = omitempty,
        /// Host name of the node.
        node: String = omitempty,
    }
}
