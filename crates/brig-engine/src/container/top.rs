//! The processes of a container, as ps(1) prints them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use brig_api::container::TopResponse;

use super::state::Status;
use crate::engine::Engine;
use crate::error::EngineError;

const DEFAULT_ARGS: &str = "-ef";
/// Longest list of arguments that is taken.
const MAX_ARGS: usize = 1024;
const PS_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Lists a container's processes. `ps_args` are ps(1)'s; empty means `-ef`.
    ///
    /// # Errors
    /// Unknown or not running container; ps fails or prints no PID column.
    pub async fn top(&self, key: &str, ps_args: &str) -> Result<TopResponse, EngineError> {
        let container = self.registry().find(key)?;
        let (status, process) = {
            let cell = container.cell();
            (cell.record.state.status, cell.record.state.process)
        };
        if status == Status::Restarting {
            return Err(EngineError::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let process = process.ok_or_else(|| EngineError::NotRunning(container.id.to_string()))?;
        let args = if ps_args.trim().is_empty() { DEFAULT_ARGS } else { ps_args };
        if args.len() > MAX_ARGS {
            return Err(EngineError::Invalid("the arguments for ps are too long".to_owned()));
        }
        let pids = self.blocking(move || Ok(members(process.pid))).await?;
        // The words go to ps as they are: no shell is in between.
        let mut command = tokio::process::Command::new("ps");
        command
            .args(args.split_ascii_whitespace())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PS_TIMEOUT, command.output())
            .await
            .map_err(|_| EngineError::system("run ps", std::io::ErrorKind::TimedOut.into()))?
            .map_err(|source| EngineError::system("run ps (package procps)", source))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(EngineError::Invalid(format!("ps: {}", message.trim())));
        }
        let answer = table(&String::from_utf8_lossy(&output.stdout), &pids)?;
        self.container_event(&container, "top", &[]);
        Ok(answer)
    }
}

/// The processes in the control groups of `init` or its process namespace.
fn members(init: i32) -> BTreeSet<i32> {
    let facts = |pid: i32| {
        let dir = Path::new("/proc").join(pid.to_string());
        let groups = std::fs::read_to_string(dir.join("cgroup")).ok()?;
        let namespace = std::fs::read_link(dir.join("ns/pid")).ok()?;
        Some((groups, namespace))
    };
    let Some((groups, namespace)) = facts(init) else { return BTreeSet::new() };
    let host = std::fs::read_link("/proc/self/ns/pid").ok();
    let own_namespace = host.is_some_and(|host| host != namespace);
    let Ok(items) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    items
        .flatten()
        .filter_map(|item| item.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            facts(*pid).is_some_and(|(its_groups, its_namespace)| {
                its_groups == groups || (own_namespace && its_namespace == namespace)
            })
        })
        .collect()
}

/// Cuts ps's table into its columns and keeps the rows of `pids`.
fn table(text: &str, pids: &BTreeSet<i32>) -> Result<TopResponse, EngineError> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let pid_column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::Invalid("Couldn't find PID field in ps output".to_owned()))?;
    let processes = lines
        .filter_map(|line| {
            let mut words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            let pid: i32 = words.get(pid_column)?.parse().ok()?;
            if !pids.contains(&pid) {
                return None;
            }
            // The last column is the command, which has spaces of its own.
            if words.len() > titles.len() {
                let rest = words.split_off(titles.len().saturating_sub(1));
                words.push(rest.join(" "));
            }
            Some(words)
        })
        .collect();
    Ok(TopResponse { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_are_kept() {
        let text = "UID   PID  PPID CMD\nroot   12   1 sh -c sleep 5\nroot  13 1 other\n";
        let got = table(text, &[12].into()).unwrap();
        assert_eq!(got.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(got.processes, [["root", "12", "1", "sh -c sleep 5"]]);
        assert_eq!(
            table("CMD\nx\n", &[12].into()).unwrap_err().to_string(),
            "Couldn't find PID field in ps output"
        );
    }

    #[test]
    fn a_process_is_a_member_of_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(members(own).contains(&own));
        assert!(members(-1).is_empty());
    }
}
