//! Living beside a program that drops forwarded packets by default.
//!
//! dockerd and some firewalls set iptables' FORWARD policy to DROP. An accept in our own chain does
//! not override that, so packets that we accept carry a mark, and one rule lets marked packets
//! through: in DOCKER-USER where dockerd keeps its hands off, else at the top of FORWARD. It is
//! written by `iptables`, as native rules would confuse the programs that own those chains.

use std::path::Path;

use crate::process;

/// Makes sure that packets with the mark pass; returns whether they have to carry it.
pub(super) fn let_marked_packets_through(mark: u32) -> bool {
    let Some(iptables) = process::find("iptables") else { return false };
    let Some(rules) = list(&iptables, "FORWARD") else { return false };
    if !rules.lines().any(|line| line.trim() == "-P FORWARD DROP") {
        return false;
    }
    let chain = match list(&iptables, "DOCKER-USER") {
        Some(_) => "DOCKER-USER",
        None => "FORWARD",
    };
    let mark = format!("{mark:#x}/{mark:#x}");
    let rule = [chain, "-m", "mark", "--mark", &mark, "-j", "ACCEPT"];
    let command = |action: &str| {
        let mut arguments = vec!["-w", "5", action];
        arguments.extend_from_slice(&rule);
        process::run(&iptables, &arguments, &[])
    };
    if command("-C").is_ok_and(|output| output.success) {
        return true;
    }
    match command("-I") {
        Ok(output) if output.success => {}
        Ok(output) => tracing::warn!(
            chain,
            message = output.complaint,
            "forwarded packets are dropped by another firewall, which took no exception"
        ),
        Err(error) => tracing::warn!(chain, %error, "cannot run iptables"),
    }
    true
}

/// Removes the rule that lets packets with the mark pass, wherever it is.
pub(super) fn withdraw(mark: u32) {
    let Some(iptables) = process::find("iptables") else { return };
    let mark = format!("{mark:#x}/{mark:#x}");
    for chain in ["DOCKER-USER", "FORWARD"] {
        let rule = ["-w", "5", "-D", chain, "-m", "mark", "--mark", &mark, "-j", "ACCEPT"];
        // A chain or rule that is not there is what we want.
        let _ = process::run(&iptables, &rule, &[]);
    }
}

fn list(iptables: &Path, chain: &str) -> Option<String> {
    let output = process::run(iptables, &["-w", "5", "-S", chain], &[]).ok()?;
    output.success.then_some(output.text)
}
