//! The Engine API as data: every route with its action and handler.
//!
//! Documentation and tests derive from this table; nothing is served that is not in it.

use crate::api::{
    archive, attach, auth, build, containers, distribution, events, exec, image_export,
    image_transfer, images, logs, networks, plugins, prune, search, stats, system, unsupported,
    volumes, wait,
};
use crate::route;
use crate::server::{Route, Router};

/// Container create bodies may carry a whole seccomp profile.
const CREATE_BODY: usize = 4 << 20;
/// Credentials are short.
const AUTH_BODY: usize = 64 << 10;

/// Routes of this node; those of the cluster are in `crate::swarm`.
pub static ENGINE: &[Route] = &[
    route!(HEAD "/_ping", SystemPing, system::ping),
    route!(GET "/_ping", SystemPing, system::ping),
    route!(GET "/version", SystemVersion, system::version),
    route!(GET "/info", SystemInfo, system::info),
    route!(GET "/events", SystemEvents, events::stream),
    route!(GET "/system/df", SystemDiskUsage, system::disk_usage),
    route!(POST "/auth", RegistryLogin, auth::login, json(AUTH_BODY)),
    route!(GET "/distribution/{name*}/json", RegistryInspect, distribution::inspect),
    route!(GET "/containers/json", ContainerList, containers::list),
    route!(POST "/containers/create", ContainerCreate, containers::create, json(CREATE_BODY)),
    route!(POST "/containers/prune", ContainerPrune, prune::containers),
    route!(GET "/containers/{id}/json", ContainerInspect, containers::inspect),
    route!(GET "/containers/{id}/top", ContainerInspect, containers::top),
    route!(GET "/containers/{id}/logs", ContainerLogs, logs::container),
    route!(GET "/containers/{id}/changes", ContainerInspect, archive::changes),
    route!(GET "/containers/{id}/stats", ContainerInspect, stats::container),
    route!(GET "/containers/{id}/export", ContainerExport, archive::export),
    route!(HEAD "/containers/{id}/archive", ContainerReadFiles, archive::stat),
    route!(GET "/containers/{id}/archive", ContainerReadFiles, archive::read),
    route!(PUT "/containers/{id}/archive", ContainerWriteFiles, archive::write, streamed()),
    route!(POST "/containers/{id}/start", ContainerStart, containers::start),
    route!(POST "/containers/{id}/stop", ContainerStop, containers::stop),
    route!(POST "/containers/{id}/restart", ContainerRestart, containers::restart),
    route!(POST "/containers/{id}/kill", ContainerKill, containers::kill),
    route!(POST "/containers/{id}/pause", ContainerPause, containers::pause),
    route!(POST "/containers/{id}/unpause", ContainerPause, containers::unpause),
    route!(POST "/containers/{id}/update", ContainerUpdate, containers::update),
    route!(POST "/containers/{id}/rename", ContainerRename, containers::rename),
    route!(POST "/containers/{id}/resize", ContainerResize, containers::resize),
    route!(POST "/containers/{id}/attach", ContainerAttach, attach::container, attended()),
    route!(GET "/containers/{id}/attach/ws", ContainerAttach, attach::websocket),
    route!(GET "/containers/{id}/checkpoints", ContainerInspect, unsupported::checkpoints),
    route!(POST "/containers/{id}/checkpoints", ContainerPause, unsupported::checkpoints),
    route!(DELETE "/containers/{id}/checkpoints/{checkpoint}", ContainerRemove, unsupported::checkpoints),
    route!(POST "/containers/{id}/wait", ContainerWait, wait::container, attended()),
    route!(DELETE "/containers/{id}", ContainerRemove, containers::remove),
    route!(POST "/containers/{id}/exec", ContainerExec, exec::create),
    route!(POST "/exec/{id}/start", ContainerExec, exec::start),
    route!(POST "/exec/{id}/resize", ContainerResize, exec::resize),
    route!(GET "/exec/{id}/json", ExecInspect, exec::inspect),
    route!(GET "/images/json", ImageList, images::list),
    route!(POST "/images/create", ImagePull, image_transfer::create, streamed(), attended()),
    route!(POST "/images/load", ImageLoad, image_transfer::load, streamed(), attended()),
    route!(POST "/images/prune", ImagePrune, prune::images),
    route!(GET "/images/search", RegistrySearch, search::search),
    route!(GET "/images/get", ImageSave, image_export::save),
    route!(GET "/images/{name*}/get", ImageSave, image_export::save),
    route!(GET "/images/{name*}/json", ImageInspect, images::inspect),
    route!(GET "/images/{name*}/history", ImageInspect, images::history),
    route!(POST "/images/{name*}/tag", ImageTag, images::tag),
    route!(POST "/images/{name*}/push", ImagePush, image_export::push, attended()),
    route!(DELETE "/images/{name*}", ImageRemove, images::remove),
    route!(POST "/commit", ContainerCommit, image_export::commit),
    route!(POST "/build", ImageBuild, build::build, streamed(), attended()),
    route!(POST "/build/prune", ImagePrune, build::prune),
    route!(POST "/build/cancel", ImageBuild, build::cancel),
    route!(POST "/session", ImageBuild, unsupported::buildkit, streamed()),
    route!(POST "/grpc", ImageBuild, unsupported::buildkit, streamed()),
    route!(GET "/networks", NetworkList, networks::list),
    route!(POST "/networks/create", NetworkCreate, networks::create),
    route!(POST "/networks/prune", NetworkPrune, prune::networks),
    route!(GET "/networks/{name}", NetworkInspect, networks::inspect),
    route!(DELETE "/networks/{name}", NetworkRemove, networks::remove),
    route!(POST "/networks/{name}/connect", NetworkConnect, networks::connect),
    route!(POST "/networks/{name}/disconnect", NetworkConnect, networks::disconnect),
    route!(GET "/volumes", VolumeList, volumes::list),
    route!(POST "/volumes/create", VolumeCreate, volumes::create),
    route!(POST "/volumes/prune", VolumePrune, prune::volumes),
    route!(GET "/volumes/{name}", VolumeInspect, volumes::inspect),
    route!(PUT "/volumes/{name}", VolumeUpdate, volumes::update),
    route!(DELETE "/volumes/{name}", VolumeRemove, volumes::remove),
    route!(GET "/plugins", PluginList, plugins::list),
    route!(GET "/plugins/privileges", PluginInspect, unsupported::plugins),
    route!(POST "/plugins/pull", PluginInstall, unsupported::plugins),
    route!(POST "/plugins/create", PluginInstall, unsupported::plugins, streamed()),
    route!(GET "/plugins/{name*}/json", PluginInspect, plugins::unknown),
    route!(POST "/plugins/{name*}/enable", PluginUpdate, plugins::unknown),
    route!(POST "/plugins/{name*}/disable", PluginUpdate, plugins::unknown),
    route!(POST "/plugins/{name*}/set", PluginUpdate, plugins::unknown),
    route!(POST "/plugins/{name*}/push", PluginPush, plugins::unknown),
    route!(POST "/plugins/{name*}/upgrade", PluginInstall, plugins::unknown),
    route!(DELETE "/plugins/{name*}", PluginRemove, plugins::unknown),
];

/// The router over the whole API.
#[must_use]
pub fn router() -> Router {
    Router::new(&[
        ENGINE,
        crate::swarm::routes(),
        crate::access::api::ROUTES,
        crate::inventory::api::ROUTES,
        crate::access::enrol::api::ROUTES,
        crate::admission::api::ROUTES,
        crate::scan::api::ROUTES,
    ])
}

#[cfg(test)]
mod tests {
    use brig_api::version::MAX;
    use http::Method;

    use super::*;
    use crate::access::Action;
    use crate::server::Verb;

    fn method(verb: Verb) -> Method {
        match verb {
            Verb::Head => Method::HEAD,
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        }
    }

    /// The path of a route with values in its braces.
    fn example(path: &str) -> String {
        path.split('/')
            .map(|part| match part {
                "{name*}" => "registry:5000/team/app:1",
                part if part.starts_with('{') => "x1",
                literal => literal,
            })
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_row_is_reached_by_its_own_path_and_nothing_else_is_served() {
        let router = router();
        for &route in router.routes() {
            let path = example(route.path);
            let (found, _) = router.find(&method(route.verb), &path, MAX).unwrap();
            assert!(std::ptr::eq(found, route), "{route:?} is hidden by {found:?}");
            for verb in [Verb::Head, Verb::Get, Verb::Post, Verb::Put, Verb::Delete] {
                let listed = router.routes().iter().any(|other| {
                    other.verb == verb
                        && (other.path == route.path || found_by(&router, verb, &path, other))
                });
                assert_eq!(
                    router.find(&method(verb), &path, MAX).is_some(),
                    listed,
                    "{verb:?} {path}"
                );
            }
            assert!(router.find(&Method::PATCH, &path, MAX).is_none());
            assert!(router.find(&method(route.verb), &format!("{path}/"), MAX).is_none());
        }
        for path in ["", "/", "/containers", "/containers/", "/nope", "/images", "/exec"] {
            for verb in [Method::GET, Method::POST, Method::DELETE] {
                assert!(router.find(&verb, path, MAX).is_none(), "{verb} {path}");
            }
        }
    }

    fn found_by(router: &Router, verb: Verb, path: &str, route: &Route) -> bool {
        router.find(&method(verb), path, MAX).is_some_and(|(found, _)| std::ptr::eq(found, route))
    }

    #[test]
    fn no_row_is_there_twice_and_reading_never_needs_a_changing_action() {
        let router = router();
        let rows: std::collections::BTreeSet<_> =
            router.routes().iter().map(|route| (route.verb, route.path)).collect();
        assert_eq!(rows.len(), router.routes().len());
        let changing = [".create", ".remove", ".update", ".prune", ".start", ".stop", ".kill"];
        for route in router.routes() {
            assert!(Action::ALL.contains(&route.action));
            if matches!(route.verb, Verb::Get | Verb::Head) {
                let name = route.action.name();
                assert!(!changing.iter().any(|end| name.ends_with(end)), "{route:?}");
            }
            if route.verb == Verb::Delete {
                let name = route.action.name();
                let takes_away = [".remove", "access.revoke", "access.enrol", "policy.update"];
                assert!(takes_away.iter().any(|end| name.ends_with(end)), "{route:?}");
            }
        }
    }
}
