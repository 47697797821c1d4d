//! The macro that declares API models.

/// Declares structs with docker's wire conventions: PascalCase names, every field optional and
/// nullable when decoding, `= omitempty` for fields left out when they hold their default.
///
/// Field documentation is optional here: the fields are Docker's, under Docker's names.
macro_rules! model {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty $(= $omitempty:ident)? ),* $(,)?
        }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[allow(missing_docs)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(deserialize_with = "crate::nullable::or_default")]
                $(
                    #[serde(skip_serializing_if = "crate::nullable::is_default")]
                    #[doc = concat!("\n\n*", stringify!($omitempty), "*")]
                )?
                pub $field: $ty,
            )*
        }
    )+ };
}

model! {
    /// The empty object, the value of docker's sets (`{"80/tcp":{}}`).
    pub struct Empty {}
}
