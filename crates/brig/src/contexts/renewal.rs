//! Contexts that were enrolled: past half of its life their certificate is renewed, by the way.
//!
//! The key stays, so that a crash leaves a certificate that fits it, old or new.

use std::time::Duration;

use brig_pki::access_ca::check_issued;
use brig_pki::csr::NodeKey;
use brig_pki::identity::CertInfo;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{DEFAULT, Store, TlsFiles, current};
use crate::client::Call;
use crate::context::Context;
use crate::output::warn;

/// Marks a context whose certificate is renewed.
pub(crate) const RENEWS: &str = "BrigRenews";
/// Longest time that a command waits for that.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Renewed {
    certificate: String,
}

/// Renews the current context's certificate if it is time. A command never fails for that.
pub(crate) async fn if_due(context: &Context) {
    let name = current(&context.globals, &context.config);
    if name == DEFAULT {
        return;
    }
    let store = Store::in_config(&context.globals.config_dir());
    let marked = store
        .meta(&name)
        .is_ok_and(|meta| meta.metadata.get(RENEWS).and_then(Value::as_bool).unwrap_or_default());
    if !marked {
        return;
    }
    let Ok(files) = store.tls(&name).map(|files| TlsFiles::of_context(&files)) else { return };
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return };
    let Ok(info) = CertInfo::from_pem(cert.expose_secret()) else { return };
    let now = OffsetDateTime::now_utc();
    if now > info.not_after {
        warn(&format!(
            "WARNING: the certificate of context {name:?} ended on {}, before brig was used again: remove the context ({program} context rm {name}) and enroll again",
            info.not_after.date(),
            program = context.program
        ));
        return;
    }
    if now < info.not_before + (info.not_after - info.not_before) / 2 {
        return;
    }
    let renew = async {
        let key = NodeKey::from_pem(key.expose_secret()).ok()?;
        let request = key.csr_pem().ok()?;
        let wish = json!({ "Request": String::from_utf8_lossy(&request) });
        let call = Call::post("/brig/access/renew").json(&wish).ok()?;
        let renewed: Renewed = context.client.json(call).await.ok()?;
        check_issued(renewed.certificate.as_bytes(), &key).ok()?;
        store.put_certificate(&name, renewed.certificate.as_bytes()).ok()
    };
    // The next command tries again; the command itself says what is wrong with the engine.
    let _ = tokio::time::timeout(PATIENCE, renew).await;
}
