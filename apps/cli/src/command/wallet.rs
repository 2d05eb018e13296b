//! `datdot wallet`: the account that pays and is paid.

use crate::{
    keystore::{Keystore, Password, ask_phrase},
    parse::Money,
    place::Place,
    show::{money, say},
};
use age::secrecy::{ExposeSecret, SecretString};
use anyhow::Result;
use datdot_api::SendOrder;
use datdot_ledger::{Account, AccountId};

/// Make, open and use the account that pays and is paid
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot wallet new
  datdot wallet show
  datdot wallet send 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY 2.5")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Make a new account
    #[command(
        after_help = "Example: a file keeps the password, so that a service can start\n  datdot wallet new --password-file /run/secrets/datdot"
    )]
    New(Password),
    /// Bring an account by its 12 words
    #[command(
        after_help = "Example: the words are asked for, or read from standard input\n  datdot wallet import < words.txt"
    )]
    Import(Password),
    /// Show address and balance
    #[command(
        after_help = "Example: with no daemon running the password is asked for, and no balance is known\n  datdot wallet show"
    )]
    Show(Password),
    /// Send money
    #[command(after_help = "Example\n  datdot wallet send 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY 2.5")]
    Send {
        /// The receiver's address (SS58)
        to: AccountId,
        /// How much, as in 2.5
        amount: Money,
    },
}

/// Does it.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let keystore = Keystore::in_dir(place.dir());
    match args.what {
        What::New(password) => {
            keystore.refuse_to_overwrite()?;
            let password = password.choose()?;
            let (account, phrase) = Account::generate();
            keystore.save(phrase.reveal(), password)?;
            say(format_args!("address  {}", account.id()));
            say(format_args!("wallet   {}\n", keystore.path().display()));
            say("These 12 words are the only way back to the account if the file or its password is lost.");
            say("Write them on paper; who has them has the money:\n");
            say(format_args!("  {}", phrase.reveal()));
        }
        What::Import(password) => {
            keystore.refuse_to_overwrite()?;
            let phrase = ask_phrase()?;
            let account = Account::from_phrase(phrase.expose_secret())?;
            keystore.save(normal(phrase.expose_secret()).expose_secret(), password.choose()?)?;
            say(format_args!("address  {}", account.id()));
            say(format_args!("wallet   {}", keystore.path().display()));
        }
        What::Show(password) => match place.daemon() {
            Ok((client, _)) => {
                let wallet = client.wallet()?;
                say(format_args!("address  {}", wallet.address));
                say(format_args!("free     {}", money(wallet.free)));
                say(format_args!("budgets  {}", money(wallet.budgets)));
                say(format_args!("deposits {}", money(wallet.deposits)));
                say(format_args!("bond     {}", money(wallet.bond)));
            }
            Err(_) if keystore.exists() => {
                say(format_args!("address  {}", keystore.open(password.get()?)?.id()));
                say("No daemon runs, so the balance is not known.");
            }
            Err(error) => return Err(error.context("no wallet and no daemon; make a wallet with `datdot wallet new`")),
        },
        What::Send { to, amount } => {
            let (client, _) = place.daemon()?;
            let sent = client.send(&SendOrder { to: to.to_string(), amount: amount.0.into() })?;
            say(format_args!("{} sent to {to}, in block {}", money(amount.0.into()), sent.block));
        }
    }
    Ok(())
}

/// The words as they are kept: lower case, one space between them.
fn normal(words: &str) -> SecretString {
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    SecretString::from(words.join(" "))
}
