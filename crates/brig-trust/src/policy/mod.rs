//! What may start, by who signed it.
//!
//! A policy is a list of rules, each for the images whose names begin with something; the longest
//! beginning counts. A rule accepts, rejects, or demands signatures: of content trust, of cosign's
//! keys, or of both. Here is what a policy says and what verified facts mean under it; where the
//! facts come from is the caller's business.
//!
//! What is judged is content: a name says which rule applies and a digest which image it is. That
//! an image carries a name proves nothing; that its manifest has a digest which was signed does.

mod document;
mod judge;

pub use document::{
    CosignRule, Dct, DocumentError, Expired, Identity, Local, MAX_DOCUMENT, Mode, Need, Require,
    Rule, SignedBy, TrustPolicy,
};
pub use judge::{Question, Unvouched, Vouched};

#[cfg(test)]
mod tests;
