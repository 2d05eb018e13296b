//! The messages as bytes.

use super::*;
use crate::authors::{MAX_MANIFEST, MAX_SIGNATURE};
use datdot_wire::encoding::{DecodeError, Reader, Writer};

/// Nodes in one list of a proof: two paths of the highest tree are fewer.
const MAX_NODES: usize = 256;
/// Words in a bitfield: 2^21 blocks, the largest range that a peer asks for.
const MAX_WORDS: usize = 1 << 16;

impl Message {
    /// Reads the message of type `kind`; types that we don't know are none. Bytes after the last field are ignored.
    pub fn decode(kind: u64, body: &Bytes) -> Result<Option<Message>, DecodeError> {
        let r = &mut Reader::new(body);
        Ok(Some(match kind {
            0 => {
                let flags = r.uint()?;
                Message::Sync(Sync {
                    can_upgrade: flags & 1 != 0,
                    uploading: flags & 2 != 0,
                    downloading: flags & 4 != 0,
                    has_manifest: flags & 8 != 0,
                    allow_push: flags & 16 != 0,
                    fork: r.uint()?,
                    length: r.uint()?,
                    remote_length: r.uint()?,
                })
            }
            1 => Message::Request(read_request(r)?),
            2 => Message::Cancel { id: r.uint()? },
            DATA => Message::Data(Box::new(read_data(r, body)?)),
            4 => {
                let id = r.uint()?;
                let flags = if r.is_empty() { 0 } else { r.uint()? };
                let reason = if flags & 1 != 0 { r.uint()? } else { 0 };
                let reason = match reason {
                    1 => Some(Refusal::NotAvailable),
                    2 => Some(Refusal::Invalid),
                    _ => None,
                };
                Message::NoData { id, reason }
            }
            5 => Message::Want(read_wanted(r)?),
            6 => Message::Unwant(read_wanted(r)?),
            7 => {
                let start = r.uint()?;
                if start % 32 != 0 {
                    return Err(DecodeError::Invalid("start of a bitfield"));
                }
                Message::Bitfield { start, words: r.words(MAX_WORDS)? }
            }
            8 => {
                let flags = r.uint()?;
                Message::Range {
                    drop: flags & 1 != 0,
                    start: r.uint()?,
                    length: if flags & 2 != 0 { 1 } else { r.uint()? },
                }
            }
            9 => Message::Extension,
            _ => return Ok(None),
        }))
    }

    /// The message's type and body. An extension, which has no known content, is an empty one.
    pub fn encode(&self) -> (u64, Vec<u8>) {
        let (kind, body, block) = self.encode_around();
        (kind, [&body[..block], &self.block(), &body[block..]].concat())
    }

    /// The message's type and body, but for the content of a block, which belongs after so many bytes: it is large, and need
    /// not be copied once more.
    pub fn encode_around(&self) -> (u64, Vec<u8>, usize) {
        let mut w = Writer::with_capacity(match self {
            Message::Data(_) => 2048,
            _ => 32,
        });
        let mut block = 0;
        let kind = match self {
            Message::Sync(sync) => {
                let flags =
                    flags([sync.can_upgrade, sync.uploading, sync.downloading, sync.has_manifest, sync.allow_push]);
                w.uint(flags).uint(sync.fork).uint(sync.length).uint(sync.remote_length);
                0
            }
            Message::Request(request) => {
                write_request(&mut w, request);
                1
            }
            Message::Cancel { id } => {
                w.uint(*id);
                2
            }
            Message::Data(data) => {
                block = write_data(&mut w, data);
                DATA
            }
            Message::NoData { id, reason } => {
                w.uint(*id);
                match reason {
                    None => w.uint(0),
                    Some(Refusal::NotAvailable) => w.uint(1).uint(1),
                    Some(Refusal::Invalid) => w.uint(1).uint(2),
                };
                4
            }
            Message::Want(wanted) => {
                write_wanted(&mut w, wanted);
                5
            }
            Message::Unwant(wanted) => {
                write_wanted(&mut w, wanted);
                6
            }
            Message::Bitfield { start, words } => {
                w.uint(*start).words(words);
                7
            }
            Message::Range { drop, start, length } => {
                w.uint(flags([*drop, *length == 1])).uint(*start);
                if *length != 1 {
                    w.uint(*length);
                }
                8
            }
            Message::Extension => {
                w.string("");
                9
            }
        };
        (kind, w.into_vec(), block)
    }

    /// The content of the block in the message, if it has one.
    pub fn block(&self) -> Bytes {
        match self {
            Message::Data(data) => data.block.as_ref().map_or(Bytes::new(), |block| block.value.clone()),
            _ => Bytes::new(),
        }
    }
}

impl Handshake {
    /// Reads a handshake.
    pub fn decode(bytes: &[u8]) -> Result<Handshake, DecodeError> {
        let mut r = Reader::new(bytes);
        Ok(Handshake { seeks: r.uint()? & 1 != 0, capability: *r.fixed()? })
    }

    /// The handshake as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(33);
        w.uint(u64::from(self.seeks)).raw(&self.capability);
        w.into_vec()
    }
}

fn flags<const N: usize>(bits: [bool; N]) -> u64 {
    bits.iter().enumerate().map(|(at, bit)| u64::from(*bit) << at).sum()
}

fn read_request(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let flags = r.uint()?;
    let (id, fork) = (r.uint()?, r.uint()?);
    let node = |r: &mut Reader<'_>, flag| {
        (flags & flag != 0).then(|| Ok(NodeRequest { index: r.uint()?, nodes: r.uint()? })).transpose()
    };
    let (block, hash) = (node(r, 1)?, node(r, 2)?);
    let mut pair = |flag| (flags & flag != 0).then(|| Ok((r.uint()?, r.uint()?))).transpose();
    let seek = pair(4)?.map(|(bytes, padding)| SeekRequest { bytes, padding });
    let upgrade = pair(8)?.map(|(start, length)| UpgradeRequest { start, length });
    let priority = if flags & 32 != 0 { r.uint()? } else { 0 };
    Ok(Request { id, fork, block, hash, seek, upgrade, manifest: flags & 16 != 0, priority })
}

fn write_request(w: &mut Writer, request: &Request) {
    let Request { id, fork, block, hash, seek, upgrade, manifest, priority } = request;
    w.uint(flags([block.is_some(), hash.is_some(), seek.is_some(), upgrade.is_some(), *manifest, *priority != 0]))
        .uint(*id)
        .uint(*fork);
    for node in [block, hash].into_iter().flatten() {
        w.uint(node.index).uint(node.nodes);
    }
    if let Some(seek) = seek {
        w.uint(seek.bytes).uint(seek.padding);
    }
    if let Some(upgrade) = upgrade {
        w.uint(upgrade.start).uint(upgrade.length);
    }
    if *priority != 0 {
        w.uint(*priority);
    }
}

fn read_data(r: &mut Reader<'_>, body: &Bytes) -> Result<Data, DecodeError> {
    let flags = r.uint()?;
    let (id, fork) = (r.uint()?, r.uint()?);
    let mut data = Data { id, fork, ..Data::default() };
    if flags & 1 != 0 {
        data.block = Some(DataBlock { index: r.uint()?, value: body.slice_ref(r.buffer()?), nodes: read_nodes(r)? });
    }
    if flags & 2 != 0 {
        data.hash = Some(DataHash { index: r.uint()?, nodes: read_nodes(r)? });
    }
    if flags & 4 != 0 {
        data.seek = Some(DataSeek { bytes: r.uint()?, nodes: read_nodes(r)? });
    }
    if flags & 8 != 0 {
        data.upgrade = Some(DataUpgrade {
            start: r.uint()?,
            length: r.uint()?,
            nodes: read_nodes(r)?,
            additional: read_nodes(r)?,
            signature: match r.buffer()? {
                signature if signature.len() <= MAX_SIGNATURE => body.slice_ref(signature),
                _ => return Err(DecodeError::Invalid("length of a signature")),
            },
        });
    }
    if flags & 16 != 0 {
        data.manifest = match r.rest() {
            manifest if manifest.len() <= MAX_MANIFEST => Some(body.slice_ref(manifest)),
            _ => return Err(DecodeError::Invalid("length of a manifest")),
        };
    }
    Ok(data)
}

/// Writes all but the content of the block; returns where that belongs.
fn write_data(w: &mut Writer, data: &Data) -> usize {
    let mut content = 0;
    w.uint(flags([
        data.block.is_some(),
        data.hash.is_some(),
        data.seek.is_some(),
        data.upgrade.is_some(),
        data.manifest.is_some(),
    ]))
    .uint(data.id)
    .uint(data.fork);
    if let Some(block) = &data.block {
        w.uint(block.index).uint(block.value.len() as u64);
        content = w.len();
        write_nodes(w, &block.nodes);
    }
    if let Some(hash) = &data.hash {
        w.uint(hash.index);
        write_nodes(w, &hash.nodes);
    }
    if let Some(seek) = &data.seek {
        w.uint(seek.bytes);
        write_nodes(w, &seek.nodes);
    }
    if let Some(upgrade) = &data.upgrade {
        w.uint(upgrade.start).uint(upgrade.length);
        write_nodes(w, &upgrade.nodes);
        write_nodes(w, &upgrade.additional);
        w.buffer(&upgrade.signature);
    }
    if let Some(manifest) = &data.manifest {
        w.raw(manifest);
    }
    content
}

fn read_nodes(r: &mut Reader<'_>) -> Result<Vec<Node>, DecodeError> {
    r.array(MAX_NODES, |r| Ok(Node { index: r.uint()?, size: r.uint()?, hash: *r.fixed()? }))
}

fn write_nodes(w: &mut Writer, nodes: &[Node]) {
    w.array(nodes, |w, node| {
        w.uint(node.index).uint(node.size).raw(&node.hash);
    });
}

fn read_wanted(r: &mut Reader<'_>) -> Result<Wanted, DecodeError> {
    let (start, length) = (r.uint()?, r.uint()?);
    let any = !r.is_empty() && r.uint()? & 1 != 0;
    Ok(Wanted { start, length, any })
}

fn write_wanted(w: &mut Writer, wanted: &Wanted) {
    w.uint(wanted.start).uint(wanted.length);
    if wanted.any {
        w.uint(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};

    fn uint() -> impl Strategy<Value = u64> {
        prop_oneof![0..300u64, 0..datdot_wire::encoding::MAX_UINT]
    }

    fn nodes() -> impl Strategy<Value = Vec<Node>> {
        vec((uint(), uint(), any::<[u8; 32]>()).prop_map(|(index, size, hash)| Node { index, size, hash }), 0..5)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..100).prop_map(Bytes::from)
    }

    fn request() -> impl Strategy<Value = Message> {
        let pair = || option::of((uint(), uint()));
        ((uint(), uint(), any::<bool>(), 0..3u64), (pair(), pair(), pair(), pair())).prop_map(
            |((id, fork, manifest, priority), (block, hash, seek, upgrade))| {
                let node = |(index, nodes)| NodeRequest { index, nodes };
                Message::Request(Request {
                    id,
                    fork,
                    manifest,
                    priority,
                    block: block.map(node),
                    hash: hash.map(node),
                    seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
                    upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
                })
            },
        )
    }

    fn data() -> impl Strategy<Value = Message> {
        let block = (uint(), bytes(), nodes()).prop_map(|(index, value, nodes)| DataBlock { index, value, nodes });
        let hash = (uint(), nodes()).prop_map(|(index, nodes)| DataHash { index, nodes });
        let seek = (uint(), nodes()).prop_map(|(bytes, nodes)| DataSeek { bytes, nodes });
        let upgrade =
            (uint(), uint(), nodes(), nodes(), bytes()).prop_map(|(start, length, nodes, additional, signature)| {
                DataUpgrade { start, length, nodes, additional, signature }
            });
        (
            (uint(), uint(), option::of(bytes())),
            option::of(block),
            option::of(hash),
            option::of(seek),
            option::of(upgrade),
        )
            .prop_map(|((id, fork, manifest), block, hash, seek, upgrade)| {
                Message::Data(Box::new(Data { id, fork, block, hash, seek, upgrade, manifest }))
            })
    }

    fn message() -> impl Strategy<Value = Message> {
        let wanted = || (uint(), uint(), any::<bool>()).prop_map(|(start, length, any)| Wanted { start, length, any });
        let sync = (any::<[bool; 5]>(), uint(), uint(), uint()).prop_map(|(f, fork, length, remote_length)| {
            Message::Sync(Sync {
                can_upgrade: f[0],
                uploading: f[1],
                downloading: f[2],
                has_manifest: f[3],
                allow_push: f[4],
                fork,
                length,
                remote_length,
            })
        });
        let reason = prop_oneof![Just(None), Just(Some(Refusal::NotAvailable)), Just(Some(Refusal::Invalid))];
        prop_oneof![
            sync,
            request(),
            uint().prop_map(|id| Message::Cancel { id }),
            data(),
            (uint(), reason).prop_map(|(id, reason)| Message::NoData { id, reason }),
            wanted().prop_map(Message::Want),
            wanted().prop_map(Message::Unwant),
            (0..1000u64, vec(any::<u32>(), 0..9))
                .prop_map(|(start, words)| { Message::Bitfield { start: start * 32, words } }),
            (any::<bool>(), uint(), uint()).prop_map(|(drop, start, length)| Message::Range { drop, start, length }),
        ]
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_are_written(message in message()) {
            let (kind, body) = message.encode();
            prop_assert_eq!(Message::decode(kind, &body.into()), Ok(Some(message)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..12u64, body: Vec<u8>) {
            _ = Message::decode(kind, &Bytes::from(body.clone()));
            _ = Handshake::decode(&body);
        }
    }
}
