'use strict'
// Makes v1-forked.json: a feed whose author wrote 9 blocks, cut it to 5 and wrote on to 11, with a namespace of its own and
// blocks of many sizes, an empty one among them.
// NODE_PATH=tests/js/node_modules node rules/proof/tests/vectors/forked.js > rules/proof/tests/vectors/v1-forked.json
const fs = require('fs')
const os = require('os')
const path = require('path')
const Hypercore = require('hypercore')
const crypto = require('hypercore-crypto')
const c = require('compact-encoding')
const { manifest: encoding } = require('hypercore/lib/messages')

const hex = (buffer) => buffer.toString('hex')
const nodes = (list) => list.map((n) => [n.index, n.size, hex(n.hash)])
const block = (i) => Buffer.alloc([0, 1, 3000, 17, 1024][i % 5], `block ${i}`)

async function main () {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'forked-'))
  const keyPair = crypto.keyPair(Buffer.alloc(32, 'a seed'))
  const namespace = Buffer.alloc(32, 'a namespace')
  const manifest = { version: 1, quorum: 1, signers: [{ namespace, publicKey: keyPair.publicKey }] }
  const core = new Hypercore(dir, { keyPair, manifest })
  await core.ready()
  for (let i = 0; i < 9; i++) await core.append(block(i))
  await core.truncate(5)
  for (let i = 5; i < 11; i++) await core.append(block(i + 1))

  const proofs = []
  for (let index = 0; index < core.length; index++) {
    const p = await core.proof({ block: { index, nodes: 0 }, upgrade: { start: 0, length: core.length } })
    proofs.push({
      index,
      value: hex(await core.get(index)),
      fork: p.fork,
      length: core.length,
      blockNodes: nodes(p.block.nodes),
      upNodes: nodes(p.upgrade.nodes),
      signature: hex(p.upgrade.signature)
    })
  }
  console.log(JSON.stringify({
    key: hex(core.key),
    discoveryKey: hex(core.discoveryKey),
    manifest: hex(c.encode(encoding, core.manifest)),
    compat: false,
    treeHash: hex(core.core.state.hash()),
    proofs
  }, null, 1))
  await core.close()
  fs.rmSync(dir, { recursive: true })
}

main()
