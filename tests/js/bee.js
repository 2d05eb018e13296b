'use strict'
// Writes a Hyperbee as it is told and shows its blocks: node bee.js --dir=D
// Each line of standard input is a list of batches, each a list of [key, value] or [key] to delete; the second half of
// them is written change by change. A line of output shows all blocks of the feed in hexadecimal.
const readline = require('readline')
const Corestore = require('corestore')
const Hyperbee = require('hyperbee')
const { args: parse, limit, main, say } = require('./blocks')

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 120))
  const store = new Corestore(args.dir)
  let trees = 0
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const batches = JSON.parse(line)
    const core = store.get({ name: `tree ${trees++}` })
    const bee = new Hyperbee(core, { metadata: { contentFeed: null }, extension: false })
    await bee.ready()
    for (const [i, changes] of batches.entries()) {
      const to = i < batches.length / 2 ? bee.batch() : bee
      for (const [key, value] of changes) {
        if (value === undefined) await to.del(Buffer.from(key))
        else await to.put(Buffer.from(key), Buffer.from(value))
      }
      if (to !== bee) await to.flush()
    }
    const blocks = []
    for (let i = 0; i < core.length; i++) blocks.push((await core.get(i)).toString('hex'))
    say({ event: 'blocks', blocks })
  }
  process.exit(0)
})
