//! The `process` object: command, user, limits.

use oci_spec::runtime::{
    BoxBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, User,
};

use super::input::{ProcessSpec, Rlimit};
use super::{SpecError, capabilities};
use crate::facts::HostFacts;

pub(super) fn build(
    spec: &ProcessSpec,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Process, SpecError> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    if !spec.cwd.is_absolute() {
        return Err(SpecError::RelativeCwd(spec.cwd.display().to_string()));
    }
    let mut user = User::default();
    user.set_uid(spec.user.uid).set_gid(spec.user.gid).set_additional_gids(
        (!spec.user.additional_gids.is_empty()).then(|| spec.user.additional_gids.clone()),
    );
    let console_size = spec
        .console_size
        .filter(|_| spec.tty)
        .and_then(|size| BoxBuilder::default().height(size.height).width(size.width).build().ok());
    let rlimits = rlimits(&spec.rlimits, host, warnings)?;
    let mut process = ProcessBuilder::default().build().unwrap_or_default();
    process
        .set_terminal(spec.tty.then_some(true))
        .set_console_size(console_size)
        .set_user(user)
        .set_args(Some(spec.args.clone()))
        .set_env((!spec.env.is_empty()).then(|| spec.env.clone()))
        .set_cwd(spec.cwd.clone())
        .set_capabilities(Some(capabilities::build(
            &spec.capabilities,
            &spec.user,
            host,
            warnings,
        )?))
        .set_rlimits((!rlimits.is_empty()).then_some(rlimits))
        .set_no_new_privileges(spec.no_new_privileges.then_some(true))
        .set_apparmor_profile(spec.apparmor.clone().filter(|name| !name.is_empty()))
        .set_oom_score_adj(spec.oom_score_adj.map(|wanted| oom_score(wanted, host, warnings)))
        .set_selinux_label(None);
    Ok(process)
}

fn oom_score(wanted: i32, host: &HostFacts, warnings: &mut Vec<String>) -> i32 {
    match host.oom_score_floor {
        // Only what somebody asked for is worth a word, not that the default is out of reach.
        Some(floor) if wanted < floor => {
            if wanted != 0 {
                warnings.push(format!(
                    "This host does not allow an OOM score adjustment below {floor}: {wanted} \
                     was raised to it"
                ));
            }
            floor
        }
        _ => wanted,
    }
}

fn rlimits(
    wanted: &[Rlimit],
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<PosixRlimit>, SpecError> {
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for limit in wanted {
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        let kind: PosixRlimitType =
            name.parse().map_err(|_| SpecError::UnknownRlimit(limit.name.clone()))?;
        // Any negative number is unlimited.
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let (soft, hard) = (number(limit.soft), number(limit.hard));
        if soft > hard {
            return Err(SpecError::RlimitOrder { soft: limit.soft, hard: limit.hard });
        }
        let most = match host.hard_limits.get(&name) {
            Some(&most) if !host.may_raise_limits() => most,
            _ => u64::MAX,
        };
        if hard > most {
            warnings.push(format!(
                "This host does not allow a {} limit above {most}: {} was lowered to it",
                limit.name,
                if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() },
            ));
        }
        let rlimit = PosixRlimitBuilder::default()
            .typ(kind)
            .soft(soft.min(most))
            .hard(hard.min(most))
            .build()
            .map_err(SpecError::oci)?;
        // The runtime refuses the same type twice; the last one counts.
        limits.retain(|other| other.typ() != kind);
        limits.push(rlimit);
    }
    Ok(limits)
}
