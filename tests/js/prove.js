'use strict'
// Answers as hypercore's own prover makes them: node prove.js --dir=D
// A line {"append": [size, …], "requests": [{block, hash, seek, upgrade}, …]} on standard input appends such blocks and then
// prints the answer to each request as hex, or null where it is refused.
const readline = require('readline')
const c = require('compact-encoding')
const crypto = require('hypercore-crypto')
const Hypercore = require('hypercore')
const { MerkleTree } = require('hypercore/lib/merkle-tree')
const { wire } = require('hypercore/lib/messages')
const { args: parse, block, limit, main, say } = require('./blocks')

// As hypercore's replicator does it: `core.proof` reads too early when it has to seek.
const answer = async (core, request) => {
  const reads = core.state.storage.read()
  try {
    const pending = await MerkleTree.proof(core.state, reads, request)
    const value = request.block ? reads.getBlock(request.block.index) : null
    reads.tryFlush()
    const proof = await pending.settle()
    if (request.block) proof.block.value = await value
    return c.encode(wire.data, { request: 1, ...proof }).toString('hex')
  } catch {
    reads.destroy()
    return null
  }
}

// Reads that were given up reject later.
process.on('unhandledRejection', () => {})

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 240))
  const core = new Hypercore(args.dir, { keyPair: crypto.keyPair(Buffer.alloc(32, 1)) })
  await core.ready()
  say({ event: 'feeds', keys: [core.key.toString('hex')] })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { append, requests } = JSON.parse(line)
    const start = core.length
    await core.append(append.map((size, at) => block(start + at, size)))
    const answers = []
    for (const request of requests) answers.push(await answer(core, request))
    say({ event: 'answers', answers })
  }
  process.exit(0)
})
