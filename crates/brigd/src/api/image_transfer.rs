//! Images on their way in: pull, load, import.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use brig_api::auth::RegistryAuth;
use brig_api::progress::JsonMessage;
use brig_image::{Credentials, ImportOptions, Platform, Progress};
use brig_types::secret::SecretString;

use super::images::{emit, reference};
use super::progress::{self, Lines};
use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

/// `POST /images/create`: pulls `fromImage`, or takes the body as a file system with `fromSrc=-`.
///
/// # Errors
/// A bad name, and what the registry says before the first line.
pub async fn create(call: Call) -> Answer {
    match (call.query.non_empty("fromImage"), call.query.non_empty("fromSrc")) {
        (Some(_), _) => pull(call).await,
        (None, Some("-")) => import(call).await,
        (None, Some(_)) => Err(ApiError::not_implemented(
            "importing from a URL is not available; download it and send it as the request's body",
        )),
        (None, None) => Err(ApiError::invalid("fromImage or fromSrc is needed")),
    }
}

async fn pull(call: Call) -> Answer {
    let name = call.query.text("fromImage").unwrap_or_default();
    let wanted = reference(name, call.query.non_empty("tag"))?;
    let platform = call.query.non_empty("platform").map(platform).transpose()?;
    let credentials = credentials(&call)?;
    let state = call.state.clone();
    progress::stream(&call.state, move |lines| async move {
        let sink = held_back(lines);
        if wanted.tag().is_none() && wanted.digest().is_none() {
            let pulled =
                state.engine.images().pull_all(&wanted, platform, credentials, &sink).await?;
            for (reference, _) in pulled {
                emit(&state, "pull", &reference.familiar(), &reference.familiar_name());
            }
            return Ok(());
        }
        state.engine.images().pull(&wanted, platform, credentials, &sink).await?;
        let name = wanted.familiar();
        emit(&state, "pull", &name, &wanted.familiar_name());
        Ok(())
    })
    .await
}

/// Reports steps, the first one only together with the second: what a registry refuses at once
/// becomes an ordinary error answer that way.
fn held_back(lines: Lines) -> impl Fn(Progress) + Send + Sync {
    let held = Mutex::new(None);
    let begun = AtomicBool::new(false);
    move |step| {
        let first = matches!(step, Progress::PullingFrom { .. });
        if first && !begun.load(Ordering::Relaxed) {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
            return;
        }
        begun.store(true, Ordering::Relaxed);
        let before = held.lock().unwrap_or_else(PoisonError::into_inner).take();
        for step in before.iter().chain([&step]) {
            lines.report(step);
        }
    }
}

/// A platform, `os/arch[/variant]` or a JSON object as newer clients send it.
pub(crate) fn platform(text: &str) -> Result<Platform, ApiError> {
    #[derive(serde::Deserialize)]
    struct Object {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    if text.starts_with('{') {
        let Object { os, architecture, variant } = serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("invalid platform: {error}")))?;
        return Ok(Platform::of(&os, &architecture, Some(&variant)));
    }
    Platform::parse(text).map_err(|error| ApiError::invalid(error.to_string()))
}

/// The registry's credentials in the request's header.
///
/// # Errors
/// 400 for a malformed header.
pub fn credentials(call: &Call) -> Result<Option<Credentials>, ApiError> {
    let Some(text) = call.header(brig_api::auth::HEADER) else { return Ok(None) };
    let auth = RegistryAuth::from_header(text)?;
    Ok((!auth.is_anonymous()).then(|| credentials_of(&auth)))
}

/// Credentials as registries take them.
#[must_use]
pub fn credentials_of(auth: &RegistryAuth) -> Credentials {
    let token = |text: &str| (!text.is_empty()).then(|| SecretString::new(text.to_owned()));
    Credentials {
        username: auth.username.clone(),
        password: SecretString::new(auth.password.expose_secret().to_owned()),
        identity_token: token(auth.identitytoken.expose_secret()),
        registry_token: token(auth.registrytoken.expose_secret()),
    }
}

async fn import(mut call: Call) -> Answer {
    let name = match call.query.non_empty("repo") {
        Some(name) => Some(reference(name, call.query.non_empty("tag"))?.with_default_tag()),
        None => None,
    };
    let options = ImportOptions {
        reference: name,
        message: call.query.non_empty("message").map(str::to_owned),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        ..ImportOptions::default()
    };
    let reader = call.reader();
    let state = call.state.clone();
    progress::stream(&call.state, move |lines| async move {
        let sink = |_: Progress| {};
        let id = state.engine.images().import(reader, options, &sink).await?;
        emit(&state, "import", id.as_str(), id.as_str());
        lines.send(JsonMessage::status("", id.to_string())).await;
        Ok(())
    })
    .await
}

/// `POST /images/load`.
///
/// # Errors
/// None before the first line; an archive that can't be used is the stream's last line.
pub async fn load(mut call: Call) -> Answer {
    let quiet = call.query.flag("quiet");
    let platform = call.query.non_empty("platform").map(platform).transpose()?;
    let reader = call.reader();
    let state = call.state.clone();
    progress::stream(&call.state, move |lines| async move {
        let sink_lines = lines.clone();
        let sink = move |step: Progress| {
            // Without a terminal only what is not a matter of numbers is told.
            if !quiet || matches!(step, Progress::Renamed { .. }) {
                sink_lines.report(&step);
            }
        };
        match state.engine.images().load_for(reader, platform, &sink).await {
            Ok(loaded) => {
                for image in loaded {
                    let text = match &image.reference {
                        Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
                        None => format!("Loaded image ID: {}\n", image.id),
                    };
                    let name =
                        image.reference.map_or_else(|| image.id.to_string(), |r| r.familiar());
                    emit(&state, "load", image.id.as_str(), &name);
                    lines.send(JsonMessage::stream(text)).await;
                }
            }
            // COMPAT: docker has answered 200 by then.
            Err(error) => {
                let message = brig_types::error::chain(&error);
                lines.send(JsonMessage::error(0, message)).await;
            }
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_come_in_two_forms() {
        let text = platform("linux/arm64/v8").unwrap();
        let json = platform(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap();
        assert_eq!((text.os.as_str(), text.architecture.as_str()), ("linux", "arm64"));
        assert_eq!(text, json);
        assert!(platform("{").is_err());
    }
}
