//! Waiting until every node has followed to another root certificate, and showing how it goes.
//!
//! As docker does, the cluster and its nodes are asked for every 200 ms. Unlike docker's, this
//! ends when every node that is there has followed: one that is away follows when it comes back,
//! and is named. A daemon that does not say what keeps nodes is waited for as docker waits.

use std::collections::BTreeMap;
use std::time::Duration;

use brig_api::progress::{JsonMessage, ProgressDetail};
use brig_api::swarm::{Node, NodeBehind, Swarm};

use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::progress::{Display, Target};
use crate::terminal::stdout_is_terminal;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
const DIGEST: &str = "desired root digest";
const CERTIFICATES: &str = "  rotated TLS certificates";
const ROOTS: &str = "  rotated CA certificates";

/// Waits until every node has followed, or the user interrupts.
pub(super) async fn wait(context: &Context, quiet: bool) -> Result<()> {
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|source| Error::io("watching signals", source))?;
    let mut screen = Screen::new(quiet);
    loop {
        let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
        let nodes: Vec<Node> = context.client.json(Call::get("/nodes")).await?;
        let progress = Progress::of(&swarm, &nodes);
        progress.show(&mut screen)?;
        if progress.is_over() {
            return progress.say_goodbye(&mut screen);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = interrupt.recv() => return screen.text("Operation continuing in background."),
        }
    }
}

/// How far it is.
#[derive(Debug)]
struct Progress {
    digest: String,
    total: usize,
    certificates: usize,
    roots: usize,
    rotating: bool,
    /// Nodes that have not followed, if the daemon says why.
    behind: Option<Vec<NodeBehind>>,
    names: BTreeMap<String, String>,
}

impl Progress {
    fn of(swarm: &Swarm, nodes: &[Node]) -> Self {
        let wanted = &swarm.tls_info;
        let has = |node: &&Node| {
            let info = &node.description.tls_info;
            info.cert_issuer_public_key == wanted.cert_issuer_public_key
                && info.cert_issuer_subject == wanted.cert_issuer_subject
        };
        let trusts = |node: &&Node| node.description.tls_info.trust_root == wanted.trust_root;
        let status = swarm.root_ca.as_ref();
        let host = |node: &Node| node.description.hostname.clone();
        let name = |node: &Node| match host(node) {
            hostname if hostname.is_empty() => node.id.clone(),
            hostname if nodes.iter().filter(|other| host(other) == hostname).count() > 1 => {
                format!("{hostname} ({})", node.id)
            }
            hostname => hostname,
        };
        Self {
            digest: status.map(|status| status.digest.clone()).unwrap_or_default(),
            total: nodes.len(),
            certificates: nodes.iter().filter(has).count(),
            // While it goes on, nodes trust the old root as they should.
            roots: if swarm.root_rotation_in_progress {
                0
            } else {
                nodes.iter().filter(trusts).count()
            },
            rotating: swarm.root_rotation_in_progress,
            behind: status.map(|status| status.behind.clone()),
            names: nodes.iter().map(|node| (node.id.clone(), name(node))).collect(),
        }
    }

    fn is_over(&self) -> bool {
        let all = self.certificates == self.total && self.roots == self.total;
        let all_there =
            self.behind.as_ref().is_some_and(|behind| behind.iter().all(|node| node.away));
        !self.rotating && (all || all_there)
    }

    fn show(&self, screen: &mut Screen) -> Result<()> {
        if !self.digest.is_empty() {
            screen.status(DIGEST, &self.digest)?;
        }
        screen.count(CERTIFICATES, self.certificates, self.total)?;
        screen.count(ROOTS, self.roots, self.total)?;
        let behind = self.behind.as_deref().unwrap_or_default();
        for (id, name) in &self.names {
            let line = format!("  node {name}");
            match behind.iter().find(|node| node.id == *id) {
                // All trust the old root until the new one takes over.
                Some(_) if self.rotating && self.certificates == self.total => {}
                Some(node) => screen.status(&line, &node.reason)?,
                None => screen.replace(&line, "done")?,
            }
        }
        Ok(())
    }

    fn say_goodbye(&self, screen: &mut Screen) -> Result<()> {
        let behind = self.behind.as_deref().unwrap_or_default();
        let name = |node: &NodeBehind| self.names.get(&node.id).unwrap_or(&node.id).clone();
        let away: Vec<String> = behind.iter().map(name).collect();
        if away.is_empty() {
            return Ok(());
        }
        screen.text(&format!("Follow when they come back: {}.", away.join(", ")))
    }
}

/// Shows lines, each only when it has changed.
#[derive(Debug)]
struct Screen {
    display: Option<Display>,
    terminal: bool,
    shown: BTreeMap<String, String>,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let terminal = stdout_is_terminal();
        let display = (!quiet).then(|| Display::new(Target::Stdout, terminal));
        Self { display, terminal, shown: BTreeMap::new() }
    }

    fn status(&mut self, id: &str, status: &str) -> Result<()> {
        self.show(id, status.to_owned(), JsonMessage::status(id, status))
    }

    /// Changes a line that is there.
    fn replace(&mut self, id: &str, status: &str) -> Result<()> {
        if self.shown.contains_key(id) { self.status(id, status) } else { Ok(()) }
    }

    fn count(&mut self, id: &str, done: usize, total: usize) -> Result<()> {
        let text = format!("{done}/{total} nodes");
        if !self.terminal {
            return self.status(id, &text);
        }
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let detail = ProgressDetail {
            current: number(done),
            total: number(total),
            units: "nodes".to_owned(),
            ..ProgressDetail::default()
        };
        let message = JsonMessage { progress_detail: Some(detail), ..JsonMessage::status(id, "") };
        self.show(id, text, message)
    }

    fn text(&mut self, text: &str) -> Result<()> {
        match &mut self.display {
            Some(display) => display.show(&JsonMessage::status("", text)),
            None => Ok(()),
        }
    }

    fn show(&mut self, id: &str, text: String, message: JsonMessage) -> Result<()> {
        let Some(display) = &mut self.display else {
            return Ok(());
        };
        if self.shown.get(id) == Some(&text) {
            return Ok(());
        }
        self.shown.insert(id.to_owned(), text);
        display.show(&message)
    }
}

#[cfg(test)]
mod tests {
    use brig_api::data::Base64;
    use brig_api::swarm::{NodeDescription, RootStatus, TlsInfo};

    use super::*;

    fn info(root: &str, issuer: u8) -> TlsInfo {
        TlsInfo {
            trust_root: root.to_owned(),
            cert_issuer_subject: Base64(vec![issuer]),
            cert_issuer_public_key: Base64(vec![issuer]),
        }
    }

    fn node(id: &str, tls_info: TlsInfo) -> Node {
        let description = NodeDescription { tls_info, ..NodeDescription::default() };
        Node { id: id.to_owned(), description, ..Node::default() }
    }

    fn swarm(tls_info: TlsInfo, rotating: bool, behind: Option<&[(&str, bool)]>) -> Swarm {
        let root_ca = behind.map(|behind| RootStatus {
            behind: behind
                .iter()
                .map(|(id, away)| NodeBehind {
                    id: (*id).to_owned(),
                    away: *away,
                    ..NodeBehind::default()
                })
                .collect(),
            ..RootStatus::default()
        });
        Swarm { tls_info, root_rotation_in_progress: rotating, root_ca, ..Swarm::default() }
    }

    #[test]
    fn it_is_over_when_all_that_are_there_have_followed() {
        let nodes = [node("a", info("new", 2)), node("b", info("old", 1))];
        let over = |swarm: &Swarm, nodes: &[Node]| {
            let progress = Progress::of(swarm, nodes);
            (progress.certificates, progress.roots, progress.is_over())
        };
        let wanted = || info("new", 2);
        assert_eq!(over(&swarm(wanted(), false, None), &nodes), (1, 1, false));
        assert_eq!(over(&swarm(wanted(), false, None), &nodes[..1]), (1, 1, true));
        assert_eq!(over(&swarm(wanted(), false, Some(&[("b", false)])), &nodes), (1, 1, false));
        assert_eq!(over(&swarm(wanted(), false, Some(&[("b", true)])), &nodes), (1, 1, true));
        assert_eq!(over(&swarm(wanted(), true, Some(&[("b", true)])), &nodes), (1, 0, false));
        // All have new certificates, and the old root is still the one they trust.
        let moved = [node("a", info("old", 2)), node("b", info("old", 2))];
        assert_eq!(over(&swarm(info("old", 2), true, None), &moved), (2, 0, false));
    }
}
