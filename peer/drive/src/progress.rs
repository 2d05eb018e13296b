//! How far a long piece of work is, and what it left out.

use crate::path::PathError;
use std::{io, ops::ControlFlow};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files and links that are done.
    pub files: u64,
    /// Files and links in all.
    pub of_files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes in all.
    pub of_bytes: u64,
}

/// Hears of progress often; `Break` ends the work.
pub type Listener<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Something that was left out, and why.
#[derive(Debug)]
pub struct Skipped {
    /// Its path, fit to be shown.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// See [`Skipped`].
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// Other systems or JavaScript would take it for another name.
    #[error("its name can't be in a drive: {0}")]
    Name(#[from] PathError),
    /// A device, a socket, a pipe.
    #[error("neither a file nor a link")]
    Special,
    /// The drive says nothing that makes sense about it.
    #[error("{0}")]
    Entry(String),
    /// It is a name that a file has here until it is whole.
    #[error("files have such a name until they are whole")]
    Reserved,
    /// Where the program that publishes keeps what is its own.
    #[error("this program keeps its own secrets and feeds there")]
    Own,
    /// A link that leads out of the folder.
    #[error("the link leads out of the drive, to {}", target.escape_debug())]
    Outside {
        /// Where it leads.
        target: String,
    },
    /// The folder has another file or link of that name.
    #[error("another one is there already")]
    Other,
    /// The file system has something else there, or can't have such a name.
    #[error("it can't be written there: {0}")]
    InTheWay(io::Error),
}

/// Counts files and bytes, and asks whether to go on.
pub(crate) struct Counter<'a> {
    pub progress: Progress,
    listener: &'a mut Listener<'a>,
}

/// The listener wants no more.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

impl<'a> Counter<'a> {
    pub fn new(of_files: u64, of_bytes: u64, listener: &'a mut Listener<'a>) -> Self {
        Counter { progress: Progress { of_files, of_bytes, ..Progress::default() }, listener }
    }

    /// `bytes` of the file at hand are done.
    pub fn tell(&mut self, bytes: u64) -> Result<(), Stopped> {
        let progress = Progress { bytes: self.progress.bytes.saturating_add(bytes), ..self.progress };
        if (self.listener)(progress).is_break() { Err(Stopped) } else { Ok(()) }
    }

    /// A file of so many bytes is done.
    pub fn done(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.progress.files += 1;
        self.progress.bytes = self.progress.bytes.saturating_add(bytes);
        self.tell(0)
    }
}
