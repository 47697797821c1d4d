//! `service scale`.

use clap::Args;

use super::progress;
use super::update::{Registry, fetch, send};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Failures, Result, message};

leaf!(
    SCALE,
    "scale",
    "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    "Scale one or multiple replicated services",
    ScaleArgs,
    scale
);

#[derive(Args, Debug)]
struct ScaleArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(long, short = 'd')]
    detach: bool,
    #[arg(required = true, hide = true)]
    services: Vec<String>,
}

fn parse(text: &str) -> Result<(&str, u64)> {
    let Some((name, count)) = text.split_once('=') else {
        return Err(message(format!(
            "invalid scale specifier '{text}'.\nSee 'service scale --help'.\n\nUsage:  service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]"
        )));
    };
    let count = count.parse().map_err(|_| {
        message(format!(
            "{name}: invalid replicas value {count}: must be a whole number that is not negative"
        ))
    })?;
    Ok((name, count))
}

async fn scale(context: &Context, args: ScaleArgs) -> Result<()> {
    let targets = args.services.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let mut failures = Failures::default();
    let mut scaled = Vec::new();
    for (name, count) in targets {
        let result = one(context, name, count)
            .await
            .map_err(|error| message(format!("{name}: {}", error.text())));
        if let Some(id) = failures.keep(result)? {
            crate::output::line(&format!("{name} scaled to {count}"))?;
            scaled.push((name, id));
        }
    }
    if !args.detach {
        for (name, id) in scaled {
            let result = progress::wait(context, &id, false).await;
            failures.keep(result.map_err(|error| message(format!("{name}: {}", error.text()))))?;
        }
    }
    failures.finish()
}

/// Sets the number of tasks and gives the service's id.
async fn one(context: &Context, name: &str, count: u64) -> Result<String> {
    let service = fetch(context, name).await?;
    let mut spec = service.spec.clone();
    if let Some(replicated) = &mut spec.mode.replicated {
        replicated.replicas = Some(count);
    } else if let Some(job) = &mut spec.mode.replicated_job {
        job.total_completions = Some(count);
    } else {
        return Err(message("scale can only be used with replicated or replicated-job mode"));
    }
    send(context, &service, &spec, Registry::Unsaid, false).await?;
    Ok(service.id)
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_are_names_and_numbers() {
        assert_eq!(super::parse("web=3").unwrap(), ("web", 3));
        for text in ["web", "web=", "web=-1", "web=x"] {
            assert!(super::parse(text).is_err(), "{text}");
        }
    }
}
