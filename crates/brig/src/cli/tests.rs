use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn fails(line: &str) -> (String, u8) {
    match parse("brig", words(line)) {
        Err(error) => (error.text(), error.exit_status()),
        Ok(_) => panic!("{line} is accepted"),
    }
}

fn runs(line: &str) -> (String, ArgMatches) {
    match parse("brig", words(line)) {
        Ok(Request::Run { path, matches, .. }) => (path, matches),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_command_is_well_formed() {
    completion::whole("brig").debug_assert();
}

#[test]
fn commands_have_two_names() {
    assert_eq!(runs("container ls -a").0, "brig container ls");
    assert_eq!(runs("container list").0, "brig container ls");
    assert_eq!(runs("ps").0, "brig ps");
    assert_eq!(runs("-H unix:///x image inspect a").0, "brig image inspect");
    assert_eq!(runs("trust key generate a").0, "brig trust key generate");
    assert_eq!(runs("trust sign a:1").0, "brig trust sign");
    let (text, _) = fails("trust key bogus");
    assert!(text.contains("brig trust key"), "{text}");
}

#[test]
fn what_follows_the_image_is_left_alone() {
    let (_, matches) = runs("run --rm -it -eA=1 -p 80:80 --name x busybox sh -c --rm -- -d");
    let rest: Vec<&String> = matches.get_many("command").unwrap().collect();
    assert_eq!(rest, ["busybox", "sh", "-c", "--rm", "--", "-d"]);
    assert_eq!(matches.get_one::<bool>("detach"), Some(&false));
    assert_eq!(matches.get_one::<bool>("tty"), Some(&true));
    let (_, matches) = runs("run --dns-opt ndots:3 --net n busybox sh -c x");
    let rest: Vec<&String> = matches.get_many("command").unwrap().collect();
    assert_eq!(rest, ["busybox", "sh", "-c", "x"]);
    let (_, matches) = runs("run --sig-proxy=false --memory-swap -1 -d -- -odd");
    assert_eq!(matches.get_one::<bool>("sig_proxy"), Some(&false));
    assert_eq!(matches.get_one::<i64>("memory_swap"), Some(&-1));
    assert_eq!(matches.get_one::<bool>("detach"), Some(&true));
}

#[test]
fn mistakes_are_dockers() {
    let (text, status) = fails("ps --bogus");
    assert!(
        text.starts_with(
            "unknown flag: --bogus\n\nUsage:  brig ps [OPTIONS]\n\nRun 'brig ps --help'"
        ),
        "{text}"
    );
    assert_eq!(status, 125);
    let (text, _) = fails("run -X busybox");
    assert!(text.starts_with("unknown shorthand flag: 'X' in -X"), "{text}");
    let (text, status) = fails("stop");
    assert!(text.starts_with("brig: 'brig stop' requires at least 1 argument\n"), "{text}");
    assert_eq!(status, 1);
    assert!(fails("ps x").0.starts_with("brig: 'brig ps' accepts no arguments"));
    assert!(
        fails("run --memory x busybox")
            .0
            .starts_with("invalid argument \"x\" for \"--memory\" flag: invalid size: 'x'")
    );
    assert!(fails("bogus").0.starts_with("brig: unknown command: brig bogus"));
    assert!(fails("swarm bogus").0.starts_with("brig: unknown command: brig swarm bogus"));
    assert!(fails("manifest ls").0.contains("not available in this version"));
}

#[test]
fn help_is_printed() {
    let printed = |line: &str| match parse("brig", words(line)) {
        Ok(Request::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    for line in ["", "--help", "help"] {
        assert!(printed(line).starts_with("Usage:  brig [OPTIONS] COMMAND"), "{line}");
    }
    for line in ["run --help", "help run"] {
        let text = printed(line);
        assert!(
            text.starts_with(
                "Usage:  brig run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nCreate and run"
            ),
            "{text}"
        );
        assert!(text.contains("--cap-add"), "{text}");
    }
    assert!(printed("swarm").contains("join-token"));
    assert!(printed("-v").starts_with("brig version "));
}
