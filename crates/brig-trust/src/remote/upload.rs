//! The body of a publication: `multipart/form-data`, a part for each file.

use brig_pki::{PkiError, random};

use crate::name::Role;

const BOUNDARY_LEN: usize = 24;

/// The content type and the body.
pub(super) fn encode(files: &[(Role, Vec<u8>)]) -> Result<(String, Vec<u8>), PkiError> {
    let boundary = brig_pki::hash::hex(&random::bytes::<BOUNDARY_LEN>()?);
    let mut body = Vec::new();
    for (role, content) in files {
        body.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{role}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((format!("multipart/form-data; boundary={boundary}"), body))
}
