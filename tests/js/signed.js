'use strict'
// Feeds with other manifests than the usual one: several signers, older and newer versions, a fixed beginning.
const path = require('path')
const Hypercore = require('hypercore')
const Verifier = require('hypercore/lib/verifier')
const multisig = require('hypercore/lib/multisig')
const { MerkleTree } = require('hypercore/lib/merkle-tree')
const crypto = require('hypercore-crypto')

const pairs = [1, 2, 3].map((name) => crypto.keyPair(Buffer.alloc(32, name)))
const signers = (count) => pairs.slice(0, count).map(({ publicKey }, at) => ({ publicKey, namespace: Buffer.alloc(32, at) }))

const MANIFESTS = {
  'two-of-three': { version: 1, quorum: 2, signers: signers(3) },
  'v0-one': { version: 0, quorum: 1, signers: signers(1) },
  'v0-two-of-three': { version: 0, quorum: 2, signers: signers(3) },
  linked: { version: 2, quorum: 1, signers: signers(1), linked: [Buffer.alloc(32, 7)], userData: Buffer.from('hello') },
  v3: { version: 3, quorum: 2, signers: signers(2) },
  patched: { version: 1, quorum: 2, allowPatch: true, signers: signers(3) }
}

exports.kinds = [...Object.keys(MANIFESTS), 'prologue']

// A feed of a kind that is named above, or `prologue`, alone or in a corestore; `append` adds blocks to it as its signers would.
// With a name it is another feed of the same signers.
exports.open = async (kind, dir, corestore = null, name = '') => {
  if (kind === 'prologue') return prologue(dir)
  const named = (signer, at) => ({ ...signer, namespace: crypto.hash(Buffer.from(`${name} ${at}`)) })
  const { signers, ...rest } = MANIFESTS[kind]
  const manifest = Verifier.createManifest({ ...rest, signers: name ? signers.map(named) : signers })
  const core = corestore ? corestore.get({ manifest }) : new Hypercore(dir, { manifest })
  await core.ready()
  return { core, append: (blocks) => append(core, manifest, blocks), truncate: (length) => truncate(core, manifest, length) }
}

// As its signers cut it: they sign the fork that begins there.
async function truncate(core, manifest, length) {
  const batch = core.state.createTreeBatch()
  await MerkleTree.truncate(core.state, length, batch, core.fork + 1)
  const verifier = Verifier.fromManifest(manifest)
  const proofs = [0, 1].map((signer) => {
    return { signer, signature: verifier.signers[signer].sign(batch, pairs[signer]), patch: 0, nodes: null }
  })
  await core.truncate(length, { signature: multisig.assemble(proofs) })
}

async function append(core, manifest, blocks) {
  const sign = (batch, signer) => Verifier.fromManifest(manifest).signers[signer].sign(batch, pairs[signer])
  const batch = core.state.createTreeBatch()
  for (const block of blocks) batch.append(block)
  if (manifest.version === 0 && manifest.quorum === 1) return core.append(blocks, { signature: sign(batch, 0) })
  const proofs = []
  for (let signer = 0; signer < manifest.quorum; signer++) {
    proofs.push({ signer, signature: sign(batch, signer), patch: 0, nodes: null })
  }
  if (manifest.allowPatch) {
    // The last one has signed one block more.
    const longer = core.state.createTreeBatch()
    for (const block of [...blocks, Buffer.from('more')]) longer.append(block)
    const signer = manifest.quorum - 1
    const leaf = longer.nodes.find((node) => node.index === 2 * batch.length)
    proofs[signer] = { signer, signature: sign(longer, signer), patch: 1, nodes: [leaf] }
  }
  const signature = manifest.version === 0 ? multisig.assemblev0(proofs) : multisig.assemble(proofs)
  await core.append(blocks, { signature })
}

// Nobody signs: the manifest has the hash of all the blocks there will ever be.
async function prologue(dir) {
  const source = new Hypercore(path.join(dir, 'source'))
  await source.ready()
  return {
    core: null,
    append: async function (blocks) {
      await source.append(blocks)
      const manifest = { version: 1, quorum: 0, signers: [], prologue: { hash: await source.treeHash(), length: source.length } }
      this.core = new Hypercore(path.join(dir, 'static'), { manifest })
      await this.core.ready()
      await this.core.core.copyPrologue(source.state)
    }
  }
}
