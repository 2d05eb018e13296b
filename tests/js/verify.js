'use strict'
// What hypercore's own verifier says of answers: node verify.js --dir=D
// Lines on standard input; an answer is what a peer would send, as hex:
//   {"reader": HEX}            begins anew with a reader that knows this key and nothing else
//   {"verify": [ANSWER, …]}    prints whether each would be accepted now
//   {"accept": ANSWER}         gives one to the reader, and prints whether it was accepted
const path = require('path')
const readline = require('readline')
const c = require('compact-encoding')
const Hypercore = require('hypercore')
const { MerkleTree } = require('hypercore/lib/merkle-tree')
const { wire } = require('hypercore/lib/messages')
const { args: parse, limit, main, say } = require('./blocks')

const read = (hex) => c.decode(wire.data, Buffer.from(hex, 'hex'))

// `core.verify` up to where it stores.
const verify = async (core, proof) => {
  if (proof.fork !== core.state.fork) return false
  const batch = await MerkleTree.verify(core.state, proof)
  if (batch.upgraded && batch.length <= core.state.length) await batch.downgrade()
  if (!batch.commitable()) return false
  if (batch.upgraded) core._verifyBatchUpgrade(batch, proof.manifest)
  return true
}

const verdict = async (answer) => {
  try {
    return await answer()
  } catch {
    return false
  }
}

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 240))
  let reader = null
  let readers = 0
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line)
    if (order.reader) {
      if (reader) await reader.close()
      reader = new Hypercore(path.join(args.dir, String(readers++)), Buffer.from(order.reader, 'hex'))
      await reader.ready()
      say({ event: 'ready' })
    } else if (order.verify) {
      const verdicts = []
      for (const answer of order.verify) verdicts.push(await verdict(() => verify(reader.core, read(answer))))
      say({ event: 'verdicts', verdicts })
    } else {
      const accepted = await verdict(() => reader.core.verify(read(order.accept), null))
      say({ event: 'accepted', accepted, length: reader.length })
    }
  }
  process.exit(0)
})
