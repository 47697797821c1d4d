//! Clients of a cluster that create, replace, remove and read configs, secrets and services on all
//! managers at once, and note what they did and were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::history::{Action, Event, History, Seen, Told, Value};
use crate::hosts::HostNode;
use crate::{eventually, http, traces};

/// How long a client waits for an answer. A manager gives up before that.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a name is used, and how many are at a time, of each kind.
const TERM: Duration = Duration::from_secs(6);
const NAMES: u64 = 2;
const KINDS: [&str; 3] = ["configs", "secrets", "services"];

/// What the run writes that nobody else may read: names, labels, values.
#[derive(Clone, Debug)]
pub struct Words {
    /// In every name.
    pub name: String,
    /// In every label.
    pub label: String,
    /// In the value of every secret and config, and in the environment of every service.
    pub value: String,
}

impl Words {
    /// Words that are nowhere else.
    ///
    /// # Panics
    /// Without a source of random bytes.
    #[must_use]
    pub fn new() -> Self {
        let word = |of: &str| format!("{of}-{}", brig_types::id::random_swarm_id());
        Self { name: word("name"), label: word("label"), value: word("value") }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        vec![self.name.clone(), self.label.clone(), self.value.clone()]
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

/// A manager as its clients know it.
#[derive(Debug)]
pub struct Managed {
    /// Where it is.
    pub node: HostNode,
    /// Which run of it this is: what it showed before it was started again binds it no more.
    run: AtomicU64,
    done: AtomicUsize,
}

impl Managed {
    /// The daemon is about to be started again, or was.
    pub fn begins_anew(&self) {
        self.run.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes that it acknowledged.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until it acknowledges that many more.
    #[track_caller]
    pub fn goes_on(&self, more: usize, limit: Duration) {
        let wanted = self.done() + more;
        eventually(&format!("host {} takes writes", self.node.host), limit, || {
            self.done() >= wanted
        });
    }
}

/// The clients and what they did.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    managers: Vec<Arc<Managed>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    words: Words,
    history: History,
    next: AtomicU64,
    began: Instant,
    stop: AtomicBool,
    pause: Duration,
    /// What managers said when they did not say what became of a write.
    excuses: Mutex<BTreeMap<String, usize>>,
}

impl Workload {
    /// No clients yet; each will pause that long between two actions.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        let shared = Shared {
            words: Words::new(),
            history: History::default(),
            next: AtomicU64::new(1),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            pause,
            excuses: Mutex::default(),
        };
        Self { shared: Arc::new(shared), managers: Vec::new(), threads: Vec::new() }
    }

    /// The words that are written.
    #[must_use]
    pub fn words(&self) -> &Words {
        &self.shared.words
    }

    /// What was done so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// What managers said when they did not say what became of a write, and how often.
    #[must_use]
    pub fn excuses(&self) -> BTreeMap<String, usize> {
        self.shared.excuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets clients work on another manager.
    pub fn add(&mut self, node: &HostNode, clients: u64) -> Arc<Managed> {
        let managed = Arc::new(Managed {
            node: node.clone(),
            run: AtomicU64::new(0),
            done: AtomicUsize::new(0),
        });
        self.managers.push(Arc::clone(&managed));
        for number in 0..clients {
            let client = Client {
                shared: Arc::clone(&self.shared),
                manager: Arc::clone(&managed),
                number,
                random: 0x9e37_79b9_7f4a_7c15 ^ (node.host as u64) << 32 ^ (number + 1),
                stale: BTreeMap::new(),
            };
            self.threads.push(std::thread::spawn(move || client.work()));
        }
        managed
    }

    /// Ends the clients, waits until all of these managers know everything, and reads all names on
    /// each of them.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn settle(&mut self, managers: &[HostNode], limit: Duration) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client ends");
        }
        // Writes that a manager had not given up yet are done or refused by then.
        std::thread::sleep(Duration::from_secs(2));
        for round in 0..2 {
            for writer in managers {
                let name = format!("settled-{round}-{}-{}", writer.host, self.shared.history.now());
                let body = json!({"Name": name, "Data": "eA=="});
                eventually(&format!("host {} takes writes", writer.host), limit, || {
                    let path = ("POST", "/v1.41/configs/create");
                    let answer = http::call(&writer.socket(), path, Some(&body), ANSWER);
                    matches!(answer, Some((201 | 409, _)))
                });
                for reader in managers {
                    let what = format!("host {} knows what {} wrote", reader.host, writer.host);
                    eventually(&what, limit, || {
                        let path = format!("/v1.41/configs/{name}");
                        matches!(
                            http::call(&reader.socket(), ("GET", &path), None, ANSWER),
                            Some((200, _))
                        )
                    });
                }
            }
        }
        let keys: Vec<String> = self.shared.history.by_key().into_keys().collect();
        for (number, node) in managers.iter().enumerate() {
            let session = u64::MAX - number as u64;
            for key in &keys {
                let call = self.shared.history.now();
                let seen = read(node, key).expect("a manager at rest answers");
                self.shared.history.note(Event {
                    key: key.clone(),
                    session,
                    call,
                    end: self.shared.history.now(),
                    action: Action::Read(seen.map(|(_, seen)| seen)),
                    is_settled: true,
                });
            }
        }
    }

    /// Everything that cannot be, with what was done.
    ///
    /// # Panics
    /// When there is something.
    #[track_caller]
    pub fn judge(&self) {
        let (done, refused, unknown, reads) = self.shared.history.counts();
        println!("writes: {done} done, {refused} refused, {unknown} unknown; {reads} reads");
        for (excuse, times) in self.excuses() {
            println!("  {times} times: {excuse}");
        }
        let violations = self.shared.history.violations();
        let texts: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), texts.join("\n"));
        assert!(done > 0 && reads > 0);
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Client {
    shared: Arc<Shared>,
    manager: Arc<Managed>,
    number: u64,
    random: u64,
    /// What a name was some time ago.
    stale: BTreeMap<String, (String, Seen)>,
}

impl Client {
    fn work(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.act();
            std::thread::sleep(self.shared.pause);
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // xorshift: what is drawn need not be good, only different.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn session(&self) -> u64 {
        let run = self.manager.run.load(Ordering::SeqCst);
        (self.manager.node.host as u64) << 40 | self.number << 32 | run
    }

    /// Reads a name and mostly changes what it found.
    fn act(&mut self) {
        let term = self.shared.began.elapsed().as_secs() / TERM.as_secs();
        let kind = KINDS[usize::try_from(self.draw(KINDS.len() as u64)).unwrap_or(0)];
        let number = self.draw(NAMES);
        let key = format!("{kind}/{}-{term}-{number}", self.shared.words.name);
        let (session, call) = (self.session(), self.shared.history.now());
        let found = read(&self.manager.node, &key);
        // Whoever does not answer shows nothing.
        let Some(found) = found else { return };
        let seen = found.as_ref().map(|(_, seen)| *seen);
        self.note(&key, session, call, Action::Read(seen));
        let choice = self.draw(10);
        let value = self.shared.next.fetch_add(1, Ordering::SeqCst);
        match found {
            None => self.create(&key, value),
            Some((id, seen)) if choice == 0 => self.remove(&key, &id, seen),
            Some((id, seen)) if choice < 7 => {
                if choice == 1 {
                    self.stale.insert(key.clone(), (id.clone(), seen));
                }
                self.update(&key, &id, seen, value);
            }
            Some(_) if choice == 7 => self.create(&key, value),
            Some(_) if choice == 8 => {
                if let Some((id, seen)) = self.stale.remove(&key) {
                    self.update(&key, &id, seen, value);
                }
            }
            Some(_) => {}
        }
    }

    fn note(&self, key: &str, session: u64, call: u64, action: Action) {
        let end = self.shared.history.now();
        self.shared.history.note(Event {
            key: key.to_owned(),
            session,
            call,
            end,
            action,
            is_settled: false,
        });
    }

    fn create(&self, key: &str, value: u64) {
        let kind = kind_of(key);
        let body = self.shared.body(key, Value { value, created: value });
        self.write(key, ("POST", &format!("/v1.41/{kind}/create")), Some(&body), |told| {
            Action::Create(told, value)
        });
    }

    fn update(&self, key: &str, id: &str, seen: Seen, value: u64) {
        let kind = kind_of(key);
        let body = self.shared.body(key, Value { value, created: seen.value.created });
        let path = format!("/v1.41/{kind}/{id}/update?version={}", seen.version);
        self.write(key, ("POST", &path), Some(&body), |told| {
            Action::Update(told, seen.value.value, value)
        });
    }

    fn remove(&self, key: &str, id: &str, seen: Seen) {
        let path = format!("/v1.41/{}/{id}", kind_of(key));
        self.write(key, ("DELETE", &path), None, |told| Action::Remove(told, seen.value.created));
    }

    fn write(
        &self,
        key: &str,
        request: (&str, &str),
        body: Option<&Json>,
        action: impl Fn(Told) -> Action,
    ) {
        let (session, call) = (self.session(), self.shared.history.now());
        let answer = http::call(&self.manager.node.socket(), request, body, ANSWER);
        let told = match &answer {
            Some((200..300, _)) => Told::Done,
            Some((400 | 404 | 409, _)) => Told::Refused,
            Some((_, text)) if text.contains("out of sequence") => Told::Refused,
            Some(_) | None => Told::Nothing,
        };
        self.note(key, session, call, action(told));
        match (told, answer) {
            (Told::Done, _) => {
                self.manager.done.fetch_add(1, Ordering::SeqCst);
            }
            (Told::Nothing, answer) => {
                let excuse = answer.map_or_else(
                    || "no answer".to_owned(),
                    |(status, text)| format!("{status} {}", text.trim()),
                );
                let mut excuses =
                    self.shared.excuses.lock().unwrap_or_else(PoisonError::into_inner);
                *excuses.entry(excuse).or_default() += 1;
            }
            (Told::Refused, _) => {}
        }
    }
}

impl Shared {
    fn body(&self, key: &str, Value { value, created }: Value) -> Json {
        let name = key.split_once('/').map_or(key, |(_, name)| name);
        let labels = json!({
            "value": value.to_string(),
            "created": created.to_string(),
            &self.words.label: &self.words.label,
        });
        if kind_of(key) == "services" {
            let environment = format!("WORD={}", self.words.value);
            let container = json!({"Image": "busybox:latest", "Env": [environment]});
            return json!({
                "Name": name,
                "Labels": labels,
                "TaskTemplate": {"ContainerSpec": container},
                "Mode": {"Replicated": {"Replicas": 0}},
            });
        }
        // Only labels can be changed.
        let data = traces::base64(format!("{}-{created}", self.words.value).as_bytes());
        json!({"Name": name, "Labels": labels, "Data": data})
    }
}

fn kind_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(kind, _)| kind)
}

/// The object of a name, with its id: nothing when there is none. No answer is `None`.
fn read(node: &HostNode, key: &str) -> Option<Option<(String, Seen)>> {
    let (status, body) =
        http::call(&node.socket(), ("GET", &format!("/v1.41/{key}")), None, ANSWER)?;
    if status == 404 {
        return Some(None);
    }
    let object: Json = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
    let label = |name: &str| object["Spec"]["Labels"][name].as_str()?.parse().ok();
    let value = Value { value: label("value")?, created: label("created")? };
    let version = object["Version"]["Index"].as_u64()?;
    Some(Some((object["ID"].as_str()?.to_owned(), Seen { value, version })))
}
