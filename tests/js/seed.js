'use strict'
// Writes feeds and serves them: node seed.js --dir=D [--blocks=N] [--size=S] [--feeds=N] [--compat | --manifest=KIND] [--encrypted] [--connect=H:P | --bootstrap=H:P]
// Lines on standard input: "append N" appends N blocks to every feed, "truncate N" cuts it to N blocks.
const readline = require('readline')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const signed = require('./signed')
const { args: parse, block, connect, limit, main, say } = require('./blocks')

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 120))
  const blocks = Number(args.blocks || 0)
  const size = Number(args.size || 1000)
  const encryptionKey = args.encrypted ? Buffer.alloc(32, 5) : null
  const append = async (core, count, write = (batch) => core.append(batch)) => {
    for (const end = core.length + count; core.length < end; ) {
      const batch = []
      while (batch.length < 16 && core.length + batch.length < end) batch.push(block(core.length + batch.length, size, core.fork))
      await write(batch)
    }
  }

  let replicate
  let write
  const cores = []
  if (args.manifest) {
    const feed = await signed.open(args.manifest, args.dir)
    if (!feed.core) await feed.append([...Array(blocks).keys()].map((i) => block(i, size)))
    cores.push(feed.core)
    write = (batch) => feed.append(batch)
    replicate = (stream) => cores[0].replicate(stream)
  } else if (args.compat) {
    cores.push(new Hypercore(args.dir, null, { compat: true, encryptionKey }))
    replicate = (stream) => cores[0].replicate(stream)
  } else {
    const store = new Corestore(args.dir)
    for (let i = 0; i < Number(args.feeds || 1); i++) cores.push(store.get({ name: `feed ${i}`, encryptionKey }))
    replicate = (stream) => store.replicate(stream)
  }
  for (const core of cores) {
    await core.ready()
    await append(core, blocks - core.length, write)
  }
  say({ event: 'feeds', keys: cores.map((core) => core.key.toString('hex')) })
  connect(args, replicate, cores)

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [, what, count] = line.match(/^(append|truncate) (\d+)$/)
    for (const core of cores) {
      if (what === 'append') await append(core, Number(count), write)
      else await core.truncate(Number(count))
    }
    say({ event: what === 'append' ? 'appended' : 'truncated', lengths: cores.map((core) => core.length) })
  }
  process.exit(0)
})
