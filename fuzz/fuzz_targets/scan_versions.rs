//! Versions, requirements and CVSS vectors of strangers: every order is total.
#![no_main]

use brig_scan::severity::score;
use brig_scan::version::{Scheme, Syntax, intervals};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (a, b) = input;
    for scheme in Scheme::ALL {
        assert_eq!(scheme.compare(a, b), scheme.compare(b, a).reverse());
        assert!(scheme.compare(a, a).is_eq());
        for syntax in [Syntax::Cargo, Syntax::Gem, Syntax::Npm, Syntax::Composer] {
            let _ = intervals(a, syntax, scheme);
        }
    }
    let _ = score(a);
});
