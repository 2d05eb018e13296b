//! Accounts: who pays, who is paid, and who signs.
//!
//! An account is an sr25519 key pair made from a phrase of twelve words (BIP-39, derived as Substrate does it), so any
//! Polkadot wallet opens the same account from the same words.

use codec::{Decode, Encode};
use std::{fmt, str::FromStr};
use subxt::utils::AccountId32;
use subxt_signer::{ExposeSecret, SecretString, SecretUri, bip39, sr25519::Keypair};

/// Words of a phrase.
pub const PHRASE_WORDS: usize = 12;

/// A key pair that signs for an account.
#[derive(Clone)]
pub struct Account {
    pair: Keypair,
}

/// Names an account: its public key. Shown as an SS58 address with prefix 42.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AccountId(pub [u8; 32]);

/// The twelve words an account is made from. Not printed by `Debug`, wiped from memory when dropped.
#[derive(Clone, Debug)]
pub struct Phrase(SecretString);

/// Why words don't make an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPhrase {
    /// Not twelve words.
    #[error("a phrase has {PHRASE_WORDS} words, this one has {0}")]
    WordCount(usize),
    /// A word that is in no phrase.
    #[error("word {place} of the phrase, \"{word}\", is not in the English word list{}", maybe(.meant))]
    UnknownWord {
        /// Its place, counted from 1.
        place: usize,
        /// The word.
        word: String,
        /// The one word of the list that begins like it, if there is just one.
        meant: Option<&'static str>,
    },
    /// Every word exists, but not together.
    #[error("the words don't belong together (wrong checksum): is one of them another word, or are two swapped?")]
    Checksum,
    /// Not a name like `//Alice`.
    #[error(
        "\"{0}\" does not name an account of the dev chain: try //Alice, //Bob, //Charlie, //Dave, //Eve or //Ferdie"
    )]
    DevName(String),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Neither form.
    #[error(
        "\"{0}\" is not an address: one looks like 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY, or is 0x and 64 hex digits"
    )]
    Form(String),
    /// A mistyped address.
    #[error("the address {0} has a wrong checksum: is a character mistyped?")]
    Checksum(String),
    /// The same account as it is written on another chain.
    #[error("the address {given} is written for another chain; here the same account is {here}")]
    OtherChain {
        /// What was given.
        given: String,
        /// The same key, with this chain's prefix.
        here: AccountId,
    },
}

fn maybe(meant: &Option<&'static str>) -> String {
    meant.map_or(String::new(), |word| format!(": did you mean \"{word}\"?"))
}

impl Account {
    /// The account of a phrase. Spaces, line ends and capitals don't matter.
    pub fn from_phrase(words: &str) -> Result<Self, BadPhrase> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        if words.len() != PHRASE_WORDS {
            return Err(BadPhrase::WordCount(words.len()));
        }
        let phrase = SecretString::from(words.join(" "));
        let mnemonic = bip39::Mnemonic::parse_in_normalized(bip39::Language::English, phrase.expose_secret()).map_err(
            |error| match error {
                bip39::Error::UnknownWord(at) => {
                    BadPhrase::UnknownWord { place: at + 1, word: words[at].clone(), meant: only_word_like(&words[at]) }
                }
                _ => BadPhrase::Checksum,
            },
        )?;
        let pair = Keypair::from_phrase(&mnemonic, None).map_err(|_| BadPhrase::Checksum)?;
        Ok(Self { pair })
    }

    /// An account of the dev chain by its name: `//Alice`. Everybody knows its key, so it is worth nothing elsewhere.
    pub fn dev(name: &str) -> Result<Self, BadPhrase> {
        let bad = || BadPhrase::DevName(name.into());
        if !name
            .strip_prefix("//")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            return Err(bad());
        }
        let uri = SecretUri::from_str(name).map_err(|_| bad())?;
        let pair = Keypair::from_uri(&uri).map_err(|_| bad())?;
        Ok(Self { pair })
    }

    /// A new account, from randomness of the operating system. The phrase is the only way back to it.
    pub fn generate() -> (Self, Phrase) {
        let mut entropy = [0; PHRASE_WORDS * 4 / 3];
        getrandom::getrandom(&mut entropy).expect("the operating system gives randomness");
        let mnemonic =
            bip39::Mnemonic::from_entropy_in(bip39::Language::English, &entropy).expect("128 bits are twelve words");
        let pair = Keypair::from_phrase(&mnemonic, None).expect("any twelve words with their checksum make a key");
        (Self { pair }, Phrase(SecretString::from(mnemonic.to_string())))
    }

    /// Its name on the ledger.
    pub fn id(&self) -> AccountId {
        AccountId(self.pair.public_key().0)
    }

    pub(crate) fn sign(&self, payload: &[u8]) -> [u8; 64] {
        self.pair.sign(payload).0
    }
}

/// The one word of the list that begins with the first letters of `word`: four always suffice, so most slips name theirs.
fn only_word_like(word: &str) -> Option<&'static str> {
    let list = bip39::Language::English;
    (3..=4).rev().filter_map(|letters| word.get(..letters)).find_map(|start| match list.words_by_prefix(start) {
        [only] => Some(*only),
        _ => None,
    })
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.id())
    }
}

impl Phrase {
    /// The words, to be shown to their owner or encrypted: nothing else.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AccountId32(self.0).fmt(f)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccountId {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let text = text.trim();
        if let Some(digits) = text.strip_prefix("0x") {
            return from_hex(digits).map(AccountId).ok_or_else(|| BadAddress::Form(text.into()));
        }
        let looks_like_one = (46..=49).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let id = AccountId32::from_str(text).map(|id| Self(id.0)).map_err(|_| match looks_like_one {
            true => BadAddress::Checksum(text.into()),
            false => BadAddress::Form(text.into()),
        })?;
        // The prefix is part of the text, so another one shows when the address is written anew.
        if id.to_string() != text {
            return Err(BadAddress::OtherChain { given: text.into(), here: id });
        }
        Ok(id)
    }
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        // from_str_radix alone would take a sign.
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
    }
    Some(bytes)
}

impl From<AccountId> for AccountId32 {
    fn from(id: AccountId) -> Self {
        AccountId32(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    /// Substrate's well-known phrase; its account by `subkey inspect`.
    const DEV: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
    const DEV_ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";

    #[test]
    fn names_and_phrases_give_the_accounts_that_other_wallets_give() {
        assert_eq!(Account::dev("//Alice").unwrap().id().to_string(), ALICE);
        assert_eq!(Account::from_phrase(DEV).unwrap().id().to_string(), DEV_ADDRESS);
        assert_eq!(
            Account::from_phrase(&DEV.to_uppercase().replace(' ', "\n ")).unwrap().id().to_string(),
            DEV_ADDRESS
        );
    }

    #[test]
    fn a_new_phrase_gives_the_same_account_again_and_no_two_are_equal() {
        let (account, phrase) = Account::generate();
        assert_eq!(phrase.reveal().split(' ').count(), PHRASE_WORDS);
        assert_eq!(Account::from_phrase(phrase.reveal()).unwrap().id(), account.id());
        assert_ne!(Account::generate().0.id(), account.id());
        assert!(!format!("{phrase:?}").contains(phrase.reveal()));
    }

    #[test]
    fn a_wrong_word_is_named() {
        let wrong = DEV.replace("curtain", "curtian");
        let error = Account::from_phrase(&wrong).unwrap_err();
        let word = BadPhrase::UnknownWord { place: 5, word: "curtian".into(), meant: Some("curtain") };
        assert_eq!(error, word);
        assert_eq!(
            error.to_string(),
            "word 5 of the phrase, \"curtian\", is not in the English word list: did you mean \"curtain\"?"
        );
        assert_eq!(Account::from_phrase(&DEV.replace("walk", "")).unwrap_err(), BadPhrase::WordCount(11));
        assert_eq!(Account::from_phrase(&DEV.replace("walk", "fit")).unwrap_err(), BadPhrase::Checksum);
        assert!(matches!(Account::from_phrase(&DEV.replace("walk", "wälk")), Err(BadPhrase::UnknownWord { .. })));
    }

    #[test]
    fn only_names_are_dev_accounts() {
        for name in ["Alice", "//", "//Alice/soft", "//Alice///password", DEV] {
            assert_eq!(Account::dev(name).unwrap_err(), BadPhrase::DevName(name.into()), "{name}");
        }
    }

    #[test]
    fn an_address_is_read_in_both_forms_and_mistakes_are_told_apart() {
        let alice = Account::dev("//Alice").unwrap().id();
        assert_eq!(ALICE.parse(), Ok(alice));
        let hex: String = alice.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("0x{hex}").parse(), Ok(alice));
        let mistyped = ALICE.replace("Qp", "qP");
        assert_eq!(mistyped.parse::<AccountId>(), Err(BadAddress::Checksum(mistyped)));
        let polkadot = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
        assert_eq!(polkadot.parse::<AccountId>(), Err(BadAddress::OtherChain { given: polkadot.into(), here: alice }));
        for text in ["", "Alice", "0x12", "0x+1", &format!("0x{}", "é".repeat(32))] {
            assert_eq!(text.parse::<AccountId>(), Err(BadAddress::Form(text.into())));
        }
    }
}
