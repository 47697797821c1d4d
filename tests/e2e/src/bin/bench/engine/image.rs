//! An image such as people pull: ten layers, ten thousand files, a third of it incompressible.
//! The same bytes each time.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// Layers of the image.
pub(super) const LAYERS: usize = 10;
/// Bytes of text in small files, for each layer.
const TEXT: usize = 20_000_000;
/// Bytes of libraries and pictures, for each layer.
const NOISE: usize = 10_000_000;
/// Words that the text is made of.
const WORDS: usize = 4096;

/// xorshift64*: repeatable, and fast enough for 300 MB.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or_default() % limit
    }
}

fn vocabulary(chance: &mut Chance) -> Vec<Vec<u8>> {
    let letters = b"etaoinshrdlucmfwypvbgk";
    let word = |chance: &mut Chance| {
        let length = 2 + chance.below(9);
        (0..length).map(|_| letters[chance.below(letters.len())]).collect()
    };
    (0..WORDS).map(|_| word(chance)).collect()
}

fn text(chance: &mut Chance, words: &[Vec<u8>], length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        // The product of two chances: some words are common, as in any language.
        let rank = chance.below(words.len()) * (1 + chance.below(64)) / 64;
        text.extend_from_slice(&words[rank]);
        text.push(if chance.below(12) == 0 { b'\n' } else { b' ' });
    }
    text.truncate(length);
    text
}

fn noise(chance: &mut Chance, length: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        noise.extend_from_slice(&chance.next().to_le_bytes());
    }
    noise.truncate(length);
    noise
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::File::create(folder.join(name)).unwrap().write_all(bytes).unwrap();
}

fn fill(root: &Path, layer: usize, chance: &mut Chance, words: &[Vec<u8>]) {
    let (mut left, mut number) = (TEXT, 0);
    while left > 0 {
        let length = (1024 + chance.below(40 << 10)).min(left);
        let folder = root.join(format!("usr/share/part{layer}/{}", number / 50));
        write(&folder, &format!("file{number}.txt"), &text(chance, words, length));
        (left, number) = (left - length, number + 1);
    }
    let (mut left, mut number) = (NOISE, 0);
    while left > 0 {
        let length = ((64 << 10) + chance.below(1 << 20)).min(left);
        let folder = root.join(format!("usr/lib/part{layer}"));
        write(&folder, &format!("lib{number}.so"), &noise(chance, length));
        (left, number) = (left - length, number + 1);
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pack(folder: &Path, archive: &Path) {
    let _ = output(
        Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0"])
            .arg("-C")
            .arg(folder)
            .arg("-cf")
            .arg(archive)
            .arg("."),
    );
}

fn sha256(file: &Path) -> String {
    let sum = output(Command::new("sha256sum").arg(file));
    sum.split_whitespace().next().unwrap().to_owned()
}

/// Makes a docker archive of the image `name` in `folder`.
pub(super) fn archive(folder: &Path, name: &str) -> PathBuf {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let words = vocabulary(&mut chance);
    let image = folder.join("image");
    std::fs::create_dir(&image).unwrap();
    let mut sums = Vec::new();
    for layer in 0..LAYERS {
        let root = folder.join("root");
        fill(&root, layer, &mut chance, &words);
        let packed = image.join(format!("layer{layer}.tar"));
        pack(&root, &packed);
        sums.push(sha256(&packed));
        std::fs::remove_dir_all(&root).unwrap();
    }
    let diff_ids: Vec<String> = sums.iter().map(|sum| format!("sha256:{sum}")).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    write(&image, "config.json", config.to_string().as_bytes());
    let sum = sha256(&image.join("config.json"));
    std::fs::rename(image.join("config.json"), image.join(format!("{sum}.json"))).unwrap();
    let layers: Vec<String> = (0..LAYERS).map(|layer| format!("layer{layer}.tar")).collect();
    let manifest = json!([{"Config": format!("{sum}.json"), "RepoTags": [name], "Layers": layers}]);
    write(&image, "manifest.json", manifest.to_string().as_bytes());
    let archive = folder.join("image.tar");
    pack(&image, &archive);
    std::fs::remove_dir_all(&image).unwrap();
    archive
}
