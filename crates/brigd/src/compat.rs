//! How each route of docker's API is answered: `docs/compat.md`, made from the route table and
//! the notes here.
//!
//! `BRIG_UPDATE=1 cargo test -p brigd compat` writes the page anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use brig_api::version::{MAX, MIN};

use crate::routes::router;
use crate::server::{Route, Verb};

/// What a route does that dockerd's does not, or the other way round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Works, in another way.
    Differs,
    /// Answers with an error that says so.
    NotThere,
    /// Of brig alone.
    Added,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Differs => "differs",
            Self::NotThere => "not there",
            Self::Added => "brig's own",
        }
    }
}

/// A note on a route of the table.
type Note = (Verb, &'static str, State, &'static str);

use State::{Added, Differs, NotThere};
use Verb::{Delete, Get, Head, Post, Put};

const NO_BUILDKIT: &str = "501: there is no BuildKit; the text names buildx with the \
    docker-container or remote driver";
const NO_PLUGIN: &str = "404 `plugin \"…\" not found`, docker's text: there are no plugins";
const NO_PLUGINS: &str = "501: plugins are programs with root's rights from a registry; volumes \
    and log drivers are built in";
const NO_CHECKPOINTS: &str = "501; dockerd has them in experimental mode only, and says so";
const WHOLE_SWARM: &str = "sealed in the store; docker keeps it readable with a key beside it";

/// Routes that differ from dockerd's. What is not here is meant to be the same.
const NOTES: &[Note] = &[
    (
        Get,
        "/version",
        Differs,
        "components `Engine`, the runtime and `conmon`; there is no containerd",
    ),
    (
        Get,
        "/info",
        Differs,
        "`Warnings` says which certificates nobody renews; the runtime that is there is the default one",
    ),
    (
        Get,
        "/events",
        Differs,
        "more events of nodes: `certificate-overdue`, `certificate-expired`, `clock-off`",
    ),
    (Get, "/system/df", Differs, "the build cache is one entry, it is kept as a whole"),
    (
        Get,
        "/system/expiring",
        Added,
        "every certificate and token with its end ([differences](differences.md))",
    ),
    (
        Post,
        "/brig/cluster/backup",
        Added,
        "everything of the cluster, encrypted ([store](store.md))",
    ),
    (Post, "/brig/cluster/backup/verify", Added, "tries a backup out ([store](store.md))"),
    (Post, "/brig/cluster/restore", Added, "a cluster out of a backup ([store](store.md))"),
    (Get, "/brig/cluster/keys", Added, "which data keys are in use ([store](store.md))"),
    (Post, "/brig/cluster/keys/rotate", Added, "another data key ([store](store.md))"),
    (
        Get,
        "/brig/images/{name*}/inventory",
        Added,
        "what is installed in an image ([inventory](inventory.md))",
    ),
    (Get, "/brig/inventories", Added, "the images that run ([inventory](inventory.md))"),
    (Get, "/brig/access", Added, "roles, bindings and policies ([access](access.md))"),
    (Post, "/brig/access/explain", Added, "which rule decides a request ([access](access.md))"),
    (Get, "/brig/access/identities", Added, "who has a certificate ([access](access.md))"),
    (Post, "/brig/access/identities", Added, "issues a certificate with a role"),
    (Delete, "/brig/access/identities/{name}", Added, "takes it away"),
    (Post, "/brig/access/renew", Added, "the next certificate for the one that one has"),
    (Get, "/brig/access/newcomers", Added, "who asks for a certificate ([remote](remote.md))"),
    (Post, "/brig/access/newcomers", Added, "lets clients ask for some minutes"),
    (Post, "/brig/access/newcomers/{code}/approve", Added, "gives whoever shows the code one"),
    (Delete, "/brig/access/newcomers/{code}", Added, "turns whoever shows the code away"),
    (Get, "/brig/access/ssh", Added, "SSH keys with a role ([remote](remote.md))"),
    (Post, "/brig/access/ssh", Added, "adds one"),
    (Delete, "/brig/access/ssh/{key*}", Added, "takes one away"),
    (Get, "/brig/audit", Added, "who did what ([access](access.md))"),
    (Get, "/brig/audit/verify", Added, "whether the audit log is whole ([access](access.md))"),
    (Get, "/containers/json", Differs, "`ancestor` compares images, not what they were built from"),
    (
        Post,
        "/containers/create",
        Differs,
        "refused: `StorageOpt`, devices of drivers (`--gpus`), runtimes but runc and crun, log drivers but json-file, local and none",
    ),
    (Get, "/containers/{id}/stats", Differs, "a slow reader gets fewer looks, none that are old"),
    (Get, "/containers/{id}/export", Differs, "what lies on a mount of secrets does not leave"),
    (
        Head,
        "/containers/{id}/archive",
        Differs,
        "sees a running container as it sees itself, memory file systems too; 403 on a mount of secrets",
    ),
    (Get, "/containers/{id}/archive", Differs, "as HEAD"),
    (
        Put,
        "/containers/{id}/archive",
        Differs,
        "403 into a read-only place (dockerd: 500); links may point anywhere, nothing follows them out",
    ),
    (
        Post,
        "/containers/{id}/restart",
        Differs,
        "refused with secrets or configs: they exist in memory only, the next task gets them",
    ),
    (
        Post,
        "/containers/{id}/stop",
        Differs,
        "answered before the container's traces are cleared away",
    ),
    (
        Get,
        "/containers/{id}/attach/ws",
        Differs,
        "405 and 426 of the handshake are a 400; the protocol's rules are kept where dockerd is lenient",
    ),
    (Get, "/containers/{id}/checkpoints", NotThere, NO_CHECKPOINTS),
    (Post, "/containers/{id}/checkpoints", NotThere, NO_CHECKPOINTS),
    (Delete, "/containers/{id}/checkpoints/{checkpoint}", NotThere, NO_CHECKPOINTS),
    (
        Post,
        "/images/create",
        Differs,
        "every digest is verified as it comes; one platform of an image is kept",
    ),
    (
        Post,
        "/images/load",
        Differs,
        "one platform of an image is kept; an entry below a symbolic link of its own layer stays in the layer's root",
    ),
    (
        Get,
        "/images/get",
        Differs,
        "the same images are the same bytes each time; docker archive and OCI layout in one",
    ),
    (Get, "/images/{name*}/get", Differs, "as `/images/get`"),
    (
        Post,
        "/images/{name*}/push",
        Differs,
        "what the registry has under a known digest is only named again",
    ),
    (Post, "/commit", Differs, "generated files such as `/etc/hosts` are not in the image"),
    (
        Post,
        "/build",
        Differs,
        "carried out by buildah in a sandbox when it is installed; no BuildKit (`version=2`), no URL as the context, no `squash`, no network of a container",
    ),
    (Post, "/build/prune", Differs, "takes the whole cache"),
    (
        Post,
        "/build/cancel",
        NotThere,
        "501: only BuildKit's builds have ids; a build ends when its client hangs up",
    ),
    (Post, "/session", NotThere, NO_BUILDKIT),
    (Post, "/grpc", NotThere, NO_BUILDKIT),
    (
        Post,
        "/networks/create",
        Differs,
        "drivers bridge, host and null; one subnet of each family; no config-only networks, no overlays yet; an IPv6 network without a subnet gets a /64 of its own",
    ),
    (
        Post,
        "/volumes/create",
        Differs,
        "driver local; no cluster volumes; a mount of another machine may take 30 s",
    ),
    (
        Put,
        "/volumes/{name}",
        Differs,
        "cluster volumes only, and there are none: docker's 503 off a manager, its 404 on one",
    ),
    (Get, "/plugins", Differs, "always empty"),
    (Get, "/plugins/privileges", NotThere, NO_PLUGINS),
    (Post, "/plugins/pull", NotThere, NO_PLUGINS),
    (Post, "/plugins/create", NotThere, NO_PLUGINS),
    (Get, "/plugins/{name*}/json", NotThere, NO_PLUGIN),
    (Post, "/plugins/{name*}/enable", NotThere, NO_PLUGIN),
    (Post, "/plugins/{name*}/disable", NotThere, NO_PLUGIN),
    (Post, "/plugins/{name*}/set", NotThere, NO_PLUGIN),
    (Post, "/plugins/{name*}/push", NotThere, NO_PLUGIN),
    (Post, "/plugins/{name*}/upgrade", NotThere, NO_PLUGIN),
    (Delete, "/plugins/{name*}", NotThere, NO_PLUGIN),
    (
        Get,
        "/swarm",
        Differs,
        "`RootCA` besides: the root that nodes are to have, and who has not followed why",
    ),
    (Post, "/swarm/init", Differs, "heartbeats every 2 s; an external CA keeps its root"),
    (Post, "/swarm/join", Differs, "a definite refusal is told at once"),
    (Post, "/swarm/update", Differs, "tokens take limits, CAs that can't be reached are refused"),
    (Post, "/nodes/{id}/update", Differs, "a node that runs Docker Engine is not promoted"),
    (Post, "/services/create", Differs, "no overlay networks, routing mesh or jobs yet"),
    (Post, "/services/{id}/update", Differs, "as create"),
    (Post, "/secrets/create", Differs, WHOLE_SWARM),
    (Post, "/configs/create", Differs, WHOLE_SWARM),
];

/// Routes of docker's that no row answers: 404 `page not found`.
const ABSENT: &[(&str, &str, &str)] = &[
    ("POST", "/containers/{id}/copy", "gone from docker's API with 1.24; `archive` took its place"),
    ("GET", "/debug/…", "the inner life of a Go program (pprof, vars)"),
    ("OPTIONS", "/…", "CORS for browsers: nothing in a browser should talk to an engine"),
];

/// A version of docker's API and the routes that it brought; without a verb, all of the path.
type Brought = (&'static str, &'static [(Option<Verb>, &'static str)]);

/// Routes that docker's API has only since a later version than our first.
const SINCE: &[Brought] = &[
    (
        "1.25",
        &[
            (None, "/system/df"),
            (None, "/containers/prune"),
            (None, "/images/prune"),
            (None, "/networks/prune"),
            (None, "/volumes/prune"),
            (None, "/containers/{id}/checkpoints"),
            (None, "/containers/{id}/checkpoints/{checkpoint}"),
            (None, "/plugins"),
            (None, "/plugins/privileges"),
            (None, "/plugins/pull"),
            (None, "/plugins/create"),
            (None, "/plugins/{name*}"),
            (None, "/plugins/{name*}/json"),
            (None, "/plugins/{name*}/enable"),
            (None, "/plugins/{name*}/disable"),
            (None, "/plugins/{name*}/set"),
            (None, "/plugins/{name*}/push"),
            (None, "/swarm/unlockkey"),
            (None, "/swarm/unlock"),
            (None, "/secrets"),
            (None, "/secrets/create"),
            (None, "/secrets/{id}"),
            (None, "/secrets/{id}/update"),
        ],
    ),
    ("1.26", &[(None, "/plugins/{name*}/upgrade")]),
    ("1.29", &[(None, "/services/{id}/logs"), (None, "/tasks/{id}/logs")]),
    (
        "1.30",
        &[
            (None, "/distribution/{name*}/json"),
            (None, "/configs"),
            (None, "/configs/create"),
            (None, "/configs/{id}"),
            (None, "/configs/{id}/update"),
        ],
    ),
    ("1.31", &[(None, "/build/prune"), (None, "/session")]),
    ("1.39", &[(None, "/build/cancel"), (None, "/grpc")]),
    ("1.40", &[(Some(Head), "/_ping")]),
    ("1.42", &[(Some(Put), "/volumes/{name}")]),
];

fn word(verb: Verb) -> &'static str {
    match verb {
        Head => "HEAD",
        Get => "GET",
        Post => "POST",
        Put => "PUT",
        Delete => "DELETE",
    }
}

fn note(route: &Route) -> Option<&'static Note> {
    NOTES.iter().find(|(verb, path, ..)| (*verb, *path) == (route.verb, route.path))
}

/// First version of docker's API with the route, as far as we answer versions.
fn since(route: &Route) -> Option<&'static str> {
    SINCE.iter().find_map(|(version, routes)| {
        routes
            .iter()
            .any(|(verb, path)| *path == route.path && verb.is_none_or(|verb| verb == route.verb))
            .then_some(*version)
    })
}

/// The heading that a route stands under.
fn group(path: &str) -> &'static str {
    match path.split('/').nth(1).unwrap_or_default() {
        "containers" => "Containers",
        "exec" => "Exec",
        "images" | "commit" | "build" | "session" | "grpc" => "Images and builds",
        "networks" => "Networks",
        "volumes" => "Volumes",
        "plugins" => "Plugins",
        "swarm" | "nodes" => "Swarm and nodes",
        "services" | "tasks" => "Services and tasks",
        "secrets" | "configs" => "Secrets and configs",
        _ => "System and registries",
    }
}

fn page() -> String {
    let router = router();
    let routes = router.routes();
    let count = |wanted: Option<State>| {
        routes.iter().filter(|route| note(route).map(|note| note.2) == wanted).count()
    };
    let mut page = format!(
        "# Routes of the Engine API\n\n\
         Made from the route table by a test of brigd (`BRIG_UPDATE=1 cargo test -p brigd compat`); \
         changes by hand are lost. What differs beyond single routes is in \
         [differences.md](differences.md).\n\n\
         {} routes under `/v{MIN}` to `/v{MAX}` and without a version: {} as dockerd's, {} differ, \
         {} are not there and say so, {} of brig's own. *since* is docker's version that brought \
         the route, if later than {MIN}; like dockerd, brigd answers it under earlier ones too, \
         unless a range of versions is given. Measured: dockerd 20.10.24 (API 1.41) answers each of \
         these routes under `/v1.24`, `/v1.41` and without a version alike, but not those since \
         1.42; docker's CLI (20.10.24, 28.2.2) asks for the versions given here before it sends \
         `system df`, the prunes, and what is of checkpoints, plugins, secrets, configs, logs of \
         services and updates of volumes (for `builder prune` it waits for 1.39). No measure, but \
         docker's documentation, stands behind `/swarm/unlock` and `/swarm/unlockkey`, \
         `/distribution`, `/session`, `/grpc`, `/build/cancel` and `HEAD /_ping`. *action* is what access rules and the log call it. \
         `{{name*}}` may hold slashes.\n",
        routes.len(),
        count(None),
        count(Some(Differs)),
        count(Some(NotThere)),
        count(Some(Added)),
    );
    let mut groups: Vec<&str> = Vec::new();
    for route in routes {
        let group = group(route.path);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    for name in groups {
        let _ = write!(
            page,
            "\n## {name}\n\n| route | action | since | state | what differs, and why |\n| --- | --- | --- | --- | --- |\n"
        );
        for route in routes.iter().filter(|route| group(route.path) == name) {
            let (state, text) =
                note(route).map_or(("same", ""), |(_, _, state, text)| (state.name(), *text));
            let _ = writeln!(
                page,
                "| {} `{}` | {} | {} | {state} | {text} |",
                word(route.verb),
                route.path,
                route.action,
                versions(route),
            );
        }
    }
    page.push_str("\n## Not in the table\n\nThese are answered as dockerd answers unknown pages: 404 `page not found`.\n\n| route | why |\n| --- | --- |\n");
    for (verb, path, why) in ABSENT {
        let _ = writeln!(page, "| {verb} `{path}` | {why} |");
    }
    page
}

/// Since when docker has the route; what we restrict it to, if we do.
fn versions(route: &Route) -> String {
    let mut text = since(route).unwrap_or_default().to_owned();
    if route.since != MIN || route.until.is_some() {
        let _ = write!(text, " ({} to {})", route.since, route.until.unwrap_or(MAX));
    }
    text.trim_start().to_owned()
}

#[test]
fn the_page_is_what_the_table_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compat.md");
    let page = page();
    if std::env::var_os("BRIG_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(file, &page).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == page,
        "docs/compat.md is not what the route table says: BRIG_UPDATE=1 cargo test -p brigd compat"
    );
}

#[test]
fn notes_are_on_routes_that_there_are_and_once() {
    let router = router();
    let mut seen = BTreeSet::new();
    for (verb, path, _, text) in NOTES {
        let there = router.routes().iter().any(|route| (route.verb, route.path) == (*verb, *path));
        assert!(there, "a note on {verb:?} {path}, which is no route");
        assert!(seen.insert((*verb, *path)), "{verb:?} {path} has two notes");
        assert!(!text.is_empty() && !text.contains(['|', '\n']), "{verb:?} {path}: {text:?}");
    }
    let mut seen = BTreeSet::new();
    for (verb, path) in SINCE.iter().flat_map(|(_, routes)| routes.iter()) {
        let there = router
            .routes()
            .iter()
            .any(|route| route.path == *path && verb.is_none_or(|verb| verb == route.verb));
        assert!(there, "{path} is no route");
        assert!(seen.insert((*verb, *path)), "{path} has two versions");
    }
}

#[test]
fn what_is_not_there_says_why() {
    for route in router().routes() {
        let noted = note(route).is_some_and(|note| note.2 == NotThere);
        if route.service.starts_with("unsupported::") {
            assert!(noted, "{route:?} is not served, and no note says why");
        }
    }
}
