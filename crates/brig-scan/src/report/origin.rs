//! Where a package came from: its layer, the build step, and whether the base image brought it.

use crate::package::{Inventory, Package};

/// Where a package came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The layer, counted from 1 at the bottom.
    pub layer: usize,
    /// The step that made it, shortened.
    pub step: String,
    /// Whether the base image has it.
    pub base: bool,
}

/// Longest step that is shown.
const MAX_STEP: usize = 60;

impl Origin {
    /// The origin of a package, where its layer is known.
    #[must_use]
    pub fn of(inventory: &Inventory, package: &Package) -> Option<Self> {
        let at = inventory.layer_index(package.layer.as_ref()?)?;
        let step = inventory.layers.get(at)?.created_by.as_deref().unwrap_or_default();
        Some(Self { layer: at + 1, step: short(step), base: at < base_layers(inventory) })
    }
}

/// How many layers from the bottom are the base image's. Its own command ends a base image, so what
/// comes after the last command that more layers follow was built on top of it. 0 when nothing tells.
pub(super) fn base_layers(inventory: &Inventory) -> usize {
    let mut seen = 0;
    let mut base = 0;
    for step in &inventory.image.history {
        if inventory.layers.get(seen).and_then(|layer| layer.created_by.as_deref()) == Some(step) {
            seen += 1;
            continue;
        }
        let step = step.trim_start_matches("/bin/sh -c #(nop)").trim_start();
        if (step.starts_with("CMD") || step.starts_with("ENTRYPOINT"))
            && seen < inventory.layers.len()
        {
            base = seen;
        }
    }
    base
}

/// The base image's name, as the labels say.
pub(super) fn base_name(inventory: &Inventory) -> Option<&str> {
    inventory.image.labels.get("org.opencontainers.image.base.name").map(String::as_str)
}

fn short(step: &str) -> String {
    let step = step
        .strip_prefix("/bin/sh -c #(nop) ")
        .or_else(|| step.strip_prefix("/bin/sh -c "))
        .unwrap_or(step);
    let step = step.split(" # buildkit").next().unwrap_or(step);
    let words = step.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(MAX_STEP) {
        Some((end, _)) => format!("{}…", words.get(..end).unwrap_or_default()),
        None => words,
    }
}
