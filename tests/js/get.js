'use strict'
// Reads feeds and compares every block: node get.js --dir=D --keys=HEX,HEX --blocks=N [--size=S] [--connect=H:P | --bootstrap=H:P]
// Waits until every feed has N blocks, so that a growing feed can be followed. --random reads single blocks out of order.
// --fork=F --cut=C waits for fork F, whose blocks are new from C on.
const Corestore = require('corestore')
const { args: parse, block, connect, limit, main, say } = require('./blocks')

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 120))
  const blocks = Number(args.blocks)
  const size = Number(args.size || 1000)
  const fork = Number(args.fork || 0)
  const cut = Number(args.cut || 0)
  const store = new Corestore(args.dir)
  const cores = args.keys.split(',').map((key) => store.get({ key: Buffer.from(key, 'hex') }))
  await Promise.all(cores.map((core) => core.ready()))
  // update() waits for these, then for what the connection knows.
  const found = cores.map((core) => core.findingPeers())
  connect(args, (stream) => {
    store.replicate(stream)
    stream.opened.then(() => setImmediate(() => found.forEach((done) => done())))
  }, cores)

  const read = async (core) => {
    await core.update({ wait: true })
    say({ event: 'head', length: core.length })
    const live = args.random ? null : core.download({ start: 0, end: -1 })
    while (core.length < blocks || core.fork < fork) await new Promise((resolve) => setTimeout(resolve, 20))
    const order = [...Array(blocks).keys()]
    if (args.random) order.sort(() => Math.random() - 0.5)
    let bad = 0
    await Promise.all(order.map(async (i) => {
      if (!(await core.get(i)).equals(block(i, size, i < cut ? 0 : fork))) bad++
    }))
    if (live) live.destroy()
    // Finds the block of a byte by the tree, which asks for hashes and seeks.
    const [index, offset] = await core.seek(size * blocks - 1)
    if (index !== blocks - 1 || offset !== size - 1) bad++
    return bad
  }
  const begin = Date.now()
  const bad = (await Promise.all(cores.map(read))).reduce((sum, n) => sum + n)
  const seconds = (Date.now() - begin) / 1000
  const stats = cores[0].core.replicator.stats
  say({ event: 'done', bad, seconds, megabytesPerSecond: (cores.length * blocks * size) / 1e6 / seconds, invalid: stats.invalidData })
  process.exit(bad ? 2 : 0)
})
