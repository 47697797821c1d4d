//! buildah's output in the words of docker's classic builder, which scripts look for.

/// Longest line that is kept together.
const MAX_LINE: usize = 16 << 10;

/// Turns buildah's lines into docker's.
#[derive(Debug, Default)]
pub struct Translator {
    partial: Vec<u8>,
    /// Between `COMMIT` and the next step buildah only talks of its own storage.
    silent: bool,
    /// The last instruction that began.
    step: String,
    /// The error that it ended with.
    error: Option<String>,
    started: bool,
}

impl Translator {
    /// Takes bytes; gives back what is to be shown.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut shown = Vec::new();
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            shown.extend(self.line(&String::from_utf8_lossy(&line)));
        }
        if self.partial.len() > MAX_LINE {
            let line = std::mem::take(&mut self.partial);
            shown.extend(self.line(&String::from_utf8_lossy(&line)));
        }
        shown
    }

    /// What came without a line's end.
    pub fn finish(&mut self) -> Vec<String> {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return Vec::new();
        }
        self.line(&String::from_utf8_lossy(&line)).into_iter().collect()
    }

    fn line(&mut self, line: &str) -> Option<String> {
        let plain = line.trim_end_matches('\n');
        if let Some((number, step)) =
            plain.strip_prefix("STEP ").and_then(|rest| rest.split_once(": "))
            && number.split('/').all(|part| part.parse::<u32>().is_ok())
        {
            self.silent = false;
            self.started = true;
            step.clone_into(&mut self.step);
            return Some(format!("Step {number} : {step}\n"));
        }
        if let Some(rest) = plain.strip_prefix("[") // several stages: `[1/2] STEP 1/3: …`
            && let Some((stage, rest)) = rest.split_once("] ")
            && stage.split('/').all(|part| part.parse::<u32>().is_ok())
        {
            if let Some((number, step)) =
                rest.strip_prefix("STEP ").and_then(|rest| rest.split_once(": "))
            {
                self.silent = false;
                self.started = true;
                step.clone_into(&mut self.step);
                return Some(format!("Step {number} : {step}\n"));
            }
            if rest.starts_with("COMMIT") {
                self.silent = true;
                return None;
            }
        }
        if plain == "COMMIT" || plain.starts_with("COMMIT ") {
            self.silent = true;
            return None;
        }
        if let Some(id) = plain.strip_prefix("--> ") {
            let id = id.strip_prefix("Using cache ").map_or_else(
                || format!(" ---> {id}\n"),
                |id| format!(" ---> Using cache\n ---> {}\n", short(id)),
            );
            return Some(id);
        }
        if let Some(error) = plain.strip_prefix("Error: ") {
            self.error = Some(error.to_owned());
            return None;
        }
        if self.silent || !self.started {
            // Before the first step it only tells what it does with its storage.
            tracing::debug!(line = plain, "buildah");
            return None;
        }
        Some(line.to_owned())
    }

    /// What a failure is: docker's text, and the code that its client exits with.
    #[must_use]
    pub fn failure(&self, code: i32) -> (i64, String) {
        let Some(error) = &self.error else {
            return (1, format!("the builder ended with status {code}"));
        };
        if let Some((before, status)) = error.rsplit_once(": exit status ")
            && before.contains("while running runtime")
            && let Ok(status) = status.trim().parse::<i64>()
        {
            let command = self.step.strip_prefix("RUN ").unwrap_or(&self.step);
            let command = match serde_json::from_str::<Vec<String>>(command) {
                Ok(words) => words.join(" "),
                Err(_) => format!("/bin/sh -c {command}"),
            };
            let text = format!("The command '{command}' returned a non-zero code: {status}");
            return (status, text);
        }
        (1, error.clone())
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_classic_builder() {
        let mut translator = Translator::default();
        let mut shown = translator.feed(b"noise\nSTEP 1/3: FROM busybox\nSTEP 2/3: RUN ec");
        shown.extend(
            translator.feed(b"ho hi\nhi\n--> Using cache 0123456789abcdef\n--> 0123456789a\n"),
        );
        shown.extend(translator.feed(b"COMMIT x\nCopying blob sha256:1\nlast"));
        shown.extend(translator.finish());
        assert_eq!(
            shown,
            [
                "Step 1/3 : FROM busybox\n",
                "Step 2/3 : RUN echo hi\n",
                "hi\n",
                " ---> Using cache\n ---> 0123456789ab\n",
                " ---> 0123456789a\n",
            ]
        );
    }

    #[test]
    fn failures_are_dockers() {
        let mut translator = Translator::default();
        let _ = translator.feed(b"[1/2] STEP 2/2: RUN exit 3\nError: building at STEP \"RUN exit 3\": while running runtime: exit status 3\n");
        assert_eq!(
            translator.failure(3),
            (3, "The command '/bin/sh -c exit 3' returned a non-zero code: 3".to_owned())
        );
        let mut translator = Translator::default();
        let _ = translator.feed(b"Error: x: image not known\n");
        assert_eq!(translator.failure(125), (1, "x: image not known".to_owned()));
        assert_eq!(Translator::default().failure(9).0, 1);
    }
}
