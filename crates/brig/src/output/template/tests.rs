use serde_json::json;

use super::*;

fn render(template: &str, value: &Value) -> String {
    match Template::parse(template).and_then(|t| t.render_value(value)) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

fn container() -> Value {
    json!({
        "Id": "abc", "Name": "/x1", "State": {"Running": true, "Pid": 42, "ExitCode": 0},
        "Config": {"Env": ["A=1", "B=2"], "Labels": {"com.x": "y", "b": "c"}, "Cmd": null},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}, "Ports": {"80/tcp": [{"HostPort": "8080"}]}},
        "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
    })
}

#[test]
fn what_people_ask_inspect_for() {
    let c = container();
    for (template, text) in [
        ("{{.State.Pid}}", "42"),
        ("{{.ID}} {{ .Name }}", "abc /x1"),
        ("{{.State.Running}}", "true"),
        ("{{json .State}}", r#"{"ExitCode":0,"Pid":42,"Running":true}"#),
        ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[b:c com.x:y]"),
        ("{{index .Config.Labels \"com.x\"}}", "y"),
        ("{{index .Config.Labels \"none\"}}", ""),
        ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
        (
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}}{{end}}",
            "bridge=172.17.0.2",
        ),
        (
            "{{range $p, $b := .NetworkSettings.Ports}}{{$p}} -> {{(index $b 0).HostPort}}{{end}}",
            "80/tcp -> 8080",
        ),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if eq .State.ExitCode 1 0}}ok{{end}}", "ok"),
        (
            "{{if and .State.Running (gt .State.Pid 41)}}yes{{else if .Name}}maybe{{else}}no{{end}}",
            "yes",
        ),
        ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "42/x1"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.Name | printf \"%-5s|\"}}", "/x1  |"),
        ("{{join .Config.Env \",\"}}", "A=1,B=2"),
        ("{{upper .Id}} {{.Id | lower | title}} {{len .Mounts}}", "ABC Abc 2"),
        ("{{split .Name \"/\"}}", "[ x1]"),
        ("{{println .Id}}", "abc\n"),
        ("{{.Config.Cmd}}", "<no value>"),
        ("a {{- /* note */ -}} b{{`raw`}}", "abraw"),
        ("x {{- .Id -}} \n y", "xabcy"),
        ("{{$x := .Id}}{{$x}}{{$x = 5}}{{$x}}", "abc5"),
        ("{{slice .Id 0 2}}{{truncate .Id 1}}{{pad .Id 1 1}}|", "aba abc |"),
        ("{{not .State.Running}} {{or .Nope .Id}} {{ne .Id `z`}}", "false abc true"),
    ] {
        assert_eq!(render(template, &c), text, "{template}");
    }
}

#[test]
fn mistakes_are_errors() {
    let c = container();
    for template in [
        "{{.Nope}}",
        "{{.State.Nope.More}}",
        "{{",
        "{{.Id",
        "{{end}}",
        "{{if .Id}}",
        "{{range .Id}}{{end}}",
        "{{nofunc .Id}}",
        "{{index .Mounts 9}}",
        "{{$nope}}",
        "{{\"open}}",
        "{{(.Id}}",
        "{{.Id)}}",
        "{{}}",
        "{{else}}",
        "{{.Id .Name}}",
        "{{template \"x\"}}",
        "{{json}}",
        "{{1x}}",
        "{{|}}",
        "{{if}}{{end}}",
    ] {
        assert!(render(template, &c).starts_with("error: template"), "{template}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(template in ".*", actions in "(\\{\\{[-a-z$. |()=:\"`0-9,]{0,12}\\}\\}|x){0,6}") {
        for template in [template, actions] {
            if let Ok(parsed) = Template::parse(&template) {
                let _ = parsed.render_value(&container());
                let _ = parsed.render_header(&container());
            }
        }
    }
}
