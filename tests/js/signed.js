'use strict'
// Feeds with other manifests than the usual one: several signers, older and newer versions, a fixed beginning.
const path = require('path')
const Hypercore = require('hypercore')
const Verifier = require('hypercore/lib/verifier')
const multisig = require('hypercore/lib/multisig')
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

// A feed of a kind that is named above, or `prologue`; `append` adds blocks to it as its signers would.
exports.open = async (kind, dir) => {
  if (kind === 'prologue') return prologue(dir)
  const manifest = Verifier.createManifest(MANIFESTS[kind])
  const core = new Hypercore(dir, { manifest })
  await core.ready()
  return { core, append: (blocks) => append(core, manifest, blocks) }
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
