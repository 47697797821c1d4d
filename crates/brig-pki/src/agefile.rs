//! Files for chosen readers: the age format, version 1, which the `age` tool reads as well.
//!
//! A file is for X25519 recipients (`age1…`), or for whoever knows a passphrase. It is encrypted
//! and authenticated in pieces, so neither size nor memory limit it, and a file that was cut or
//! altered is noticed where that happens.

use std::fmt;
use std::io::{self, Read, Write};

use age::secrecy::SecretString as AgeSecret;
use age::{DecryptError, Decryptor, Encryptor};
use brig_types::error::{Categorized, ErrorKind};
use brig_types::secret::SecretString;

/// Cost of guessing a passphrase, as a power of two: what the `age` tool takes.
const WORK_FACTOR: u8 = 18;
/// The highest cost that is paid for a file that somebody else wrote: half a gigabyte of memory.
const MAX_WORK_FACTOR: u8 = 19;
/// Shortest passphrase that is taken.
const MIN_PASSPHRASE: usize = 12;
/// Recipients of one file, and identities that are tried.
const MAX_KEYS: usize = 64;

/// What can go wrong with such a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgeError {
    /// Nobody could read it.
    #[error("name who may read it: at least one recipient, or a passphrase")]
    NoReaders,
    /// Too many keys.
    #[error("{0} keys are too many, at most {MAX_KEYS} are taken")]
    TooMany(usize),
    /// A recipient that does not parse. It is not repeated: it could be an identity by mistake.
    #[error("recipient {0} is none of age's: expected age1…, as age-keygen prints it")]
    Recipient(usize),
    /// An identity that does not parse.
    #[error("line {0} of the identities is none of age's: expected AGE-SECRET-KEY-1…")]
    Identity(usize),
    /// A passphrase that is guessed too easily.
    #[error("the passphrase is shorter than {MIN_PASSPHRASE} characters")]
    WeakPassphrase,
    /// The file is for other readers, or the passphrase is wrong.
    #[error("{0}")]
    WrongKey(&'static str),
    /// Not an age file.
    #[error("it is not encrypted as age does it, or its beginning was altered")]
    NotAge,
    /// The passphrase would cost more to check than is reasonable.
    #[error(
        "checking the passphrase would cost 2^{0} steps, at most 2^{MAX_WORK_FACTOR} are taken"
    )]
    Expensive(u8),
    /// It cannot be read or written.
    #[error("encryption failed")]
    Io(#[source] io::Error),
}

impl Categorized for AgeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::System,
            _ => ErrorKind::InvalidParameter,
        }
    }
}

/// Who will be able to read a file.
#[derive(Debug)]
pub struct Readers(Kind);

enum Kind {
    Recipients(Vec<age::x25519::Recipient>),
    Passphrase(SecretString),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipients(recipients) => write!(f, "{} recipients", recipients.len()),
            Self::Passphrase(_) => f.write_str("a passphrase"),
        }
    }
}

impl Readers {
    /// Whoever has the identity of one of these recipients, `age1…` each.
    ///
    /// # Errors
    /// [`AgeError::NoReaders`], [`AgeError::TooMany`], [`AgeError::Recipient`].
    pub fn recipients<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, AgeError> {
        let recipients = texts
            .into_iter()
            .enumerate()
            .map(|(at, text)| text.trim().parse().map_err(|_| AgeError::Recipient(at + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        match recipients.len() {
            0 => Err(AgeError::NoReaders),
            1..=MAX_KEYS => Ok(Self(Kind::Recipients(recipients))),
            many => Err(AgeError::TooMany(many)),
        }
    }

    /// Whoever knows the passphrase.
    ///
    /// # Errors
    /// [`AgeError::WeakPassphrase`].
    pub fn passphrase(passphrase: SecretString) -> Result<Self, AgeError> {
        if passphrase.expose_secret().chars().count() < MIN_PASSPHRASE {
            return Err(AgeError::WeakPassphrase);
        }
        Ok(Self(Kind::Passphrase(passphrase)))
    }

    /// Begins a file.
    ///
    /// # Errors
    /// [`AgeError::Io`].
    pub fn seal<W: Write>(&self, out: W) -> Result<SealedWriter<W>, AgeError> {
        let encryptor = match &self.0 {
            Kind::Recipients(recipients) => {
                Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn age::Recipient))
            }
            Kind::Passphrase(passphrase) => {
                let mut recipient = age::scrypt::Recipient::new(secret(passphrase));
                recipient.set_work_factor(WORK_FACTOR);
                let only: &dyn age::Recipient = &recipient;
                return finish(Encryptor::with_recipients(std::iter::once(only)), out);
            }
        };
        finish(encryptor, out)
    }
}

fn finish<W: Write>(
    encryptor: Result<Encryptor, age::EncryptError>,
    out: W,
) -> Result<SealedWriter<W>, AgeError> {
    let writer = encryptor
        .map_err(|error| AgeError::Io(io::Error::other(error.to_string())))?
        .wrap_output(out)
        .map_err(AgeError::Io)?;
    Ok(SealedWriter(writer))
}

/// A file while it is written. Without [`SealedWriter::finish`] it counts as cut.
pub struct SealedWriter<W: Write>(age::stream::StreamWriter<W>);

impl<W: Write> SealedWriter<W> {
    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    /// [`AgeError::Io`].
    pub fn finish(self) -> Result<W, AgeError> {
        self.0.finish().map_err(AgeError::Io)
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> fmt::Debug for SealedWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedWriter")
    }
}

/// What opens a file.
pub struct Opener(OpenerKind);

enum OpenerKind {
    Identities(Vec<age::x25519::Identity>),
    Passphrase(SecretString),
}

impl Opener {
    /// The identities of an identity file as `age-keygen` writes it.
    ///
    /// # Errors
    /// [`AgeError::NoReaders`], [`AgeError::TooMany`], [`AgeError::Identity`].
    pub fn identities(text: &SecretString) -> Result<Self, AgeError> {
        let lines = text.expose_secret().lines().enumerate();
        let identities = lines
            .map(|(at, line)| (at + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| line.parse().map_err(|_| AgeError::Identity(at)))
            .collect::<Result<Vec<_>, _>>()?;
        match identities.len() {
            0 => Err(AgeError::NoReaders),
            1..=MAX_KEYS => Ok(Self(OpenerKind::Identities(identities))),
            many => Err(AgeError::TooMany(many)),
        }
    }

    /// A passphrase.
    #[must_use]
    pub const fn passphrase(passphrase: SecretString) -> Self {
        Self(OpenerKind::Passphrase(passphrase))
    }

    /// Begins to read a file. What comes out is authentic, and an end only where it was written.
    ///
    /// # Errors
    /// [`AgeError`].
    pub fn open<R: Read>(&self, input: R) -> Result<impl Read + use<R>, AgeError> {
        let decryptor = Decryptor::new(input).map_err(|error| failed(error, ""))?;
        match (&self.0, decryptor.is_scrypt()) {
            (OpenerKind::Passphrase(passphrase), true) => {
                let mut identity = age::scrypt::Identity::new(secret(passphrase));
                identity.set_max_work_factor(MAX_WORK_FACTOR);
                let only: &dyn age::Identity = &identity;
                decryptor
                    .decrypt(std::iter::once(only))
                    .map_err(|error| failed(error, "the passphrase is wrong"))
            }
            (OpenerKind::Identities(identities), false) => decryptor
                .decrypt(identities.iter().map(|identity| identity as &dyn age::Identity))
                .map_err(|error| failed(error, "it is not for any of these identities")),
            (OpenerKind::Passphrase(_), false) => Err(AgeError::WrongKey(
                "it is for recipients and not for a passphrase: an identity opens it",
            )),
            (OpenerKind::Identities(_), true) => Err(AgeError::WrongKey(
                "it is for a passphrase and not for recipients: a passphrase opens it",
            )),
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

fn secret(text: &SecretString) -> AgeSecret {
    AgeSecret::from(text.expose_secret().to_owned())
}

fn failed(error: DecryptError, wrong: &'static str) -> AgeError {
    match error {
        DecryptError::NoMatchingKeys
        | DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed => AgeError::WrongKey(wrong),
        DecryptError::ExcessiveWork { required, .. } => AgeError::Expensive(required),
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            AgeError::Io(error)
        }
        _ => AgeError::NotAge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(readers: &Readers, plain: &[u8]) -> Vec<u8> {
        let mut writer = readers.seal(Vec::new()).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn opened(opener: &Opener, file: &[u8]) -> Result<Vec<u8>, String> {
        let mut reader = opener.open(file).map_err(|error| error.to_string())?;
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).map_err(|error| error.to_string())?;
        Ok(plain)
    }

    fn pair() -> (Readers, Opener) {
        let identity = age::x25519::Identity::generate();
        let public = identity.to_public().to_string();
        let readers = Readers::recipients([public.as_str()]).unwrap();
        use age::secrecy::ExposeSecret as _;
        let text = format!("# created\n\n{}\n", identity.to_string().expose_secret());
        (readers, Opener::identities(&SecretString::new(text)).unwrap())
    }

    #[test]
    fn only_its_readers_open_a_file() {
        let (readers, opener) = pair();
        let plain = vec![7; 200_000];
        let file = sealed(&readers, &plain);
        assert_eq!(opened(&opener, &file).unwrap(), plain);
        let (_, other) = pair();
        assert!(opened(&other, &file).unwrap_err().contains("not for any of these identities"));
        let passphrase = Opener::passphrase(SecretString::new("correct horse".to_owned()));
        assert!(opened(&passphrase, &file).unwrap_err().contains("an identity opens it"));
    }

    #[test]
    fn a_cut_or_altered_file_is_noticed() {
        let (readers, opener) = pair();
        let file = sealed(&readers, &vec![7; 150_000]);
        for at in (0..file.len()).step_by(997) {
            assert!(opened(&opener, &file[..at]).is_err(), "cut at {at}");
            let mut altered = file.clone();
            altered[at] ^= 1;
            assert!(opened(&opener, &altered).is_err(), "altered at {at}");
        }
        assert!(opened(&opener, b"age-encryption.org/v2\n").is_err());
    }

    #[test]
    fn passphrases() {
        let word = |text: &str| SecretString::new(text.to_owned());
        assert!(matches!(Readers::passphrase(word("short")), Err(AgeError::WeakPassphrase)));
        let file = sealed(&Readers::passphrase(word("correct horse")).unwrap(), b"x");
        assert_eq!(opened(&Opener::passphrase(word("correct horse")), &file).unwrap(), b"x");
        let wrong = opened(&Opener::passphrase(word("correct house")), &file).unwrap_err();
        assert_eq!(wrong, "the passphrase is wrong");
    }

    #[test]
    fn keys_that_are_none_are_named_by_their_place() {
        let told = Readers::recipients(["age1x"]).unwrap_err().to_string();
        assert!(told.starts_with("recipient 1 is none"), "{told}");
        assert!(matches!(Readers::recipients([]), Err(AgeError::NoReaders)));
        let text = SecretString::new("# x\nAGE-SECRET-KEY-1QQ\n".to_owned());
        assert!(matches!(Opener::identities(&text), Err(AgeError::Identity(2))));
    }
}
