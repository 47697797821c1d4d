//! One page, without scripts, styles or pictures from elsewhere.

use std::fmt::Write as _;

use super::table::{counts, lines};
use super::{Filter, Subject, sarif};

pub(super) fn write(subject: Subject<'_>, filter: &Filter) -> String {
    let Subject { name, inventory, report } = subject;
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{0}</title>\n<style>body{{font:14px/1.5 sans-serif;margin:2em}}table{{border-collapse:collapse}}\
         td,th{{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}}\
         .critical{{background:#f8d0d0}}.high{{background:#fbe3c8}}</style></head>\n<body><h1>{0}</h1>\n<p><b>{1}</b>: {2}</p>\n",
        escape(name),
        report.verdict.as_str(),
        escape(&counts(report, filter)),
    );
    if !report.doubts.is_empty() {
        page.push_str("<h2>Unknown</h2>\n<ul>\n");
        for doubt in &report.doubts {
            let _ = writeln!(page, "<li>{}</li>", escape(&doubt.to_string()));
        }
        page.push_str("</ul>\n");
    }
    let lines = lines(inventory, subject.shown(filter));
    if !lines.is_empty() {
        page.push_str(
            "<table>\n<tr><th>Package</th><th>Installed</th><th>Fixed in</th><th>Severity</th><th>Layer</th><th>Vulnerabilities</th></tr>\n",
        );
        for line in lines {
            let layer = match &line.origin {
                Some(origin) => {
                    format!(
                        "{}{} {}",
                        origin.layer,
                        if origin.base { " (base image)" } else { "" },
                        origin.step
                    )
                }
                None => "-".to_owned(),
            };
            let mut flaws = String::new();
            for finding in &line.findings {
                let _ = write!(
                    flaws,
                    "<div><a href=\"{}\" rel=\"noreferrer\">{}</a>{} {}</div>",
                    escape(&sarif::address(&finding.id)),
                    escape(&finding.id),
                    if finding.exploited.is_some() { " <b>exploited</b>" } else { "" },
                    escape(&finding.summary),
                );
            }
            let _ = writeln!(
                page,
                "<tr class=\"{0}\"><td>{1}</td><td>{2}</td><td>{3}</td><td>{0}</td><td>{4}</td><td>{flaws}</td></tr>",
                line.severity,
                escape(line.name),
                escape(line.installed),
                escape(line.fixed.as_deref().unwrap_or("no fix")),
                escape(&layer),
            );
        }
        page.push_str("</table>\n");
    }
    let _ = writeln!(
        page,
        "<p>Data of {}, judged on {}.</p>\n</body></html>",
        escape(&report.database.newest),
        escape(&report.today)
    );
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
