'use strict'
// Writes feeds and serves them: node seed.js --dir=D [--blocks=N] [--size=S] [--feeds=N] [--compat] [--connect=H:P]
// A line "append N" on standard input appends N blocks to every feed.
const readline = require('readline')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const { args: parse, block, connect, limit, main, say } = require('./blocks')

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 120))
  const blocks = Number(args.blocks || 0)
  const size = Number(args.size || 1000)
  const append = async (core, count) => {
    for (const end = core.length + count; core.length < end; ) {
      const batch = []
      while (batch.length < 16 && core.length + batch.length < end) batch.push(block(core.length + batch.length, size))
      await core.append(batch)
    }
  }

  let replicate
  const cores = []
  if (args.compat) {
    cores.push(new Hypercore(args.dir, null, { compat: true }))
    replicate = (stream) => cores[0].replicate(stream)
  } else {
    const store = new Corestore(args.dir)
    for (let i = 0; i < Number(args.feeds || 1); i++) cores.push(store.get({ name: `feed ${i}` }))
    replicate = (stream) => store.replicate(stream)
  }
  for (const core of cores) {
    await core.ready()
    await append(core, blocks - core.length)
  }
  say({ event: 'feeds', keys: cores.map((core) => core.key.toString('hex')) })
  connect(args, replicate)

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [, count] = line.match(/^append (\d+)$/)
    for (const core of cores) await append(core, Number(count))
    say({ event: 'appended', lengths: cores.map((core) => core.length) })
  }
  process.exit(0)
})
