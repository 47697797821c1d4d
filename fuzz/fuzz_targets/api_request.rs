//! What brigd reads of a request itself: version, path, route, query.
#![no_main]

use brigd::server::query::Query;
use brigd::server::version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if let Ok((version, rest)) = version::split(path) {
        assert!(version >= brig_api::version::MIN && version <= brig_api::version::MAX);
        assert!(path.ends_with(rest));
        let router = brigd::routes::router();
        for method in [http::Method::GET, http::Method::HEAD, http::Method::POST] {
            if let Some((_, params)) = router.find(&method, rest, version) {
                // An object's name never spans into another segment's literal words unnoticed.
                assert!(params.object().is_none_or(|name| rest.contains(name)));
            }
        }
    }
    let query = Query::parse(query);
    let _ = (query.flag("all"), query.number::<i64>("t"), query.filters());
});
