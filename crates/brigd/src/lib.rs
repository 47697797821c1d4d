//! brigd
