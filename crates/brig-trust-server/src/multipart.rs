//! Bodies of uploads: `multipart/form-data` with one part for each role's file.
//!
//! A body is read into memory up to [`MAX_UPLOAD`] and cut without copying. Of each part only the
//! file name counts.

use bytes::Bytes;

/// Bytes of one upload. Two thousand tags with two hashes each are 382 kB.
pub const MAX_UPLOAD: usize = 32 << 20;
/// Files in one upload.
pub const MAX_PARTS: usize = 512;
/// Bytes of a part's headers.
const MAX_PART_HEAD: usize = 8 << 10;
/// Characters of a boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// A file of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file name as it was sent; empty when there was none.
    pub filename: String,
    /// The content.
    pub content: Bytes,
}

/// Why a body is not an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// Another content type, or one without a boundary.
    #[error("the content type is not multipart/form-data with a boundary")]
    ContentType,
    /// The body ends within a part.
    #[error("the body ends too early")]
    Cut,
    /// A part's headers.
    #[error("a part's headers cannot be read")]
    PartHead,
    /// Too many files.
    #[error("more than {MAX_PARTS} parts")]
    TooMany,
}

/// Cuts a body into its parts.
///
/// # Errors
/// [`MultipartError`].
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>, MultipartError> {
    let boundary = boundary(content_type).ok_or(MultipartError::ContentType)?;
    let opening = format!("--{boundary}").into_bytes();
    let separator = format!("\r\n--{boundary}").into_bytes();
    let mut parts = Vec::new();
    // What stands before the first boundary is for people without a mail program.
    let mut at = if body.starts_with(&opening) {
        opening.len()
    } else {
        find(body, 0, &separator).ok_or(MultipartError::Cut)? + separator.len()
    };
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // Blanks may follow a boundary.
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        at += blanks;
        if !body.get(at..).unwrap_or_default().starts_with(b"\r\n") {
            return Err(MultipartError::Cut);
        }
        if parts.len() == MAX_PARTS {
            return Err(MultipartError::TooMany);
        }
        let head = at + 2;
        let head_end = head_end(body, head)?;
        let filename = filename(body.get(head..head_end).unwrap_or_default())?;
        // The empty line belongs to the head; a part without content has only that.
        let content = head_end + 2;
        let end = find(body, content.saturating_sub(2), &separator).ok_or(MultipartError::Cut)?;
        parts.push(Part { filename, content: body.slice(content.min(end)..end) });
        at = end + separator.len();
    }
}

/// Where the headers' last line has ended.
fn head_end(body: &[u8], from: usize) -> Result<usize, MultipartError> {
    let rest = body.get(from..).unwrap_or_default();
    if rest.starts_with(b"\r\n") {
        return Ok(from);
    }
    let limit = rest.len().min(MAX_PART_HEAD);
    let end = find(rest.get(..limit).unwrap_or_default(), 0, b"\r\n\r\n");
    match end {
        Some(end) => Ok(from + end + 2),
        None if limit < rest.len() => Err(MultipartError::PartHead),
        None => Err(MultipartError::Cut),
    }
}

fn find(bytes: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let first = *wanted.first()?;
    let mut at = 0;
    while let Some(step) = rest.get(at..)?.iter().position(|byte| *byte == first) {
        at += step;
        if rest.get(at..)?.starts_with(wanted) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len())
        && boundary.bytes().all(allowed)
        && !boundary.ends_with(' ');
    fits.then_some(boundary)
}

/// The file name of a part's headers; empty without one.
fn filename(head: &[u8]) -> Result<String, MultipartError> {
    let head = std::str::from_utf8(head).map_err(|_| MultipartError::PartHead)?;
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(MultipartError::PartHead)?;
        if !name.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let parameters = value.split_once(';').map(|(_, parameters)| parameters);
        return Ok(parameters.and_then(|all| parameter(all, "filename")).unwrap_or_default());
    }
    Ok(String::new())
}

/// The value of a parameter, with or without quotes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, next) = value(after.trim_start())?;
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next.trim_start().strip_prefix(';')?;
    }
}

/// A value and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        return Some((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b1";

    fn read(body: &str) -> Result<Vec<(String, String)>, MultipartError> {
        let parts = parse(TYPE, &Bytes::copy_from_slice(body.as_bytes()))?;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(parts.into_iter().map(|part| (part.filename.clone(), text(&part.content))).collect())
    }

    #[test]
    fn what_docker_sends() {
        let body = "--b1\r\nContent-Disposition: form-data; name=\"files\"; filename=\"targets/nigel\"\
                    \r\nContent-Type: application/octet-stream\r\n\r\n{\"a\":1}\r\n--b1\r\n\
                    Content-Disposition: form-data; name=\"files\"; filename=\"root\"\r\n\r\n\
                    \r\n--b1--\r\n";
        let expected = [("targets/nigel", "{\"a\":1}"), ("root", "")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(read(body).unwrap(), expected);
        assert_eq!(read("--b1--\r\n").unwrap(), []);
        let odd = "preamble\r\n--b1  \r\ncontent-disposition:form-data;filename=x;name=\"a\\\"b;\"\
                   \r\n\r\nline\r\n--b\r\n--b1--";
        assert_eq!(read(odd).unwrap(), [("x".to_owned(), "line\r\n--b".to_owned())]);
        let nameless = "--b1\r\nContent-Disposition: form-data; name=\"files\"\r\n\r\nx\r\n--b1--";
        assert_eq!(read(nameless).unwrap(), [(String::new(), "x".to_owned())]);
        assert_eq!(read("--b1\r\n\r\nx\r\n--b1--").unwrap(), [(String::new(), "x".to_owned())]);
    }

    #[test]
    fn what_is_no_upload() {
        for body in [
            "", "--b1", "--b1\r\n", "--b1\r\na: b\r\n\r\nx", "--b1\r\na: b\r\n\r\nx\r\n--b1",
            "--b2--", "--b1x\r\n\r\n\r\n--b1--",
        ] {
            assert_eq!(read(body), Err(MultipartError::Cut), "{body:?}");
        }
        assert_eq!(read("--b1\r\nab\r\n\r\nx\r\n--b1--"), Err(MultipartError::PartHead));
        let long = format!("--b1\r\na: {}\r\n\r\nx\r\n--b1--", "x".repeat(MAX_PART_HEAD));
        assert_eq!(read(&long), Err(MultipartError::PartHead));
        let many = "--b1\r\n\r\nx\r\n".repeat(MAX_PARTS + 1) + "--b1--";
        assert_eq!(read(&many), Err(MultipartError::TooMany));
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for kind in
            ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=", &long]
        {
            assert_eq!(parse(kind, &Bytes::new()), Err(MultipartError::ContentType), "{kind}");
        }
        assert!(parse("Multipart/Form-Data; x=y; Boundary=\"b 1\"", &"--b 1--".into()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            kind in ".{0,60}",
            body in prop::collection::vec(prop::sample::select(b"--b1\r\n: x\"=;".to_vec()), 0..200),
        ) {
            let body = Bytes::from(body);
            let _ = parse(&kind, &body);
            if let Ok(parts) = parse(TYPE, &body) {
                prop_assert!(parts.iter().map(|p| p.content.len()).sum::<usize>() <= body.len());
            }
        }

        #[test]
        fn what_is_written_is_read(
            files in prop::collection::vec(("[a-z/]{1,20}", prop::collection::vec(any::<u8>(), 0..50)), 0..6),
        ) {
            let mut body = Vec::new();
            for (name, content) in &files {
                body.extend_from_slice(
                    format!("--B\r\nContent-Disposition: form-data; filename=\"{name}\"\r\n\r\n").as_bytes(),
                );
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--B--\r\n");
            let parts = parse("multipart/form-data; boundary=B", &body.into()).unwrap();
            let read: Vec<_> =
                parts.into_iter().map(|part| (part.filename, part.content.to_vec())).collect();
            prop_assert_eq!(read, files);
        }
    }
}
