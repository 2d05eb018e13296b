//! The wallet's file: the twelve words of one account, encrypted with a password.
//!
//! `wallet.age` is an ordinary [age](https://age-encryption.org) file with a passphrase, so `age --decrypt wallet.age` opens it too.
//! It is written once and never overwritten.

use crate::place::make_dir;
use age::{
    scrypt::{Identity, Recipient},
    secrecy::{ExposeSecret, SecretString},
};
use anyhow::{Context, Result, bail};
use datdot_ledger::Account;
use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

/// Name of the file.
pub const FILE: &str = "wallet.age";

/// Longest password file, phrase or wallet that is read, in bytes.
const MAX_BYTES: u64 = 16 << 10;

/// The wallet in a folder.
pub struct Keystore {
    path: PathBuf,
}

impl Keystore {
    /// The wallet in `dir`, whether it exists or not.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join(FILE) }
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses if there is one already: money may hang on it.
    pub fn refuse_to_overwrite(&self) -> Result<()> {
        if self.exists() {
            bail!(
                "there is a wallet already in {}: it is never overwritten. Choose another folder with --dir, or move the file away",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Refuses if there is none.
    pub fn must_exist(&self) -> Result<()> {
        if !self.exists() {
            bail!("no wallet in {}: make one with `datdot wallet new`, or `datdot wallet import`", self.path.display());
        }
        Ok(())
    }

    /// Writes the phrase, encrypted, whole or not at all; readable by its owner only.
    pub fn save(&self, phrase: &str, password: SecretString) -> Result<()> {
        self.save_with(phrase, Recipient::new(password))
    }

    fn save_with(&self, phrase: &str, recipient: Recipient) -> Result<()> {
        self.refuse_to_overwrite()?;
        let dir = self.path.parent().context("a wallet is in a folder")?;
        make_dir(dir)?;
        let sealed = age::encrypt(&recipient, phrase.as_bytes()).context("can't encrypt the wallet")?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(&sealed)?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&self.path)?;
            fs::File::open(dir)?.sync_all()
        };
        write().with_context(|| format!("can't write the wallet to {}", self.path.display()))
    }

    /// Opens the wallet.
    pub fn open(&self, password: SecretString) -> Result<Account> {
        let shown = self.path.display();
        self.must_exist()?;
        let sealed = match fs::metadata(&self.path) {
            Ok(file) if file.len() > MAX_BYTES => bail!("{shown} is too long to be a wallet"),
            _ => fs::read(&self.path).with_context(|| format!("can't read the wallet {shown}"))?,
        };
        let words = match age::decrypt(&Identity::new(password), &sealed) {
            Ok(words) => words,
            Err(age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys) => {
                bail!("the password doesn't open {shown}")
            }
            Err(error) => return Err(error).with_context(|| format!("{shown} is damaged")),
        };
        let words = SecretString::from(String::from_utf8(words).with_context(|| format!("{shown} holds no phrase"))?);
        Account::from_phrase(words.expose_secret()).with_context(|| format!("{shown} holds no phrase"))
    }
}

/// Where a password comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct Password {
    /// File whose first line is the wallet's password; without, it is asked for
    #[arg(long, env = "DATDOT_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    /// The password of a wallet that exists.
    pub fn get(&self) -> Result<SecretString> {
        match &self.password_file {
            Some(path) => from_file(path),
            None => prompt("Password of the wallet: "),
        }
    }

    /// A password for a new wallet.
    pub fn choose(&self) -> Result<SecretString> {
        if let Some(path) = &self.password_file {
            return from_file(path);
        }
        let password = prompt("Choose a password for the wallet: ")?;
        let again = prompt("The same again: ")?;
        if password.expose_secret() != again.expose_secret() {
            bail!("the passwords differ: nothing was written, try again");
        }
        Ok(password)
    }
}

fn from_file(path: &Path) -> Result<SecretString> {
    let text = read_small(path).with_context(|| format!("can't read the password from {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        bail!("the first line of {} is the password, but it is empty", path.display());
    }
    Ok(SecretString::from(line.to_owned()))
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, MAX_BYTES), &mut text)?;
    Ok(text)
}

fn prompt(question: &str) -> Result<SecretString> {
    // Asked on the terminal itself: standard input may bring the words.
    let password = rpassword::prompt_password(question).context(
        "a password is needed and there is no terminal to ask on: write it to a file and name that with --password-file or DATDOT_PASSWORD_FILE",
    )?;
    if password.is_empty() {
        bail!("an empty password protects nothing: nothing was written, try again");
    }
    Ok(SecretString::from(password))
}

/// Asks for the twelve words: typed without showing them, or from standard input when it is no terminal.
pub fn ask_phrase() -> Result<SecretString> {
    if io::stdin().is_terminal() {
        return Ok(SecretString::from(rpassword::prompt_password("The 12 words (not shown): ")?));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(io::stdin().lock(), MAX_BYTES), &mut text)
        .context("can't read the phrase from standard input")?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

    /// Little work, so that the tests are fast.
    fn quick(password: &str) -> Recipient {
        let mut recipient = Recipient::new(SecretString::from(password.to_owned()));
        recipient.set_work_factor(2);
        recipient
    }

    #[test]
    fn only_the_password_opens_the_wallet() {
        let dir = tempfile::tempdir().unwrap();
        let keystore = Keystore::in_dir(dir.path());
        keystore.save_with(WORDS, quick("right")).unwrap();
        let account = keystore.open(SecretString::from("right".to_owned())).unwrap();
        assert_eq!(account.id(), Account::from_phrase(WORDS).unwrap().id());
        let error = keystore.open(SecretString::from("wrong".to_owned())).unwrap_err();
        assert!(error.to_string().contains("password"), "{error}");
        let stored = fs::read(keystore.path()).unwrap();
        assert!(!stored.windows(6).any(|window| window == b"bottom"));
    }

    #[test]
    fn a_wallet_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let keystore = Keystore::in_dir(&dir.path().join("new"));
        keystore.save_with(WORDS, quick("first")).unwrap();
        let before = fs::read(keystore.path()).unwrap();
        assert!(keystore.save_with(WORDS, quick("second")).is_err());
        assert_eq!(fs::read(keystore.path()).unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_the_wallet() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let keystore = Keystore::in_dir(dir.path());
        keystore.save_with(WORDS, quick("right")).unwrap();
        assert_eq!(fs::metadata(keystore.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_wallet_says_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Keystore::in_dir(dir.path()).open(SecretString::from("x".to_owned())).unwrap_err();
        assert!(error.to_string().contains("datdot wallet new"), "{error}");
    }

    #[test]
    fn an_empty_password_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "\n").unwrap();
        assert!(Password { password_file: Some(path.clone()) }.get().is_err());
        fs::write(&path, "secret\nsecond line").unwrap();
        assert_eq!(Password { password_file: Some(path) }.get().unwrap().expose_secret(), "secret");
    }
}
